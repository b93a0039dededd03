"""Fits: what was put in comes out, means are kept, and what cannot be fitted is refused."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pytest

from consensus.coding.fit import MOST_LOST, QUANTILES, fit_compute, fit_link, fit_worker, thinned
from consensus.coding.system import Edge
from consensus.errors import ConfigError


def test_a_link_is_found_again() -> None:
    times = 0.03 * np.random.default_rng(1).geometric(0.7, 20_000)
    tau, p = fit_link(times)
    assert (tau, p) == (pytest.approx(0.03, rel=0.02), pytest.approx(0.3, rel=0.04))


def test_computing_is_found_again_from_all_loads_together() -> None:
    generator = np.random.default_rng(2)
    c, gamma, _ = fit_compute({load: 0.02 * load + generator.exponential(load / 60, 5_000) for load in (1, 3, 8)})
    assert (c, gamma) == (pytest.approx(0.02, rel=0.001), pytest.approx(60, rel=0.03))


def test_the_fit_of_few_times_is_unbiased() -> None:
    generator = np.random.default_rng(3)
    fits = [fit_compute({2: 2.0 + generator.exponential(0.02, 4)}) for _ in range(4_000)]
    assert np.mean([c for c, _, _ in fits]) == pytest.approx(1.0, abs=4 * 0.01 / 2 / math.sqrt(4_000))
    assert np.mean([1 / gamma for _, gamma, _ in fits]) == pytest.approx(0.01, rel=4 / math.sqrt(3 * 4_000))


@pytest.mark.parametrize("times", [[0.1, 0.2, 0.4], [0.0, 0.0, 9.0], [5.0, 5.0], [0.0, 0.0], [1e-300, 1.0]])
def test_the_mean_is_kept(times: list[float]) -> None:
    worker = fit_worker({1: times}, times)
    assert worker.mean_part == pytest.approx(np.mean(times))
    assert Edge(workers=[worker], tau=worker.tau, p=worker.p).mean_transfers == pytest.approx(2 * np.mean(times))


def test_what_scatters_more_than_the_model_can_keeps_its_mean() -> None:
    link = fit_link([0.001] * 99 + [10.0])
    assert link.p == MOST_LOST
    assert link.tau / (1 - link.p) == pytest.approx(np.mean([0.001] * 99 + [10.0]))


def test_c_is_never_negative() -> None:
    assert fit_compute({1: [0.0, 1.0]}) == (0.0, 2.0, (0.0, 1.0))


def test_times_that_do_not_scatter() -> None:
    assert fit_compute({2: [0.5, 0.5], 4: [1.0]}) == (0.25, math.inf, ())
    # The mean of these is below the least of them, by rounding.
    assert fit_compute({1: [0.1] * 6}) == (pytest.approx(0.1), math.inf, ())


@pytest.mark.parametrize("count", [QUANTILES, QUANTILES + 1, 999, 2000])
def test_thinned_times_keep_mean_and_shape(count: int) -> None:
    generator = np.random.default_rng(4)
    times = np.where(generator.random(count) < 0.1, 0.1, 0.01) + generator.exponential(1e-4, count)
    thin = thinned(times)
    assert len(thin) == QUANTILES
    assert np.all(np.diff(thin) >= 0)
    assert thin.mean() == pytest.approx(times.mean(), rel=1e-9)
    # An average loses no more than one share at the one place where times jump.
    assert np.mean(thin > 0.05) == pytest.approx(np.mean(times > 0.05), abs=1.01 / QUANTILES)
    assert fit_compute({1: times}).measured == tuple(thin)


def test_few_times_are_kept_as_they_are() -> None:
    assert fit_compute({1: [3.0, 1.0], 2: [4.0]}).measured == (1.0, 2.0, 3.0)


@pytest.mark.parametrize(
    ("compute", "transfers", "words"),
    [
        ({}, [1, 1], "compute_seconds: 0 times"),
        ({1: [0.1]}, [1, 1], "compute_seconds: 1 times, expected at least 2"),
        ({0: [0.1, 0.2]}, [1, 1], "load = 0: expected a whole number"),
        ({1: [0.1, -0.2]}, [1, 1], "-0.2.* among the times"),
        ({1: [0.1, math.nan]}, [1, 1], "nan"),
        ({1: [0.1, 0.2]}, [1], "transfer_seconds: 1 times"),
        ({1: [0.1, 0.2]}, [1, math.inf], "inf.* among the times"),
    ],
)
def test_bad_times(compute: Mapping[int, list[float]], transfers: list[float], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        fit_worker(compute, transfers)
