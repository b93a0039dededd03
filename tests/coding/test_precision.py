"""Which payload bears which amplification."""

from __future__ import annotations

import pytest

from consensus.coding.precision import LIMITS, UNIT_ROUNDOFF, check_precision
from consensus.errors import ConfigError


@pytest.mark.parametrize("dtype", LIMITS)
def test_the_limit_is_where_it_is_said_to_be(dtype: str) -> None:
    check_precision(LIMITS[dtype], dtype)
    check_precision(LIMITS[dtype] * 1.01, dtype, allow=True)
    with pytest.raises(ConfigError, match=f"payload {dtype}: .* expected at most"):
        check_precision(LIMITS[dtype] * 1.01, dtype)


def test_no_payload_that_passes_errs_by_more_than_two_per_cent() -> None:
    assert max(LIMITS[dtype] * UNIT_ROUNDOFF[dtype] for dtype in LIMITS) < 0.02


@pytest.mark.parametrize(("kappa", "instead"), [(5.0, "float32"), (500.0, "float64")])
def test_the_smallest_payload_that_bears_it_is_offered(kappa: float, instead: str) -> None:
    with pytest.raises(ConfigError, match=f"use payload {instead},"):
        check_precision(kappa, "bfloat16")


def test_an_estimate_is_called_one_and_an_unknown_payload_unknown() -> None:
    with pytest.raises(ConfigError, match="at least 500 times"):
        check_precision(500.0, "float32", estimated=True)
    with pytest.raises(ConfigError, match="did you mean 'float32'"):
        check_precision(1.0, "flaot32")
