"""Weighted sums of gradients, in the gradients' own dtype."""

from __future__ import annotations

import numpy as np
import pytest

from consensus.coding.vectors import weighted_sum
from consensus.errors import CodingError


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("shape", [(1, 3), (4, 1), (5, 7), (3, 0)])
def test_rows_and_lists_sum_alike(dtype: str, shape: tuple[int, int]) -> None:
    rows = np.random.default_rng(0).standard_normal(shape).astype(dtype)
    weights = np.random.default_rng(1).standard_normal(shape[0])
    kept = rows.copy()
    from_rows, from_list = weighted_sum(weights, rows, "w"), weighted_sum(weights, list(rows), "w")
    assert from_rows.dtype == from_list.dtype == dtype
    tolerance = 20 * np.finfo(dtype).eps
    np.testing.assert_allclose(from_rows, weights @ rows.astype(np.float64), atol=tolerance)
    np.testing.assert_allclose(from_list, weights @ rows.astype(np.float64), atol=tolerance)
    np.testing.assert_array_equal(rows, kept)


@pytest.mark.parametrize(
    ("vectors", "words"),
    [
        ([np.zeros(3), np.zeros(4)], r"edge 1: vector 1 has shape \(4,\)"),
        ([np.zeros(3), np.zeros(3, np.float32)], "dtype float32"),
        ([np.zeros((3, 1)), np.zeros((3, 1))], "flat vectors"),
        ([np.zeros(3, int), np.zeros(3, int)], "floating-point"),
        ([np.zeros(3)], "1 vectors came for 2 weights"),
    ],
)
def test_vectors_that_do_not_fit_are_refused(vectors: list[np.ndarray], words: str) -> None:
    with pytest.raises(CodingError, match=words):
        weighted_sum(np.ones(2), vectors, "edge 1")


def test_nothing_has_no_sum() -> None:
    with pytest.raises(CodingError, match="nothing to sum"):
        weighted_sum(np.ones(0), [], "edge 1")
