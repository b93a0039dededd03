"""The engine of a parameter server's worker, event by event."""

from __future__ import annotations

import math

import pytest

from consensus.errors import ProtocolError
from consensus.protocol.commands import Broadcast, Command, Finish, GiveModel, Install, SendControl, StartStep, TakeModel
from consensus.protocol.events import Control, Event, LeaveWanted, ModelGiven, ModelTaken, PeerLost, StepDone, Tick
from consensus.protocol.messages import Fetch, Leave, Push, Weights
from consensus.protocol.rounds import Phase
from consensus.protocol.service import PushMode
from consensus.protocol.worker import WorkerEngine

SERVER = 0
PUSHES = pytest.mark.parametrize("push", ["wait", "interrupt", "pull"])


class Bench:
    """Worker 2 of three ranks."""

    def __init__(self, push: PushMode = "wait") -> None:
        self.engine = WorkerEngine(2, SERVER, 3, push=push)
        self.engine.loss = 0.5
        self.now = 0.0

    def feed(self, *events: Event) -> list[Command]:
        done: list[Command] = []
        for event in events:
            self.now += 1.0
            done += self.engine.handle(event, self.now)
        return done

    def weights(self, version: int) -> list[Command]:
        """A version comes whole."""
        return self.feed(Control(SERVER, Weights(version)), ModelTaken(SERVER))


def pushed(version: int, iteration: int, asks: int = 0) -> list[Command]:
    return [SendControl(SERVER, Push(version, iteration, asks, 0.5)), GiveModel(SERVER)]


def went_on(round: int) -> list[Command]:
    return [Install(), StartStep(round)]


def has_room(version: int) -> list[Command]:
    return [SendControl(SERVER, Fetch(version))]


# -- steps ----------------------------------------------------------------------------------------------------------------


def test_it_pushes_and_goes_on_from_newer_weights() -> None:
    bench = Bench()
    assert bench.feed(StepDone()) == pushed(0, 1)
    assert bench.engine.phase is Phase.OPEN
    assert bench.feed(ModelGiven(SERVER)) == []
    assert bench.feed(Control(SERVER, Weights(1))) == [TakeModel(SERVER)]
    assert bench.feed(ModelTaken(SERVER)) == has_room(1) + went_on(1)
    assert (bench.engine.phase, bench.engine.version, bench.engine.round) == (Phase.COMPUTING, 1, 1)
    assert bench.feed(StepDone()) == pushed(1, 2)


def test_with_pull_the_push_asks() -> None:
    bench = Bench("pull")
    assert bench.feed(StepDone(), ModelGiven(SERVER)) == pushed(0, 1, asks=1)
    assert bench.weights(4) == [TakeModel(SERVER), *went_on(1)]
    assert bench.engine.version == 4


def test_the_record_of_a_step() -> None:
    bench = Bench()
    bench.feed(StepDone(), ModelGiven(SERVER))
    bench.weights(3)
    record = bench.engine.last
    assert record is not None
    assert (record.round, record.opened_at, record.closed_at, record.backups, record.reason) == (1, 1.0, 4.0, (), "version 3")
    (exchange,) = record.exchanges
    assert (exchange.peer, exchange.round, exchange.weight, exchange.agreed_at, exchange.done_at) == (SERVER, 0, 1.0, 3.0, 4.0)


def test_weights_that_came_before_tell_when_they_came() -> None:
    bench = Bench()
    bench.weights(1)
    bench.feed(StepDone(), ModelGiven(SERVER))
    assert bench.engine.last is not None
    assert [(each.agreed_at, each.done_at) for each in bench.engine.last.exchanges] == [(1.0, 2.0)]


@PUSHES
def test_it_does_not_go_on_before_its_gradient_has_left(push: PushMode) -> None:
    bench = Bench(push)
    bench.feed(StepDone())
    bench.weights(1)
    assert bench.engine.phase is Phase.OPEN
    assert bench.feed(ModelGiven(SERVER)) == went_on(1)


def test_a_busy_worker_finishes_its_batch_and_goes_on_from_the_newest() -> None:
    bench = Bench("wait")
    assert bench.weights(1) == [TakeModel(SERVER), *has_room(1)]
    assert bench.weights(2) == [TakeModel(SERVER), *has_room(2)]
    assert not bench.engine.interrupted
    assert bench.feed(StepDone()) == pushed(0, 1)
    assert bench.feed(ModelGiven(SERVER)) == went_on(1)
    assert bench.engine.version == 2


def test_it_goes_on_from_what_is_whole_and_takes_in_what_comes() -> None:
    bench = Bench("wait")
    bench.weights(1)
    bench.feed(Control(SERVER, Weights(2)))
    assert bench.feed(StepDone(), ModelGiven(SERVER)) == pushed(0, 1) + went_on(1)
    assert bench.engine.version == 1
    assert bench.feed(ModelTaken(SERVER)) == has_room(2)
    assert bench.feed(StepDone(), ModelGiven(SERVER)) == pushed(1, 2) + went_on(2)
    assert bench.engine.version == 2


def test_interrupted_it_drops_the_batch() -> None:
    bench = Bench("interrupt")
    bench.feed(Control(SERVER, Weights(1)))
    assert not bench.engine.interrupted
    assert bench.feed(ModelTaken(SERVER)) == has_room(1)
    assert bench.engine.interrupted
    assert bench.feed(StepDone()) == went_on(1)
    assert (bench.engine.dropped, bench.engine.version, bench.engine.interrupted) == (1, 1, False)
    assert bench.engine.last is not None
    assert (bench.engine.last.exchanges, bench.engine.last.reason) == ((), "version 1 interrupted the batch")
    # What was dropped is a step, but no push.
    assert bench.feed(StepDone()) == pushed(1, 1)
    assert bench.engine.round == 2


def test_a_batch_that_was_pushed_is_not_interrupted() -> None:
    bench = Bench("interrupt")
    bench.feed(StepDone())
    bench.weights(1)
    assert not bench.engine.interrupted
    assert bench.feed(ModelGiven(SERVER)) == went_on(1)
    assert bench.engine.dropped == 0


def test_the_push_says_loss_and_scale() -> None:
    bench = Bench()
    bench.engine.loss = 2.5
    assert bench.feed(StepDone())[0] == SendControl(SERVER, Push(0, 1, 0, 2.5))


def test_the_loss_is_unknown_at_first() -> None:
    assert math.isnan(WorkerEngine(1, SERVER, 2, push="pull").loss)


def test_rejected_it_is_given_the_same_weights_again() -> None:
    bench = Bench("pull")
    bench.feed(StepDone(), ModelGiven(SERVER))
    assert bench.weights(0) == [TakeModel(SERVER), *went_on(1)]
    assert bench.feed(StepDone()) == pushed(0, 2, asks=1)


# -- what cannot be ---------------------------------------------------------------------------------------------------------


def test_events_out_of_place() -> None:
    with pytest.raises(ProtocolError, match=r"rank 2, step 1: a step was done while open") as error:
        Bench().feed(StepDone(), StepDone())
    assert "StepDone" in error.value.__notes__[0]
    with pytest.raises(ProtocolError, match="version 2 comes while version 1 is still coming"):
        Bench().feed(Control(SERVER, Weights(1)), Control(SERVER, Weights(2)))
    with pytest.raises(ProtocolError, match="weights came that the server had not announced"):
        Bench().feed(ModelTaken(SERVER))


def test_nothing_waits_for_the_clock() -> None:
    assert Bench().feed(Tick()) == []


@pytest.mark.parametrize("end", [PeerLost(SERVER), Control(1, Leave(SERVER))])
@pytest.mark.parametrize(
    "before", [[], [StepDone()], [StepDone(), LeaveWanted()], [LeaveWanted(), Control(SERVER, Leave(SERVER))]]
)
def test_the_servers_death_ends_the_run(before: list[Event], end: Event) -> None:
    bench = Bench()
    bench.feed(*before)
    with pytest.raises(ProtocolError, match="rank 2 cannot go on: rank 0, the server, has died"):
        bench.feed(end)


@pytest.mark.parametrize("busy", [True, False])
def test_the_server_does_not_leave_before_its_workers(busy: bool) -> None:
    bench = Bench()
    if not busy:
        bench.feed(StepDone())
    with pytest.raises(ProtocolError, match="the server has left"):
        bench.feed(Control(SERVER, Leave(SERVER)))


def test_after_the_end_nobody_matters() -> None:
    bench = Bench()
    bench.feed(LeaveWanted(), Control(1, Leave(1)), Control(SERVER, Leave(SERVER)))
    assert bench.engine.phase is Phase.FINISHED
    assert bench.feed(PeerLost(SERVER)) == []


@pytest.mark.parametrize("end", [PeerLost(1), Control(1, Leave(1)), Control(SERVER, Leave(1))])
def test_another_worker_is_lost(end: Event) -> None:
    bench = Bench()
    assert bench.feed(end) == []
    assert bench.feed(StepDone()) == pushed(0, 1)


# -- departures -------------------------------------------------------------------------------------------------------------


def farewell(bench: Bench) -> list[Command]:
    return bench.feed(Control(1, Leave(1)), Control(SERVER, Leave(SERVER)))


def test_it_leaves_and_finishes_when_all_have_said_goodbye() -> None:
    bench = Bench()
    assert bench.feed(LeaveWanted()) == [Broadcast(Leave(2))]
    assert bench.engine.phase is Phase.LEFT
    assert bench.feed(Control(1, Leave(1))) == []
    assert bench.feed(Control(SERVER, Leave(SERVER))) == [Finish()]
    assert bench.engine.phase is Phase.FINISHED
    assert bench.feed(LeaveWanted()) == []


def test_the_others_have_left_before() -> None:
    bench = Bench()
    bench.feed(PeerLost(1))
    bench.feed(LeaveWanted())
    assert bench.feed(Control(SERVER, Leave(SERVER))) == [Finish()]


def test_it_leaves_while_weights_come() -> None:
    bench = Bench()
    bench.feed(Control(SERVER, Weights(1)), LeaveWanted())
    assert farewell(bench) == []
    assert bench.feed(ModelTaken(SERVER)) == [Finish()]


def test_weights_that_were_on_their_way_when_it_left() -> None:
    bench = Bench()
    bench.feed(LeaveWanted())
    assert bench.feed(Control(SERVER, Weights(1))) == [TakeModel(SERVER)]
    assert farewell(bench) == []
    assert bench.feed(ModelTaken(SERVER)) == [Finish()]


def test_weights_that_come_whole_before_the_goodbyes() -> None:
    bench = Bench()
    bench.feed(LeaveWanted())
    assert bench.weights(1) == [TakeModel(SERVER)]  # and nobody is told of room
    assert farewell(bench) == [Finish()]


def test_it_leaves_while_it_waits_and_its_gradient_is_still_leaving() -> None:
    bench = Bench()
    bench.feed(StepDone())
    assert bench.feed(LeaveWanted()) == [Broadcast(Leave(2))]
    assert farewell(bench) == []
    assert bench.feed(ModelGiven(SERVER)) == [Finish()]


def test_after_it_left_no_weights_make_it_go_on() -> None:
    bench = Bench("pull")
    bench.feed(StepDone(), LeaveWanted())
    bench.weights(1)
    assert bench.feed(ModelGiven(SERVER)) == []
    assert bench.engine.version == 0


# -- words ------------------------------------------------------------------------------------------------------------------


def test_it_tells_what_it_waits_for() -> None:
    bench = Bench()
    bench.feed(StepDone())
    waits = "rank 2 waits for weights of rank 0 newer than version 0 for 3.0 s"
    assert bench.engine.describe(4.0) == f"{waits}: its gradient is still leaving, none is coming yet"
    bench.feed(ModelGiven(SERVER), Control(SERVER, Weights(1)))
    assert bench.engine.describe(4.0).splitlines() == [
        f"{waits}: its gradient has left, version 1 is coming",
        "       2.000 s ago  ModelGiven(peer=0)",
        "       1.000 s ago  Control(peer=0, message=Weights(version=1))",
    ]
    bench.feed(LeaveWanted())
    assert bench.engine.describe(9.0) == "rank 2 has left and waits for the goodbyes of [0, 1]"
