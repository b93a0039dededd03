"""ZipLine against searches that are too slow to use and too simple to be wrong."""

from __future__ import annotations

from itertools import product
from math import inf, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consensus.errors import ConfigError
from consensus.rules.zipline import Objective, Schedule, zipline

Predictions = dict[int, list[float]]

UNIT: Predictions = {
    0: [10.0 * i for i in range(1, 9)],
    1: [14.0 * i for i in range(1, 9)],
    2: [17.0 * i for i in range(1, 9)],
}
OBJECTIVES: tuple[Objective, ...] = ("spread", "rate")


def predictions(workers: int, ends: int, most: int) -> st.SearchStrategy[Predictions]:
    """Whole seconds, so that many ends coincide and all arithmetic is exact; from 1 on, so that the origin may be 0."""
    run = st.lists(st.integers(1, most).map(float), min_size=1, max_size=ends).map(sorted)
    return st.lists(run, min_size=1, max_size=workers).map(lambda runs: dict(enumerate(runs)))


def value(objective: Objective, spread: float, barrier: float, origin: float = 0.0) -> float:
    return spread if objective == "spread" else spread / (barrier - origin)


def of_all_choices(predicted: Predictions, objective: Objective) -> tuple[float, float]:
    """Least value, and the earliest barrier that has it, over one end from each worker in every way."""
    choices = product(*predicted.values())
    return min((value(objective, max(ends) - min(ends), max(ends)), max(ends)) for ends in choices)


def of_all_barriers(predicted: Predictions, objective: Objective) -> Schedule:
    """Every end as a barrier, every worker as far as it gets by then; n lists looked through for each of Rn ends."""
    best, least = Schedule(inf, inf, {}), inf
    for barrier in sorted(end for ends in predicted.values() for end in ends):
        quotas = {worker: sum(end <= barrier for end in ends) for worker, ends in predicted.items()}
        if all(quotas.values()):
            spread = barrier - min(ends[quotas[worker] - 1] for worker, ends in predicted.items())
            if value(objective, spread, barrier) < least:
                best, least = Schedule(spread, barrier, quotas), value(objective, spread, barrier)
    return best


def test_the_unit_vector() -> None:
    spread, barrier, quotas = zipline(UNIT)
    assert (spread, barrier, quotas) == (2.0, 70.0, {0: 7, 1: 5, 2: 4})


@pytest.mark.parametrize("objective", OBJECTIVES)
@given(predicted=predictions(workers=4, ends=5, most=25))
def test_no_choice_is_better_and_none_as_good_is_earlier(predicted: Predictions, objective: Objective) -> None:
    spread, barrier, quotas = zipline(predicted, objective)
    chosen = [ends[quotas[worker] - 1] for worker, ends in predicted.items()]
    assert (max(chosen), max(chosen) - min(chosen)) == (barrier, spread)
    assert (value(objective, spread, barrier), barrier) == of_all_choices(predicted, objective)


@pytest.mark.parametrize("objective", OBJECTIVES)
@given(predicted=predictions(workers=12, ends=20, most=400))
def test_every_barrier_was_looked_at(predicted: Predictions, objective: Objective) -> None:
    assert zipline(predicted, objective) == of_all_barriers(predicted, objective)


@given(
    pushes=st.lists(st.tuples(st.floats(0.0, 10.0), st.floats(0.01, 10.0)), min_size=1, max_size=8),
    ahead=st.integers(1, 15),
)
def test_ends_as_they_are_predicted_are_scheduled_alike(pushes: list[tuple[float, float]], ahead: int) -> None:
    predicted = {worker: [last + i * step for i in range(1, ahead + 1)] for worker, (last, step) in enumerate(pushes)}
    assert zipline(predicted) == of_all_barriers(predicted, "spread")
    spread, barrier, _ = zipline(predicted, "rate")
    least = of_all_barriers(predicted, "rate")
    assert spread / barrier == pytest.approx(least.spread / least.barrier)


@pytest.mark.parametrize("objective", OBJECTIVES)
@given(predicted=predictions(workers=6, ends=6, most=12), order=st.randoms(use_true_random=False))
def test_neither_order_nor_names_of_workers_matter(predicted: Predictions, objective: Objective, order) -> None:
    workers = list(predicted)
    order.shuffle(workers)
    names = dict(zip(workers, range(100, 100 + len(workers)), strict=True))
    spread, barrier, quotas = zipline({names[worker]: predicted[worker] for worker in workers}, objective)
    assert zipline(predicted, objective) == (spread, barrier, {worker: quotas[names[worker]] for worker in predicted})


@pytest.mark.parametrize(
    ("predicted", "schedule"),
    [
        pytest.param({3: [5.0, 6.0]}, (0.0, 5.0, {3: 1}), id="one worker"),
        pytest.param({0: [5.0], 1: [9.0], 2: [2.0]}, (7.0, 9.0, {0: 1, 1: 1, 2: 1}), id="one end each"),
        pytest.param({0: [1.0, 2.0, 3.0], 1: [10.0, 20.0]}, (7.0, 10.0, {0: 3, 1: 1}), id="one stops before the other begins"),
        pytest.param({0: [1.0, 9.0], 1: [2.0, 3.0, 4.0, 8.0, 10.0]}, (1.0, 2.0, {0: 1, 1: 1}), id="the earliest of equals"),
        pytest.param({0: [4.0, 8.0], 1: [5.0, 6.0], 2: [6.0]}, (2.0, 6.0, {0: 1, 1: 2, 2: 1}), id="on to what coincides"),
        pytest.param({0: [4.0, 4.0, 8.0], 1: [4.0, 5.0]}, (0.0, 4.0, {0: 2, 1: 1}), id="two ends at once of a worker"),
        pytest.param({0: [-3.0, -1.0], 1: [-1.5, 7.0]}, (0.5, -1.0, {0: 2, 1: 1}), id="before zero"),
    ],
)
def test_schedules(predicted: Predictions, schedule: tuple[float, float, dict[int, int]]) -> None:
    assert zipline(predicted) == schedule


def test_a_longer_superstep_may_cost_less_per_second() -> None:
    predicted = {0: [1.0, 10.0], 1: [1.5, 10.6]}
    assert zipline(predicted) == (0.5, 1.5, {0: 1, 1: 1})
    longer = (pytest.approx(0.6), 10.6, {0: 2, 1: 2})
    assert zipline(predicted, "rate") == longer
    assert zipline(predicted, "rate", origin=-100.0) == (0.5, 1.5, {0: 1, 1: 1})
    assert zipline(predicted, "rate", origin=-1.0) == longer


def test_any_sequence_will_do_and_is_left_as_it_was() -> None:
    mixed = {0: (1.0, 2.0), 1: [1.5, 4.0], 2: range(1, 3)}
    assert zipline(mixed) == (0.5, 1.5, {0: 1, 1: 1, 2: 1}) == zipline(mixed)


@pytest.mark.parametrize(
    ("predicted", "arguments", "message"),
    [
        ({}, {}, "no workers"),
        ({0: [1.0], 7: []}, {}, "worker 7 has no predicted end"),
        ({0: [1.0, 2.0], 7: [1.0, 3.0, 2.5]}, {}, r"worker 7: end 3 is 2\.5 after 3\.0.*ascending"),
        ({4: [nan]}, {}, "worker 4: end 1 is nan, expected a finite time"),
        ({4: [1.0, nan, 2.0]}, {}, "worker 4: end 2 is nan"),
        ({4: [1.0, inf]}, {}, "worker 4: end 2 is inf"),
        ({4: [-inf, 1.0]}, {}, "worker 4: end 1 is -inf"),
        ({0: [1.0]}, {"objective": "rat"}, "unknown objective of ZipLine 'rat'; did you mean 'rate'"),
        ({0: [3.0], 5: [2.0, 4.0]}, {"objective": "rate", "origin": 2.0}, r"worker 5 has an end at 2\.0.*after the origin, 2\.0"),
        ({0: [3.0]}, {"objective": "rate", "origin": nan}, "after the origin, nan"),
        ({0: [3.0]}, {"objective": "rate", "origin": -inf}, "after the origin, -inf"),
    ],
)
def test_what_cannot_be_scheduled(predicted: Predictions, arguments: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        zipline(predicted, **arguments)


def test_the_origin_matters_under_rate_alone() -> None:
    assert zipline(UNIT, "spread", origin=1000.0) == zipline(UNIT)
