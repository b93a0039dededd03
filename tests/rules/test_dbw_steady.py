"""Times by resampled round trips: against servers that do wait for each k, and where little has been seen."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray
from support.parameter_server import Server

from consensus.errors import ConfigError
from consensus.rules.dbw import RoundTrips, SteadyTimes

N = 8
WORKERS = range(N)

Draw = Callable[[random.Random], float]

SPREADS: dict[str, Draw] = {
    "exponential": lambda rng: rng.expovariate(1.0),
    "stalls": lambda rng: 10.0 if rng.random() < 0.05 else 1.0,
    "nearly equal": lambda rng: 0.9 + 0.1 * rng.expovariate(1.0),
}


def made(draw: Draw, k: int, updates: int = 1000) -> float:
    """Seconds that an update takes of a server that does wait for k."""
    rng = random.Random(7)
    server = Server(N, "wait", lambda previous: k, lambda: draw(rng))
    list(server.arrivals(updates))
    return server.made[-1][2] / updates


def watched(draw: Draw, choose: Callable[[random.Random], int], updates: int, history: int) -> NDArray[np.float64]:
    """What a server knows of all k that waits for those chosen."""
    rng = random.Random(1)
    server = Server(N, "wait", lambda previous: choose(rng), lambda: draw(rng))
    times, told = SteadyTimes(history), 0
    for arrival in server.arrivals(updates):
        for version, previous, now in server.made[told:]:
            times.update(version, previous, WORKERS, now)
        told = len(server.made)
        times.gradient(arrival.worker, arrival.version, arrival.late, arrival.now)
    # The first look imagines four times the history.
    return times.expected(WORKERS)


@pytest.mark.parametrize("choose", [lambda rng: 1, lambda rng: rng.randint(1, N)])
@pytest.mark.parametrize("spread", SPREADS)
def test_every_k_is_known_whichever_was_waited_for(spread: str, choose: Callable[[random.Random], int]) -> None:
    draw = SPREADS[spread]
    true = [made(draw, k) for k in range(1, N + 1)]
    # About a thousand round trips: their mean is off by 3 %, the number of stalls by 15 %; and so are times.
    np.testing.assert_allclose(watched(draw, choose, 300, history=300), true, rtol=0.3 if spread == "stalls" else 0.15)


def after(rounds: Sequence[Sequence[float]], **options: int) -> NDArray[np.float64]:
    """What is known when all workers have made these round trips, together."""
    times, now, workers = SteadyTimes(**options), 0.0, range(len(rounds[0]))
    for version, trips in enumerate(rounds):
        times.update(version, len(trips), workers, now)
        for worker, seconds in enumerate(trips):
            times.gradient(worker, version, False, now + seconds)
        now += max(trips)
    return times.expected(workers)


def test_what_happened_to_one_may_happen_to_all() -> None:
    once = after([[1.0] * 7 + [10.0]])
    assert once[0] == pytest.approx(1.0, rel=0.05)
    # Were it that worker's alone, they would be 1 until k = 7 and 10 with 8.
    assert once[6] > 2.0
    assert once[7] < 9.0


def test_one_that_is_always_slow_is_told_apart() -> None:
    rounds = [[1.0 + 0.01 * ((version + worker) % 3) for worker in range(7)] + [4.0] for version in range(15)]
    times = after(rounds)
    assert times[6] == pytest.approx(1.01, abs=0.02)
    assert times[7] == pytest.approx(4.0, rel=0.02)


def test_workers_that_slow_down_are_known_within_the_history() -> None:
    rounds = [[1.0] * 4] * 20 + [[1.0, 1.0, 4.0, 4.0]] * 20
    times = after(rounds, history=5)
    assert times[1] == pytest.approx(1.0, rel=0.2)
    assert times[3] == pytest.approx(4.0, rel=0.2)


def test_nothing_is_said_until_all_have_come_once() -> None:
    times = SteadyTimes()
    times.update(0, 2, [1, 2], 0.0)
    times.gradient(1, 0, False, 1.0)
    assert times.expected([1, 2]).tolist() == [0.0, 0.0]
    times.gradient(2, 0, False, 2.0)
    assert times.expected([1, 2])[0] > 0.0


def test_who_has_left_is_counted_no_more() -> None:
    times = SteadyTimes()
    for version in range(10):
        times.update(version, 3, [1, 2, 3], 9.0 * version)
        for worker, seconds in ((1, 1.0), (2, 2.0), (3, 9.0)):
            times.gradient(worker, version, False, 9.0 * version + seconds)
        times.expected([1, 2, 3])
    times.leave(3, [1, 2])
    assert times.expected([1, 2]) == pytest.approx([1.0, 2.0])


def test_a_busy_worker_begins_when_it_is_done_and_not_before_there_is_something_new() -> None:
    trips = RoundTrips()
    trips.update([1, 2], 0.0)
    trips.gradient(1, late=False, now=1.0)
    trips.gradient(1, late=False, now=1.0)  # kept, and looked at once more
    trips.update([1, 2], 3.0)
    trips.gradient(2, late=True, now=2.5)  # came while the update was made
    trips.gradient(2, late=False, now=4.0)
    trips.gradient(1, late=False, now=5.0)
    assert (trips.seconds(1), trips.seconds(2)) == ([1.0, 2.0], [2.5, 1.0])


def test_one_that_does_not_come_back_is_known_to_be_out() -> None:
    times = SteadyTimes()
    for version in range(30):
        times.update(version, 3, [1, 2, 3], float(version))
        for worker in (1, 2, 3) if version < 10 else (1, 2):
            times.gradient(worker, version, False, version + 1.0)
        known = times.expected([1, 2, 3])
    # Worker 3 has been out since 10; times are means over the history.
    assert known[:2] == pytest.approx([1.0, 1.0])
    assert known[2] > 5.0


def test_old_round_trips_are_forgotten() -> None:
    trips = RoundTrips(history=2)
    for version in range(20):
        trips.update([1, 2], 10.0 * version)
        for worker in (1, 2):
            trips.gradient(worker, late=False, now=10.0 * version + (5.0 if version < 10 else 1.0))
    assert trips.seconds(1) == [1.0] * 4
    assert set(trips.draw([1, 2], 50, np.random.default_rng(1)).flat) == {1.0}


def test_nothing_is_drawn_of_one_that_is_not_known() -> None:
    with pytest.raises(ConfigError, match="none of worker 3 is known"):
        RoundTrips().draw([3], 1, np.random.default_rng(1))
    with pytest.raises(ConfigError, match="history = 0"):
        SteadyTimes(history=0)
