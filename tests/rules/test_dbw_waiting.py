"""Expected waiting times, against a small simulation of a server and against order statistics drawn directly."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from numpy.typing import NDArray
from support.parameter_server import Protocol, Server

from consensus.errors import ConfigError, ProtocolError
from consensus.rules.dbw import FirstArrivals, WaitingSample, WaitingTimes

N = 8
ROWS = (1, 4, 8)
# Round trips Exp(1) under `wait`, k drawn anew for every version; late gradients count for the version they are of.
TABLE = {
    1: (0.40, 0.77, 1.14, 1.51, 1.93, 2.44, 3.06, 4.03),
    4: (0.22, 0.46, 0.75, 1.15, 1.54, 2.03, 2.64, 3.60),
    8: (0.12, 0.27, 0.44, 0.64, 0.89, 1.22, 1.70, 2.68),
}
# The table is rounded to 0.01, which is 4 % of its smallest entry.
HALF_A_DIGIT = 0.005


def server(protocol: Protocol, seed: int, k: int | None = None) -> Server:
    """Exponential round trips; the k given, or any with equal chance."""
    draw = random.Random(seed)
    return Server(N, protocol, lambda previous: k or draw.randint(1, N), lambda: draw.expovariate(1.0))


def by_version(protocol: Protocol, updates: int = 20_000) -> WaitingTimes:
    """Each gradient logged for its own version."""
    times = WaitingTimes(N, history=updates)
    for arrival in server(protocol, seed=1).arrivals(updates):
        times.observe(arrival.previous, arrival.place, arrival.duration)
    return times


def order_statistics(previous: int, draws: int = 100_000) -> NDArray[np.float64]:
    """True T_{h,k}: at the update n - h workers are busy, for another Exp(1); they finish, then they make their round trip."""
    rng = np.random.default_rng(previous)
    finished = rng.exponential(size=(draws, N))
    finished[:, previous:] += rng.exponential(size=(draws, N - previous))
    return np.sort(finished, axis=1).mean(axis=0)


def test_waiting_workers_give_the_known_table() -> None:
    # Some 2,500 samples a cell, fewer (about 300) far to the right of the diagonal: standard errors of 1 to 2.5 %.
    times = by_version("wait")
    for previous in ROWS:
        np.testing.assert_allclose(times.expected(previous), TABLE[previous], rtol=0.05, atol=HALF_A_DIGIT)


def test_interrupted_workers_give_the_last_row_whatever_came_before() -> None:
    times = by_version("interrupt")
    for previous in range(1, N + 1):
        np.testing.assert_allclose(times.expected(previous), order_statistics(N), rtol=0.1)


def first_arrivals(k: int | None, updates: int) -> tuple[WaitingTimes, dict[tuple[int, int], int]]:
    """Every worker's first gradient since the update logged, whatever its version; and how many samples each cell got."""
    world, arrivals, times = server("wait", seed=2, k=k), FirstArrivals(N), WaitingTimes(N, history=updates)
    told = 0
    counts: dict[tuple[int, int], int] = {}
    for arrival in world.arrivals(updates):
        for version, previous, now in world.made[told:]:
            arrivals.update(version, previous, now)
        told = len(world.made)
        for sample in arrivals.gradient(arrival.worker, arrival.version, arrival.now):
            times.observe(*sample)
            counts[sample[:2]] = counts.get(sample[:2], 0) + 1
    return times, counts


@pytest.mark.parametrize("k", ROWS)
def test_first_arrivals_tell_the_true_times_under_one_k_for_ever(k: int) -> None:
    updates = 20_000
    times, counts = first_arrivals(k, updates)
    # Relative standard errors of independent samples would be below 0.7 %; neighbouring versions share workers.
    np.testing.assert_allclose(times.expected(k), order_statistics(k), rtol=0.05)
    assert all(counts[k, i] > 0.98 * updates for i in range(1, N + 1))


def test_first_arrivals_tell_the_true_times_under_changing_k() -> None:
    times, _ = first_arrivals(None, 20_000)
    for previous in ROWS:
        np.testing.assert_allclose(times.expected(previous), order_statistics(previous), rtol=0.05)


def test_a_stalled_worker_does_not_hold_all_versions_in_memory() -> None:
    arrivals = FirstArrivals(workers=2, memory=3)
    for version in range(10):
        arrivals.update(version, previous=1, now=float(version))
        arrivals.gradient(0, version, version + 0.5)
    assert arrivals.gradient(1, 0, 10.0) == []
    assert arrivals.gradient(1, 9, 11.0) == [WaitingSample(1, 2, 4.0), WaitingSample(1, 2, 3.0), WaitingSample(1, 2, 2.0)]


def test_after_a_departure_versions_close_with_those_that_are_left() -> None:
    arrivals = FirstArrivals(workers=3)
    arrivals.resize(2)
    arrivals.update(0, previous=2, now=0.0)
    for worker in (0, 1):
        assert len(arrivals.gradient(worker, 0, 1.0)) == 1
    assert arrivals.gradient(2, 0, 2.0) == []


def test_arrivals_refuse_a_version_out_of_order() -> None:
    arrivals = FirstArrivals(workers=2)
    with pytest.raises(ProtocolError, match="gradient of version 0, the newest is None"):
        arrivals.gradient(0, 0, 1.0)
    arrivals.update(0, previous=2, now=0.0)
    with pytest.raises(ProtocolError, match="version 2 after version 0, expected 1"):
        arrivals.update(2, previous=2, now=0.0)


def test_samples_fade_with_the_updates_made_since() -> None:
    times = WaitingTimes(2, history=3)
    for duration in (100.0, 1.0):
        times.observe(1, 2, duration)
    assert times.expected(1).tolist() == [0.0, 50.5]
    for _ in range(3):
        times.age()
    assert times.expected(1).tolist() == [0.0, 50.5]
    times.observe(1, 2, 3.0)
    assert times.expected(1)[1] == pytest.approx((101.0 / math.e + 3.0) / (2.0 / math.e + 1.0))
    for _ in range(10_000):
        times.age()
    assert times.expected(1)[1] > 1.0
    times.observe(1, 2, 5.0)
    assert times.expected(1).tolist() == [0.0, 5.0]


def test_a_new_sample_outweighs_what_neighbouring_cells_were_long_ago() -> None:
    times = WaitingTimes(2, history=3)
    for _ in range(50):
        times.observe(2, 1, 1.0)
        times.observe(2, 2, 1.0)
    for _ in range(60):
        times.age()
    times.observe(2, 1, 4.0)
    assert times.expected(2) == pytest.approx([4.0, 4.0], rel=1e-6)


def test_sustained_times_are_those_of_one_k_for_ever() -> None:
    times = WaitingTimes(2)
    for h, i, duration in ((1, 1, 2.0), (1, 2, 3.0), (2, 1, 1.0), (2, 2, 4.0)):
        times.observe(h, i, duration)
    assert times.sustained().tolist() == [2.0, 4.0]


def test_a_cell_never_seen_is_no_sooner_than_after_more_gradients() -> None:
    times = WaitingTimes(3)
    for i in (1, 2, 3):
        times.observe(3, i, float(i))
    assert times.sustained().tolist() == [1.0, 2.0, 3.0]
    assert times.expected(1).tolist() == [1.0, 2.0, 3.0]


def test_a_sample_after_the_fit_is_seen_and_the_caller_owns_the_answer() -> None:
    times = WaitingTimes(2)
    times.observe(2, 1, 1.0)
    times.expected(2)[:] = -1.0
    assert times.expected(2).tolist() == [1.0, 1.0]
    times.observe(2, 1, 3.0)
    assert times.expected(2).tolist() == [2.0, 2.0]


def test_a_worker_leaves() -> None:
    times = WaitingTimes(3)
    for i in (1, 2, 3):
        times.observe(2, i, float(i))
        times.observe(3, i, float(i))
    times.expected(3)
    times.resize(2)
    assert times.workers == 2
    assert times.expected(2).tolist() == [1.0, 2.0]
    assert times.expected(1).tolist() == [1.0, 2.0]
    with pytest.raises(ConfigError, match="previous = 3, expected 1 .. 2"):
        times.expected(3)
    times.resize(3)
    assert times.expected(2).tolist() == [1.0, 2.0, 2.0]
    assert times.expected(3).tolist() == [0.0, 0.0, 2.0]


@pytest.mark.parametrize(
    ("previous", "i", "duration", "word"),
    [(0, 1, 1.0, "previous = 0"), (1, 3, 1.0, "i = 3"), (1, 1, float("nan"), "duration = nan"), (1, 1, -0.5, "-0.5")],
)
def test_what_cannot_be_is_refused(previous: int, i: int, duration: float, word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        WaitingTimes(2).observe(previous, i, duration)


@pytest.mark.parametrize("make", [lambda: WaitingTimes(0), lambda: WaitingTimes(2, history=0), lambda: WaitingTimes(2).resize(0)])
def test_there_is_at_least_one_worker_and_one_sample(make: object) -> None:
    with pytest.raises(ConfigError, match="1 or more"):
        make()  # type: ignore[operator]


@pytest.mark.parametrize("make", [lambda: FirstArrivals(0), lambda: FirstArrivals(2, 0), lambda: FirstArrivals(2).resize(0)])
def test_arrivals_have_at_least_one_worker_and_one_version(make: object) -> None:
    with pytest.raises(ConfigError, match="1 or more"):
        make()  # type: ignore[operator]
