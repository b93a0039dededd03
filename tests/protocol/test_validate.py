"""The validator finds each broken invariant."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from support.wire import path, star

from consensus.errors import ProtocolError
from consensus.protocol.commands import StartStep
from consensus.protocol.events import Control, ModelSwapped, StepDone
from consensus.protocol.messages import Engage, Ready
from consensus.protocol.neighbour import NeighbourEngine
from consensus.protocol.rounds import Exchange, Phase, RoundRecord
from consensus.protocol.validate import check_engine, check_record, check_symmetry
from consensus.rules import build


def open_engine() -> NeighbourEngine:
    """Rank 0 of a star: edge 1 done, 2 moving, 3 offered, 4 idle."""
    engine = NeighbourEngine(0, star(5), build("full"))
    engine.handle(StepDone(), 0.0)
    for peer in (1, 2, 3):
        engine.handle(Control(peer, Ready(1)), 0.0)
    for peer in (1, 2):
        engine.handle(Control(peer, Engage(1, 1)), 0.0)
    engine.handle(ModelSwapped(1), 0.0)
    return engine


def test_a_sound_engine_passes() -> None:
    check_engine(open_engine())


def settle(engine: NeighbourEngine) -> None:
    engine.phase = Phase.SETTLING
    engine.view.is_open = False


def forget_done(engine: NeighbourEngine) -> None:
    engine.view.done.clear()


def offer_nothing(engine: NeighbourEngine) -> None:
    engine.edges[3].partner = 0


def lose_offered(engine: NeighbourEngine) -> None:
    engine.edges[3].gone = True
    engine.view.living.discard(3)


def keep_ready(engine: NeighbourEngine) -> None:
    engine.edges[1].ready = 1


def shut_view(engine: NeighbourEngine) -> None:
    engine.view.is_open = False


def lose_living(engine: NeighbourEngine) -> None:
    engine.view.living.discard(4)


def double(engine: NeighbourEngine) -> None:
    engine.last = RoundRecord(1, 0.0, 0.0, (Exchange(1, 1, 0.2, 0.0, 0.0), Exchange(1, 2, 0.2, 0.0, 0.0)), (), "")


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (settle, r"closed while edges to \[2, 3\] are offered or moving"),
        (forget_done, r"edges \[1\] are done, the view says \[\]"),
        (offer_nothing, "edge to 3 is OFFERED with no round"),
        (lose_offered, "edge to 3 is offered to a rank that has left"),
        (keep_ready, "round 1 of rank 1, used by this exchange, still counts as ready"),
        (shut_view, "view.is_open is False while open"),
        (lose_living, "do not add up"),
        (double, "exchanged twice"),
    ],
)
def test_a_harmed_engine_is_found(harm: Callable[[NeighbourEngine], None], words: str) -> None:
    engine = open_engine()
    harm(engine)
    with pytest.raises(ProtocolError, match=words):
        check_engine(engine)


def test_going_on_while_edges_move_is_found() -> None:
    with pytest.raises(ProtocolError, match=r"goes on computing while edges to \[2, 3\] move"):
        check_engine(open_engine(), [StartStep(1)])


def record(round_: int, *exchanges: tuple[int, int, float], backups: tuple[int, ...] = ()) -> RoundRecord:
    return RoundRecord(round_, 0.0, 1.0, tuple(Exchange(*exchange, 0.25, 0.5) for exchange in exchanges), backups, "why")


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (record(1, (1, 1, 0.2), (1, 2, 0.2)), "exchanged twice"),
        (record(1, (1, 1, 0.6), (2, 1, 0.6)), "sum to 1.2"),
        (record(1, (1, 1, 0.2), backups=(1,)), "both partners and backups"),
    ],
)
def test_a_bad_record_is_found(bad: RoundRecord, words: str) -> None:
    with pytest.raises(ProtocolError, match=words):
        check_record(0, bad)


def test_symmetric_histories_are_counted() -> None:
    zero = [record(1, (1, 2, 0.5)), record(2), record(3, (1, 3, 0.5))]
    one = [record(1), record(2, (0, 1, 0.5)), record(3, (0, 3, 0.5))]
    assert check_symmetry([(0, zero), (1, one)]) == 2


@pytest.mark.parametrize("others", [[], [record(1, (0, 2, 0.5))], [record(2, (0, 1, 0.5))]])
def test_a_one_sided_exchange_is_found(others: list[RoundRecord]) -> None:
    with pytest.raises(ProtocolError, match="but not the other way round"):
        check_symmetry([(0, [record(1, (1, 1, 0.5))]), (1, others)])


def test_two_weights_for_one_exchange_are_found() -> None:
    with pytest.raises(ProtocolError, match="one end weighs"):
        check_symmetry([(0, [record(1, (1, 1, 0.5))]), (1, [record(1, (0, 1, 0.25))])])


def test_exchanges_with_the_dead_are_not_asked_for() -> None:
    assert check_symmetry([(0, [record(1, (1, 1, 0.5))])], survivors=frozenset({0})) == 0


def test_a_network_of_two_is_sound_from_the_start() -> None:
    check_engine(NeighbourEngine(0, path(2), build("dtur")))
