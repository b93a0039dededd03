"""Which alternatives an answer tells apart."""

from __future__ import annotations

import pytest

from consensus.whatif.answer import Answer, Row
from consensus.whatif.predict import Pace


def row(pace: float, spread: float = 0.0) -> Row:
    return Row("full", "ring", 4, Pace(pace, 1.0, 0.0, 0.0, None, spread))


def answer(*paces: float, simulated: float = 100.0, spread: float = 0.0, starts: int = 4) -> Answer:
    rows = tuple(row(pace, spread) for pace in paces)
    return Answer(None, None, 1.0, row(100.0), row(simulated), rows, starts)  # type: ignore[arg-type]


def places(found: Answer) -> list[tuple[int, int]]:
    return [found.places(row) for row in found.alternatives]


def test_paces_that_are_far_apart_have_a_place_each() -> None:
    assert places(answer(120.0, 110.0, 100.0)) == [(1, 1), (2, 2), (3, 3)]


def test_neighbours_that_are_close_share_places_without_sharing_all() -> None:
    # The second is about equal to both others, which are apart.
    assert places(answer(106.0, 103.0, 100.0, 50.0)) == [(1, 2), (1, 3), (2, 3), (4, 4)]


@pytest.mark.parametrize("simulated", [88.0, 112.0])
def test_the_simulators_error_on_the_run_is_the_margin(simulated: float) -> None:
    assert answer(simulated=simulated).margin == pytest.approx(0.12)
    assert places(answer(110.0, 100.0, simulated=simulated)) == [(1, 2), (1, 2)]
    assert places(answer(113.0, 100.0, simulated=simulated)) == [(1, 1), (2, 2)]


def test_what_may_be_chance_is_a_tie() -> None:
    # Two standard errors of the difference: 2 * 0.1 * sqrt(2 / 4) = 14 %.
    assert places(answer(113.0, 100.0, spread=0.1)) == [(1, 2), (1, 2)]
    assert places(answer(115.0, 100.0, spread=0.1)) == [(1, 1), (2, 2)]
    assert places(answer(113.0, 100.0, spread=0.1, starts=16)) == [(1, 1), (2, 2)]
