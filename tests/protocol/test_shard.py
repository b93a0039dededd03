"""Engines of a parameter server in several shards, event by event."""

from __future__ import annotations

import pytest

from consensus.errors import ProtocolError
from consensus.protocol.commands import Apply, Broadcast, Discard, DropModel, Finish, GiveModel, SendControl, TakeModel
from consensus.protocol.events import Applied, Control, GradientTaken, LeaveWanted, ModelGiven, ModelTaken, PeerLost, StepDone
from consensus.protocol.messages import Leave, Order, Push, Report, Weights, Work
from consensus.protocol.rounds import Phase
from consensus.protocol.shard import NOBODY, FollowingEngine, LeadingEngine, ShardedWorkerEngine, orders
from consensus.rules.backup import Backup
from consensus.rules.bsp import Bsp
from consensus.rules.dbw import Dbw


def leader() -> LeadingEngine:
    return LeadingEngine(0, [2, 3], Bsp(), followers=[1], push="pull", factor=lambda k, n: 1.0, now=0.0)


def push(worker: int, iteration: int = 1, version: int = 0) -> Control:
    return Control(worker, Push(version, iteration, 1, 0.5))


def report(work: Work, worker: int, square: float = 0.0, step: float = 0.0) -> Control:
    return Control(1, Report(work, worker, square, step))


def test_the_first_orders_what_it_does_and_counts_what_all_have_done() -> None:
    engine = leader()
    assert engine.peers == (2, 3, 1)
    assert engine.handle(push(2), 1.0) == [SendControl(1, Order(Work.TAKE, 2, 0.0)), TakeModel(2)]
    assert engine.handle(GradientTaken(2, 4.0), 2.0) == []
    assert not engine.view.kept
    assert engine.handle(report(Work.TAKE, 2, square=5.0), 3.0) == []
    assert engine.view.kept[2].square == 9.0
    engine.handle(push(3), 4.0)
    assert engine.handle(report(Work.TAKE, 3, square=1.0), 5.0) == []  # the other one was quicker
    ordered = [Order(Work.USE, 2, 0.0), Order(Work.USE, 3, 0.0), Order(Work.APPLY, NOBODY, 1.0)]
    assert engine.handle(GradientTaken(3, 1.0), 6.0) == [*(SendControl(1, order) for order in ordered), Apply((2, 3), 1.0)]
    assert engine.handle(Applied(2.0, 0.1), 7.0) == []
    assert engine.round == 0
    given = [
        command
        for worker in (2, 3)
        for command in (SendControl(worker, Weights(1)), SendControl(1, Order(Work.GIVE, worker, 0.0)), GiveModel(worker))
    ]
    assert engine.handle(report(Work.APPLY, NOBODY, square=3.0, step=0.1), 8.0) == given
    assert engine.round == 1


def test_it_says_goodbye_when_nothing_is_left_to_order_and_ends_after_the_others() -> None:
    engine = leader()
    assert engine.handle(Control(2, Leave(2)), 1.0) == []
    engine.handle(push(3), 2.0)
    assert engine.handle(Control(3, Leave(3)), 3.0) == []  # its gradient is still on its way
    engine.handle(GradientTaken(3, 1.0), 4.0)
    out = engine.handle(report(Work.TAKE, 3), 5.0)
    assert out == [SendControl(1, Order(Work.DISCARD, 3, 0.0)), Discard(3), Broadcast(Leave(0))]
    assert engine.phase is Phase.LEFT
    assert engine.handle(Control(1, Leave(1)), 6.0) == [Finish()]
    assert engine.phase is Phase.FINISHED


def test_a_shard_reports_nothing_else() -> None:
    with pytest.raises(ProtocolError, match=r"shard 1 sent Weights\(version=3\), which is no report"):
        leader().handle(Control(1, Weights(3)), 1.0)


def test_another_does_as_it_is_told() -> None:
    engine = FollowingEngine(1, 0, [2, 3], 4)
    engine.begin(0.5)
    assert engine.handle(Control(0, Order(Work.TAKE, 2, 0.0)), 1.0) == [TakeModel(2)]
    assert engine.handle(GradientTaken(2, 7.0), 2.0) == [SendControl(0, Report(Work.TAKE, 2, 7.0, 0.0))]
    assert engine.handle(Control(0, Order(Work.USE, 2, 0.0)), 3.0) == []
    assert engine.handle(Control(0, Order(Work.APPLY, NOBODY, 0.5)), 4.0) == [Apply((2,), 0.5)]
    assert engine.handle(Applied(7.0, 0.05), 5.0) == [SendControl(0, Report(Work.APPLY, NOBODY, 7.0, 0.05))]
    assert engine.last is not None
    assert (engine.round, engine.last.opened_at, engine.last.closed_at) == (1, 0.5, 5.0)
    assert engine.handle(Control(0, Order(Work.GIVE, 2, 0.0)), 6.0) == [GiveModel(2)]
    assert "\n  it gives weights to rank 2\n       4.000 s ago  GradientTaken(peer=2, square=7.0)" in engine.describe(6.0)
    assert engine.handle(ModelGiven(2), 7.0) == [SendControl(0, Report(Work.GIVE, 2, 0.0, 0.0))]
    assert engine.handle(Control(0, Order(Work.DISCARD, 3, 0.0)), 8.0) == [Discard(3)]
    assert "a shard, waits for orders of rank 0; its last update was 4.0 s ago" in engine.describe(9.0)
    assert engine.handle(Control(2, Leave(2)), 9.0) == []
    assert engine.handle(Control(3, Leave(3)), 9.0) == []
    assert engine.handle(Control(0, Leave(0)), 9.0) == [Broadcast(Leave(1)), Finish()]
    assert engine.phase is Phase.FINISHED


def test_a_worker_moves_a_part_with_each() -> None:
    engine = ShardedWorkerEngine(3, range(2), 4, push="pull")
    first, *moves = engine.handle(StepDone(), 1.0)
    assert isinstance(first, SendControl)
    assert (first.peer, type(first.message)) == (0, Push)
    assert moves == [GiveModel(0), GiveModel(1)]
    assert engine.handle(Control(0, Weights(1)), 2.0) == [TakeModel(0), TakeModel(1)]
    assert engine.handle(ModelGiven(1), 3.0) == engine.handle(ModelTaken(1), 3.0) == engine.handle(ModelTaken(0), 3.0) == []
    assert engine.phase is Phase.OPEN
    engine.handle(ModelGiven(0), 4.0)
    assert (engine.phase, engine.version) == (Phase.COMPUTING, 1)


def test_only_what_touches_the_model_is_ordered() -> None:
    assert orders(SendControl(2, Weights(1))) == orders(Finish()) == []


def test_what_comes_while_the_shards_make_an_update_waits_for_it() -> None:
    engine = LeadingEngine(0, [2, 3], Backup(b=1), followers=[1], push="wait", factor=lambda k, n: 1.0, now=0.0)
    engine.handle(push(2), 1.0)
    engine.handle(GradientTaken(2, 1.0), 1.0)
    assert engine.handle(report(Work.TAKE, 2, square=1.0), 1.0)[-1] == Apply((2,), 1.0)
    engine.handle(push(3), 2.0)
    engine.handle(GradientTaken(3, 1.0), 2.0)
    assert engine.handle(report(Work.TAKE, 3, square=1.0), 2.0) == []
    assert engine.handle(push(3, iteration=2), 3.0) == []  # it will lie where the one before lies
    engine.handle(Applied(1.0, 0.1), 4.0)
    out = engine.handle(report(Work.APPLY, NOBODY, 1.0, 0.1), 4.0)
    assert [command for command in out if isinstance(command, Discard | TakeModel)] == [Discard(3), TakeModel(3)]
    assert engine.discarded == {3: 1}


# -- deaths ---------------------------------------------------------------------------------------------------------------


def test_a_gradient_that_is_not_whole_everywhere_is_discarded_everywhere() -> None:
    engine = leader()
    engine.handle(push(2), 1.0)
    engine.handle(GradientTaken(2, 4.0), 2.0)  # the other shard has not reported
    assert engine.handle(PeerLost(2), 3.0) == [
        Broadcast(Leave(2)),
        DropModel(2),
        SendControl(1, Order(Work.DISCARD, 2, 0.0)),
        Discard(2),
    ]
    engine.handle(push(3), 4.0)
    # It was whole there, and will not be used; nor does it count as the part of another.
    assert engine.handle(report(Work.TAKE, 2, square=5.0), 5.0) == [SendControl(1, Order(Work.DISCARD, 2, 0.0))]
    engine.handle(GradientTaken(3, 1.0), 6.0)
    assert engine.handle(report(Work.TAKE, 3, square=1.0), 7.0)[-1] == Apply((3,), 1.0)


def test_a_death_while_weights_are_given_in_part() -> None:
    engine = leader()
    for worker in (2, 3):
        engine.handle(push(worker), 1.0)
        engine.handle(GradientTaken(worker, 1.0), 1.0)
        engine.handle(report(Work.TAKE, worker), 1.0)
    engine.handle(Applied(1.0, 0.1), 2.0)
    engine.handle(report(Work.APPLY, NOBODY), 2.0)
    engine.handle(ModelGiven(2), 3.0)
    assert engine.handle(PeerLost(2), 4.0) == [Broadcast(Leave(2)), DropModel(2)]
    assert engine.handle(report(Work.GIVE, 2), 5.0) == []
    engine.handle(ModelGiven(3), 6.0)
    engine.handle(report(Work.GIVE, 3), 6.0)
    assert engine.handle(Control(3, Leave(3)), 7.0) == [Broadcast(Leave(0))]
    assert engine.handle(PeerLost(3), 8.0) == [DropModel(3)]  # after its goodbye: nobody is told twice that all is over
    assert engine.handle(Control(1, Leave(1)), 9.0) == [Finish()]


def test_all_die_while_an_update_is_made() -> None:
    engine = LeadingEngine(0, [2, 3], Backup(b=1), followers=[1], push="wait", factor=lambda k, n: 1.0, now=0.0)
    engine.handle(push(2), 1.0)
    engine.handle(GradientTaken(2, 1.0), 1.0)
    assert engine.handle(report(Work.TAKE, 2), 1.0)[-1] == Apply((2,), 1.0)
    engine.handle(push(3), 2.0)
    engine.handle(GradientTaken(3, 1.0), 2.0)
    engine.handle(report(Work.TAKE, 3), 2.0)  # whole, and waits for the update
    assert Discard(3) in engine.handle(PeerLost(3), 3.0)
    assert engine.handle(Control(1, Leave(2)), 3.0) == [DropModel(2), Broadcast(Leave(0))]  # of whom is in it
    engine.handle(Applied(1.0, 0.1), 4.0)
    assert engine.handle(report(Work.APPLY, NOBODY, 1.0, 0.1), 4.0) == []
    assert engine.round == 1
    assert engine.handle(Control(1, Leave(1)), 5.0) == [Finish()]
    assert engine.deserted


@pytest.mark.parametrize("rule", [Bsp(), Dbw()])
def test_all_whose_gradients_are_in_an_update_die(rule: Bsp | Dbw) -> None:
    engine = LeadingEngine(0, [2, 3], rule, followers=[1], push="wait", factor=lambda k, n: 1.0, now=0.0)
    for worker in (2, 3):
        engine.handle(push(worker), 1.0)
        engine.handle(GradientTaken(worker, 1.0), 1.0)
        made = engine.handle(report(Work.TAKE, worker), 1.0)
    assert made[-1] == Apply((2, 3), 1.0)
    engine.handle(PeerLost(2), 2.0)
    engine.handle(PeerLost(3), 2.0)
    engine.handle(Applied(1.0, 0.1), 3.0)
    assert engine.handle(report(Work.APPLY, NOBODY, 1.0, 0.1), 4.0) == []


def follower() -> FollowingEngine:
    return FollowingEngine(1, 0, [2, 3], 4)


def test_another_shard_gives_up_what_was_under_way_with_a_dead_worker() -> None:
    engine = follower()
    engine.handle(Control(0, Order(Work.TAKE, 2, 0.0)), 1.0)
    assert engine.handle(PeerLost(2), 2.0) == [DropModel(2)]
    # The first did not know yet.
    assert engine.handle(Control(0, Order(Work.GIVE, 2, 0.0)), 3.0) == []
    assert engine.handle(Control(0, Order(Work.TAKE, 2, 0.0)), 3.0) == []
    assert engine.handle(Control(0, Order(Work.DISCARD, 2, 0.0)), 3.0) == [Discard(2)]
    engine.handle(Control(3, Leave(3)), 4.0)
    assert engine.handle(Control(0, Leave(0)), 5.0) == [Broadcast(Leave(1)), Finish()]


@pytest.mark.parametrize("end", [PeerLost(2), GradientTaken(2, 1.0)])
def test_the_first_hears_of_a_death_sooner(end: PeerLost | GradientTaken) -> None:
    engine = follower()
    engine.handle(Control(0, Order(Work.TAKE, 2, 0.0)), 1.0)
    engine.handle(Control(2, Leave(2)), 2.0)
    engine.handle(Control(3, Leave(3)), 2.0)
    assert engine.handle(Control(0, Order(Work.DISCARD, 2, 0.0)), 3.0) == [Discard(2)]
    assert engine.handle(Control(0, Leave(0)), 3.0) == [Broadcast(Leave(1))]  # a receive is still open
    assert engine.handle(end, 4.0)[-1] == Finish()
    assert engine.handle(PeerLost(0), 5.0) == []


def test_a_dead_shard_ends_the_run() -> None:
    for event in (PeerLost(1), Control(2, Leave(1))):
        with pytest.raises(ProtocolError, match="rank 0 cannot go on: rank 1, a server, has died"):
            leader().handle(event, 1.0)
    three = FollowingEngine(1, 0, [3], 4)
    for event in (PeerLost(0), Control(3, Leave(0)), PeerLost(2)):
        with pytest.raises(ProtocolError, match=r"rank 1 cannot go on: rank [02], a server, has died"):
            three.handle(event, 1.0)
    for server in range(2):
        engine = ShardedWorkerEngine(3, range(2), 4, push="pull")
        engine.handle(StepDone(), 1.0)
        engine.handle(LeaveWanted(), 1.0)
        with pytest.raises(ProtocolError, match=f"rank 3 cannot go on: rank {server}, a server, has died"):
            engine.handle(PeerLost(server), 2.0)


def test_a_shard_that_dies_after_the_end() -> None:
    engine = leader()
    for worker in (2, 3):
        engine.handle(Control(worker, Leave(worker)), 1.0)
    engine.handle(Control(1, Leave(1)), 2.0)
    assert engine.phase is Phase.FINISHED
    assert engine.handle(PeerLost(1), 3.0) == []
