"""Engines of coded gradients: what the simulated network does not come to, deaths and broken messages."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from consensus.errors import CodingError, ConfigError, ProtocolError
from consensus.protocol.coded import CodedWorkerEngine, MasterEngine, RelayEngine
from consensus.protocol.commands import (
    Apply,
    Broadcast,
    Command,
    Discard,
    DropModel,
    Finish,
    GiveModel,
    Install,
    SendControl,
    StartStep,
    TakeModel,
)
from consensus.protocol.events import (
    Applied,
    Control,
    Event,
    GradientTaken,
    LeaveWanted,
    ModelGiven,
    ModelTaken,
    PeerLost,
    StepDone,
)
from consensus.protocol.messages import Fetch, Leave, Push, Weights
from consensus.protocol.rounds import Phase
from consensus.rules.coded import Sufficient


class AnyOf:
    """A code of which any so many nodes are enough."""

    def __init__(self, size: int, needed: int) -> None:
        self.participants, self.needed = tuple(range(size)), needed

    def sufficient(self, alive: Iterable[int]) -> bool:
        return len(set(alive)) >= self.needed


def master(limit: int | None = None, approximate: bool = False) -> MasterEngine:
    """Of edges 1 and 2, either of which is enough; 3 to 6 are their workers."""
    return MasterEngine(0, (1, 2), Sufficient(AnyOf(2, 1), 1, approximate), size=7, push="wait", limit=limit, now=0.0)


def relay() -> RelayEngine:
    """Rank 1, an edge of ranks 3, 4 and 5, of which two are enough; 2 is another edge."""
    return RelayEngine(1, 0, (3, 4, 5), Sufficient(AnyOf(3, 2), 3), size=6, push="wait", now=0.0)


def push(version: int, iteration: int = 1) -> Push:
    return Push(version, iteration, 0, 0.5)


def feed(engine: MasterEngine | RelayEngine | CodedWorkerEngine, *events: Event) -> list[Command]:
    """Everything that comes of some events; an update is made as soon as it is asked for."""
    out: list[Command] = []
    for event in events:
        for command in engine.handle(event, 1.0):
            out.append(command)
            if isinstance(command, Apply):
                out += feed(engine, Applied(1.0, 0.1))
    return out


def arrives(worker: int, version: int, iteration: int = 1) -> tuple[Event, Event]:
    return Control(worker, push(version, iteration)), GradientTaken(worker, 0.0)


def test_an_edge_combines_the_first_that_suffice_and_forgets_the_rest() -> None:
    engine = relay()
    assert Apply not in {type(command) for command in feed(engine, *arrives(4, 0))}
    out = feed(engine, *arrives(5, 0))
    assert [command for command in out if not isinstance(command, TakeModel)] == [
        Apply((4, 5), 1.0),
        SendControl(0, Push(0, 1, 0, 0.5)),
        GiveModel(0),
    ]
    assert feed(engine, *arrives(3, 0)) == [TakeModel(3), Discard(3)]
    assert engine.last is not None
    assert engine.last.backups == (3,)


def test_an_edge_passes_newer_weights_on_at_once_and_drops_what_it_was_at() -> None:
    engine = relay()
    feed(engine, *arrives(3, 0))
    out = feed(engine, Control(0, Weights(4)), ModelTaken(0))
    assert out[:4] == [TakeModel(0), Discard(3), Install(), SendControl(0, Fetch(4))]
    assert out[4:] == [command for worker in (3, 4, 5) for command in (SendControl(worker, Weights(4)), GiveModel(worker))]
    assert feed(engine, *arrives(4, 0)) == [TakeModel(4), Discard(4)]


def test_an_edge_combines_nothing_while_its_last_vector_leaves() -> None:
    engine = relay()
    feed(engine, *arrives(3, 0), *arrives(4, 0), Control(0, Weights(1)), ModelTaken(0))
    for worker in (3, 4):
        feed(engine, ModelGiven(worker), Control(worker, Fetch(1)))
    kept = feed(engine, *arrives(3, 1, 2), *arrives(4, 1, 2))
    assert kept == [TakeModel(3), TakeModel(4)]
    assert feed(engine, ModelGiven(0))[:2] == [Apply((3, 4), 1.0), SendControl(0, Push(1, 2, 0, 0.5))]


def test_an_edge_with_too_few_workers_is_silent_and_its_master_goes_on() -> None:
    edge, top = relay(), master()
    assert feed(edge, PeerLost(4)) == [Broadcast(Leave(4)), DropModel(4)]
    assert feed(edge, Control(5, Leave(5)))[-1] == Broadcast(Leave(1))
    assert edge.phase is Phase.LEFT
    feed(top, Control(1, Leave(1)))
    assert Apply((2,), 1.0) in feed(top, *arrives(2, 0))


def test_a_dead_edge_is_dropped_and_what_was_on_its_way_forgotten() -> None:
    engine = master()
    assert feed(engine, Control(1, push(0)), PeerLost(1)) == [TakeModel(1), Broadcast(Leave(1)), DropModel(1), Discard(1)]
    assert Apply((2,), 1.0) in feed(engine, *arrives(2, 0))
    with pytest.raises(CodingError, match=r"after 1 updates: of ranks \[1, 2\], which send to the master, only \[\] are left"):
        engine.handle(PeerLost(2), 2.0)


def test_the_last_update_gives_no_weights_that_nobody_needs() -> None:
    engine = master(limit=1)
    out = feed(engine, *arrives(1, 0))
    assert GiveModel(1) not in out
    assert out[-1] == Broadcast(Leave(0))
    assert engine.phase is Phase.LEFT
    out = feed(engine, *arrives(2, 0), *(Control(rank, Leave(rank)) for rank in range(1, 7)))
    assert out[1:] == [Discard(2), Finish()]


def worker(push: str = "wait") -> CodedWorkerEngine:
    return CodedWorkerEngine(3, 1, 0, 6, push=push)  # type: ignore[arg-type]


@pytest.mark.parametrize("of", [0, 1])
def test_a_worker_leaves_when_its_master_or_edge_has(of: int) -> None:
    computing, waiting = worker(), worker()
    assert feed(computing, Control(of, Leave(of))) == []
    assert computing.interrupted
    assert feed(computing, StepDone()) == [Broadcast(Leave(3))]
    assert not computing.interrupted
    feed(waiting, StepDone(), ModelGiven(1))
    assert feed(waiting, Control(of, Leave(of))) == [Broadcast(Leave(3))]
    for engine in (computing, waiting):
        assert engine.last is not None
        assert engine.last.reason == ("the master has ended training" if of == 0 else "rank 1, its edge, has left")
        out = feed(engine, *(Control(rank, Leave(rank)) for rank in (0, 1, 2, 4, 5) if rank != of))
        assert out == [Finish()]


def test_weights_on_their_way_are_taken_in_before_the_end() -> None:
    engine = worker()
    feed(engine, StepDone(), ModelGiven(1), Control(1, Weights(1)), Control(0, Leave(0)))
    assert feed(engine, *(Control(rank, Leave(rank)) for rank in (1, 2, 4, 5))) == []
    assert feed(engine, ModelTaken(1)) == [Finish()]


def test_a_dead_edge_ends_its_workers_and_a_dead_master_everybody() -> None:
    engine = worker()
    feed(engine, PeerLost(1))
    assert engine.interrupted
    for orphan in (worker(), relay()):
        with pytest.raises(ProtocolError, match=f"rank {orphan.rank} cannot go on: rank 0, the master, has died"):
            orphan.handle(PeerLost(0), 2.0)


def test_a_worker_whose_edge_dies_waits_neither_for_its_gradient_to_leave_nor_for_weights() -> None:
    goodbyes = [Control(rank, Leave(rank)) for rank in (0, 2, 4, 5)]
    giving, taking = worker(), worker()
    feed(giving, StepDone())
    feed(taking, StepDone(), ModelGiven(1), Control(1, Weights(1)))
    for engine in (giving, taking):
        assert feed(engine, PeerLost(1)) == [Broadcast(Leave(3))]
        assert engine.last is not None
        assert engine.last.reason == "rank 1, its edge, has left"
        assert feed(engine, *goodbyes) == [Finish()]


def test_others_tell_of_the_edges_death_before_its_last_weights_are_let_in() -> None:
    engine = worker()
    feed(engine, StepDone(), ModelGiven(1), Control(1, Weights(1)))
    assert feed(engine, Control(0, Leave(1)), ModelTaken(1), PeerLost(1)) == [Broadcast(Leave(3))]
    assert feed(engine, *(Control(rank, Leave(rank)) for rank in (0, 2, 4, 5))) == [Finish()]


def test_the_masters_death_ends_those_as_well_that_have_left() -> None:
    silent, orphan = relay(), worker()
    feed(silent, *arrives(3, 0), *arrives(4, 0), PeerLost(4), PeerLost(5))  # its last combination is on its way
    feed(orphan, StepDone(), PeerLost(1))
    for engine in (silent, orphan):
        assert engine.phase is Phase.LEFT
        with pytest.raises(ProtocolError, match=f"rank {engine.rank} cannot go on: rank 0, the master, has died"):
            engine.handle(PeerLost(0), 2.0)


def test_within_the_tolerance_a_death_changes_nothing() -> None:
    edge, top = relay(), master()
    feed(edge, *arrives(3, 0))
    assert feed(edge, Control(5, push(0)), PeerLost(5)) == [TakeModel(5), Broadcast(Leave(5)), DropModel(5), Discard(5)]
    assert Apply((3, 4), 1.0) in feed(edge, *arrives(4, 0))
    for other in (3, 4, 5, 6):  # whoever it is: no rank that sends to the master
        assert feed(top, PeerLost(other)) == []
    assert Apply((1,), 1.0) in feed(top, *arrives(1, 0))


def test_after_the_last_update_nobody_is_told_of_a_death() -> None:
    engine = master(limit=1)
    feed(engine, *arrives(1, 0), *(Control(rank, Leave(rank)) for rank in (1, 3, 4, 5, 6)))
    assert feed(engine, PeerLost(2)) == [DropModel(2), Finish()]


def test_interrupted_workers_drop_a_step_when_newer_weights_are_here() -> None:
    engine = worker("interrupt")
    feed(engine, Control(1, Weights(1)), ModelTaken(1))
    assert engine.interrupted
    assert feed(engine, StepDone()) == [Install(), StartStep(1)]
    assert engine.dropped == 1


def test_what_cannot_be() -> None:
    for engine in (master(), relay()):
        with pytest.raises(ProtocolError, match="pushed a gradient at version 3, but was given version 0"):
            engine.handle(Control(engine.members and next(iter(engine.members)), push(3)), 1.0)
    with pytest.raises(ProtocolError, match="weights came that the master had not announced"):
        relay().handle(ModelTaken(0), 1.0)
    edge = relay()
    edge.handle(Control(0, Weights(1)), 1.0)
    with pytest.raises(ProtocolError, match="version 2 comes while version 1 is still coming"):
        edge.handle(Control(0, Weights(2)), 1.0)
    with pytest.raises(ProtocolError, match="that nobody had asked for"):
        relay().handle(Applied(0.0, 1.0), 1.0)
    with pytest.raises(ConfigError, match="1 nodes, expected at least the 2 that the code is made for"):
        MasterEngine(0, (1,), Sufficient(AnyOf(2, 1), 1), size=2, push="wait", limit=None, now=0.0)


def test_leaving_by_ones_own_will() -> None:
    for engine in (master(), relay()):
        assert feed(engine, LeaveWanted()) == [Broadcast(Leave(engine.rank))]
        assert feed(engine, LeaveWanted()) == []
