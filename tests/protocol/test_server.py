"""The server's engine, event by event."""

from __future__ import annotations

import logging
import math
from typing import Any

import pytest

from consensus.errors import ConfigError, ProtocolError
from consensus.protocol.commands import Apply, Broadcast, Command, Discard, DropModel, Finish, GiveModel, SendControl, TakeModel
from consensus.protocol.events import Applied, Control, Event, GradientTaken, ModelGiven, ModelSwapped, PeerLost, Tick
from consensus.protocol.messages import Fetch, Leave, Push, Weights
from consensus.protocol.rounds import Phase
from consensus.protocol.server import REJECTIONS, ServerEngine, check_push
from consensus.protocol.service import Factor, PushMode
from consensus.rules.serving import build_server

NAN = math.nan


def given(version: int, *workers: int) -> list[Command]:
    """What the server says when it gives a version to workers."""
    return [command for worker in workers for command in (SendControl(worker, Weights(version)), GiveModel(worker))]


class Desk:
    """A server's engine whose updates are made at once, as drivers do; rank 0 serves, workers count from 1."""

    def __init__(
        self, rule: str = "bsp", n: int = 2, push: PushMode = "wait", factor: Factor = lambda k, n: 1.0, **parameters: Any
    ) -> None:
        self.engine = ServerEngine(0, range(1, n + 1), build_server(rule, **parameters), push=push, factor=factor, now=0.0)
        self.now = 0.0
        self.pushes = dict.fromkeys(range(1, n + 1), 0)

    def feed(self, event: Event) -> list[Command]:
        self.now += 1.0
        done: list[Command] = []
        for command in self.engine.handle(event, self.now):
            done.append(command)
            if isinstance(command, Apply):
                done += self.feed(Applied(1.0, 0.1))
        return done

    def announce(self, worker: int, version: int, loss: float = 1.0) -> list[Command]:
        self.pushes[worker] += 1
        asks = int(self.engine.push == "pull")
        return self.feed(Control(worker, Push(version, self.pushes[worker], asks, loss)))

    def arrives(self, worker: int, square: float = 1.0) -> list[Command]:
        return self.feed(GradientTaken(worker, square))

    def pushes_whole(self, worker: int, version: int, square: float = 1.0, **said: float) -> list[Command]:
        first = self.announce(worker, version, **said)
        assert first[0] == TakeModel(worker)
        return first[1:] + self.arrives(worker, square)

    def fetch(self, worker: int, version: int) -> list[Command]:
        return self.feed(Control(worker, Fetch(version)))

    def gave(self, worker: int) -> list[Command]:
        return self.feed(ModelGiven(worker))

    def leaves(self, worker: int) -> list[Command]:
        return self.feed(Control(worker, Leave(worker)))

    def dies(self, worker: int) -> list[Command]:
        return self.feed(PeerLost(worker))


# -- pushes ---------------------------------------------------------------------------------------------------------------


def test_all_gradients_make_an_update_and_all_go_on() -> None:
    desk = Desk(n=2)
    assert desk.announce(1, 0) == [TakeModel(1)]
    assert desk.arrives(1) == []
    assert desk.announce(2, 0) == [TakeModel(2)]
    assert desk.arrives(2) == [Apply((1, 2), 1.0), *given(1, 1, 2)]
    assert desk.engine.round == desk.engine.view.version == 1


def test_a_gradient_that_comes_in_two_looks_is_taken_once() -> None:
    desk = Desk(n=3)
    desk.pushes_whole(2, 0)
    assert list(desk.engine.view.kept) == [2]
    assert desk.engine.view.held == {2}
    assert desk.engine.view.iterations == {1: 0, 2: 1, 3: 0}
    arrival = desk.engine.view.kept[2]
    assert (arrival.worker, arrival.version, arrival.iteration, arrival.at) == (2, 0, 1, 2.0)


def test_the_record_of_an_update() -> None:
    desk = Desk("backup", n=3, b=1)
    desk.pushes_whole(3, 0)
    desk.pushes_whole(1, 0)
    record = desk.engine.last
    assert record is not None
    assert (record.round, record.opened_at, record.closed_at) == (1, 0.0, 5.0)
    assert [(each.peer, each.round, each.agreed_at, each.done_at) for each in record.exchanges] == [
        (3, 1, 1.0, 2.0),
        (1, 1, 3.0, 4.0),
    ]
    assert [each.weight for each in record.exchanges] == [0.5, 0.5]
    assert record.backups == (2,)
    assert record.reason == "2 of 3 gradients (1 backups)"


def test_an_asynchronous_rule_does_without_nobody() -> None:
    desk = Desk("asp", n=3, push="pull")
    desk.pushes_whole(1, 0)
    assert desk.engine.last is not None
    assert desk.engine.last.backups == ()


def test_a_late_gradient_is_discarded_and_its_worker_has_newer_weights() -> None:
    desk = Desk("backup", n=3, b=1)
    desk.pushes_whole(1, 0)
    assert desk.pushes_whole(2, 0) == [Apply((1, 2), 1.0), *given(1, 1, 2, 3)]
    assert desk.pushes_whole(3, 0) == [Discard(3)]
    assert desk.engine.discarded == {3: 1}
    assert desk.engine.view.iterations[3] == 1


def test_a_second_gradient_is_taken_only_when_the_first_has_been_judged() -> None:
    """A push may overtake a gradient; the memory of the first is free when it has been discarded, not before."""
    desk = Desk("backup", n=3, b=1)
    assert desk.announce(3, 0) == [TakeModel(3)]
    desk.pushes_whole(1, 0)
    desk.pushes_whole(2, 0)
    assert desk.announce(3, 1) == []  # it had version 1 when its gradient had left, and was quick
    assert desk.arrives(3) == [Discard(3), TakeModel(3)]
    assert desk.arrives(3) == []
    assert desk.engine.view.kept[3].version == 1


def test_a_second_gradient_after_one_that_is_rejected() -> None:
    desk = Desk("backup", n=3, b=1)
    desk.announce(3, 0)
    desk.pushes_whole(1, 0)
    desk.pushes_whole(2, 0)
    desk.announce(3, 1)
    assert desk.arrives(3, NAN) == [Discard(3), TakeModel(3)]


def test_a_second_gradient_of_one_that_has_left() -> None:
    desk = Desk("backup", n=3, b=1)
    desk.announce(3, 0)
    desk.pushes_whole(1, 0)
    desk.pushes_whole(2, 0)
    desk.announce(3, 1)
    desk.leaves(3)
    assert desk.arrives(3) == [Discard(3), TakeModel(3)]
    assert desk.arrives(3) == [Discard(3)]
    assert desk.engine.discarded == {3: 2}


@pytest.mark.parametrize("version", [1, 7, -1])
def test_a_version_that_was_not_given(version: int) -> None:
    desk = Desk()
    with pytest.raises(ProtocolError, match=f"rank 2 pushed a gradient at version {version}, but was given version 0") as error:
        desk.announce(2, version)
    assert "last events" in error.value.__notes__[0]


def test_what_nobody_announced() -> None:
    with pytest.raises(ProtocolError, match="gradient of rank 1 came that it had not announced"):
        Desk().arrives(1)
    with pytest.raises(ProtocolError, match="update was made that nobody had asked for"):
        Desk().feed(Applied(1.0, 1.0))
    with pytest.raises(ProtocolError, match="rank 9 is no worker"):
        Desk().feed(Control(9, Fetch(0)))


def test_nothing_waits_for_the_clock() -> None:
    assert Desk().feed(Tick()) == []


def test_a_foreign_event() -> None:
    with pytest.raises(KeyError):
        Desk().feed(ModelSwapped(1))


# -- what is not finite ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("push", ["wait", "interrupt", "pull"])
@pytest.mark.parametrize("square", [NAN, math.inf])
def test_a_gradient_that_is_not_finite(square: float, push: PushMode, caplog: pytest.LogCaptureFixture) -> None:
    desk = Desk(n=2, push=push)
    with caplog.at_level(logging.WARNING, "consensus"):
        assert desk.pushes_whole(2, 0, square) == [Discard(2), *given(0, 2)]
    assert desk.engine.rejected == {2: 1}
    assert desk.engine.view.iterations[2] == 0
    assert 2 not in desk.engine.view.held | desk.engine.view.kept.keys()
    (told,) = caplog.messages
    assert f"(squared norm {square}) of rank 2's step 1, at version 0, is not finite" in told
    # The worker goes on as if nothing had been, and its gradient counts.
    desk.gave(2)
    if push != "pull":
        desk.fetch(2, 0)
    desk.pushes_whole(1, 0)
    assert desk.pushes_whole(2, 0) == [Apply((1, 2), 1.0), *given(1, 1, 2)]


def test_it_is_warned_of_once_a_worker(caplog: pytest.LogCaptureFixture) -> None:
    desk = Desk("asp", n=2, push="pull")
    with caplog.at_level(logging.WARNING, "consensus"):
        for _ in range(3):
            for worker in (1, 2):
                desk.pushes_whole(worker, 0, NAN)
                desk.gave(worker)
    assert desk.engine.rejected == {1: 3, 2: 3}
    assert [told[told.index("rank") :][:6] for told in caplog.messages] == ["rank 1", "rank 2"]


def test_a_loss_that_is_not_finite_matters_where_losses_do(caplog: pytest.LogCaptureFixture) -> None:
    desk = Desk("dbw", n=2)
    assert desk.pushes_whole(1, 0, loss=NAN) == [Discard(1), *given(0, 1)]
    assert "the loss (nan) of rank 1's step 1" in caplog.text
    other = Desk("bsp", n=1)
    assert other.pushes_whole(1, 0, loss=NAN) == [Apply((1,), 1.0), *given(1, 1)]


def test_so_many_in_a_row_end_the_run() -> None:
    desk = Desk("asp", n=1, push="pull")
    for _ in range(REJECTIONS - 1):
        desk.pushes_whole(1, 0, NAN)
        desk.gave(1)
    with pytest.raises(ConfigError, match=f"step {REJECTIONS}, .* {REJECTIONS - 1} before it; lower the learning rate"):
        desk.pushes_whole(1, 0, NAN)


def test_one_that_is_finite_begins_the_count_anew() -> None:
    desk = Desk("bsp", n=2, push="pull")
    for worker in [1] * (REJECTIONS - 1) + [2] + [1] * (REJECTIONS - 1):
        desk.pushes_whole(worker, 0, 1.0 if worker == 2 else NAN)
        desk.gave(1)
    assert desk.engine.rejected == {1: 2 * REJECTIONS - 2}


def test_after_a_late_rejection_it_has_the_newer_weights_once() -> None:
    """Given twice, it would go on from the second without being released, and push twice at one version."""
    desk = Desk("backup", n=3, b=1)
    desk.announce(3, 0)
    desk.pushes_whole(1, 0)
    assert desk.pushes_whole(2, 0)[1:] == given(1, 1, 2, 3)
    assert desk.arrives(3, NAN) == [Discard(3)]
    assert desk.gave(3) == []
    assert desk.fetch(3, 1) == []


def test_after_a_late_rejection_a_pull_is_answered_once() -> None:
    desk = Desk("backup", n=3, b=1, push="pull")
    desk.pushes_whole(1, 0)
    desk.pushes_whole(2, 0)
    assert desk.announce(3, 0) == [TakeModel(3), *given(1, 3)]
    assert desk.arrives(3, NAN) == [Discard(3)]
    desk.gave(3)
    assert desk.announce(3, 1) == [TakeModel(3)]
    assert desk.arrives(3) == []
    assert list(desk.engine.view.kept) == [3]


def test_a_rejection_under_asynchrony_gives_the_newest() -> None:
    desk = Desk("asp", n=2, push="pull")
    desk.pushes_whole(1, 0)
    assert desk.pushes_whole(2, 0, NAN) == [Discard(2), *given(1, 2)]


# -- room -----------------------------------------------------------------------------------------------------------------


def round_of(desk: Desk, version: int, *workers: int) -> None:
    for worker in workers:
        desk.pushes_whole(worker, version)


def test_a_busy_worker_is_given_the_newest_only() -> None:
    desk = Desk("backup", n=3, b=1)
    for version in range(3):
        round_of(desk, version, 1, 2)
        for worker in (1, 2):
            desk.gave(worker)
            desk.fetch(worker, version + 1)
    assert desk.engine.round == 3
    assert desk.engine.members[3].given == 1  # its transfer is still under way
    assert desk.gave(3) == []  # it has not said yet that it has room
    assert desk.fetch(3, 1) == given(3, 3)


def test_one_transfer_a_worker_at_a_time() -> None:
    desk = Desk("backup", n=3, b=1)
    round_of(desk, 0, 1, 2)
    assert desk.fetch(3, 1) == []  # the worker has it all; the last chunk has not been seen to leave
    round_of(desk, 1, 1, 2)
    assert desk.gave(3) == given(2, 3)


def test_pull_gives_only_what_is_asked_for() -> None:
    desk = Desk("backup", n=3, b=1, push="pull")
    desk.pushes_whole(1, 0)
    assert desk.pushes_whole(2, 0) == [Apply((1, 2), 1.0), *given(1, 1, 2)]
    assert desk.announce(3, 0) == [TakeModel(3), *given(1, 3)]
    assert desk.arrives(3) == [Discard(3)]


def test_pull_holds_one_that_has_worked_on_the_present_version() -> None:
    desk = Desk("bsp", n=2, push="pull")
    assert desk.pushes_whole(1, 0) == []
    assert desk.pushes_whole(2, 0) == [Apply((1, 2), 1.0), *given(1, 1, 2)]


def test_interrupt_gives_to_all_as_wait_does() -> None:
    desk = Desk("backup", n=3, b=1, push="interrupt")
    desk.pushes_whole(1, 0)
    assert desk.pushes_whole(2, 0) == [Apply((1, 2), 1.0), *given(1, 1, 2, 3)]


def test_no_weights_before_the_rule_releases() -> None:
    desk = Desk("ssp", n=2, push="pull", s=0)
    assert desk.pushes_whole(1, 0) == [Apply((1,), 1.0)]
    assert desk.pushes_whole(2, 0) == [Apply((2,), 1.0), *given(2, 1, 2)]


# -- the step -------------------------------------------------------------------------------------------------------------


def test_the_step_follows_the_rate_rule() -> None:
    desk = Desk("backup", n=3, b=1, factor=lambda k, n: k / n)
    desk.pushes_whole(1, 0)
    (apply,) = [command for command in desk.pushes_whole(2, 0) if isinstance(command, Apply)]
    assert apply.factor == pytest.approx(2 / 3)


# -- departures -----------------------------------------------------------------------------------------------------------


def test_one_that_leaves_while_it_computes_is_waited_for_no_more() -> None:
    desk = Desk(n=3)
    round_of(desk, 0, 1, 2)
    assert desk.leaves(3) == [Apply((1, 2), 1.0), *given(1, 1, 2)]
    assert desk.engine.view.workers == (1, 2)


def test_one_that_leaves_while_its_gradient_comes() -> None:
    desk = Desk(n=2)
    desk.announce(2, 0)
    assert desk.leaves(2) == []
    assert desk.arrives(2) == [Discard(2)]
    assert desk.engine.discarded == {2: 1}
    assert desk.pushes_whole(1, 0) == [Apply((1,), 1.0), *given(1, 1)]


def test_one_that_leaves_with_its_gradient_kept_has_its_share() -> None:
    desk = Desk(n=3)
    desk.pushes_whole(2, 0)
    assert desk.leaves(2) == []
    desk.pushes_whole(1, 0)
    assert desk.pushes_whole(3, 0) == [Apply((2, 1, 3), 1.0), *given(1, 1, 3)]


def test_one_that_leaves_while_it_is_held_lets_the_others_go() -> None:
    desk = Desk("ssp", n=2, push="pull", s=0)
    assert desk.pushes_whole(1, 0) == [Apply((1,), 1.0)]
    assert desk.leaves(2) == given(1, 1)


def test_the_held_one_leaves() -> None:
    desk = Desk("ssp", n=2, push="pull", s=0)
    desk.pushes_whole(1, 0)
    assert desk.leaves(1) == []
    assert desk.pushes_whole(2, 0) == [Apply((2,), 1.0), *given(2, 2)]


def test_one_that_leaves_while_weights_go_to_it_is_given_no_more() -> None:
    desk = Desk(n=2)
    round_of(desk, 0, 1, 2)
    desk.leaves(2)
    desk.gave(1)
    desk.fetch(1, 1)
    assert desk.pushes_whole(1, 1) == [Apply((1,), 1.0), *given(2, 1)]
    assert desk.gave(2) == []


def test_the_last_one_leaves() -> None:
    desk = Desk(n=2)
    desk.leaves(1)
    assert desk.leaves(2) == [Broadcast(Leave(0)), Finish()]
    assert desk.engine.phase is Phase.FINISHED


def test_one_that_leaves_lets_a_superstep_end() -> None:
    desk = Desk("elastic", n=2, push="pull", R=1)
    for _ in range(2):  # two pushes each, then a quota of one
        for worker in (1, 2):
            desk.pushes_whole(worker, desk.engine.members[worker].given)
            desk.gave(worker)
    assert desk.pushes_whole(1, 3) == []
    assert desk.engine.view.kept.keys() == desk.engine.view.held == {1}
    assert desk.leaves(2) == [Apply((1,), 1.0), *given(5, 1)]


def test_nobody_is_left_and_a_gradient_is_kept() -> None:
    desk = Desk(n=2)
    desk.pushes_whole(1, 0)
    desk.leaves(1)
    assert desk.leaves(2) == [Discard(1), Broadcast(Leave(0)), Finish()]


def test_the_end_waits_for_what_is_under_way() -> None:
    desk = Desk(n=2)
    round_of(desk, 0, 1, 2)
    desk.gave(1)
    desk.announce(1, 1)
    desk.leaves(2)
    assert desk.leaves(1) == [Broadcast(Leave(0))]
    assert desk.engine.phase is Phase.LEFT
    assert desk.arrives(1) == [Discard(1)]
    assert desk.gave(2) == [Finish()]
    assert desk.engine.phase is Phase.FINISHED


def test_the_end_waits_for_a_gradient() -> None:
    desk = Desk(n=1)
    desk.announce(1, 0)
    assert desk.leaves(1) == [Broadcast(Leave(0))]
    assert desk.arrives(1) == [Discard(1), Finish()]


def test_leaving_twice_is_leaving_once() -> None:
    desk = Desk(n=2)
    desk.leaves(1)
    assert desk.leaves(1) == []
    assert desk.engine.view.workers == (2,)


# -- deaths ---------------------------------------------------------------------------------------------------------------


def test_a_death_is_told_to_all_and_counts_as_leaving() -> None:
    desk = Desk(n=3)
    round_of(desk, 0, 1, 2)
    assert desk.dies(3) == [Broadcast(Leave(3)), DropModel(3), Apply((1, 2), 1.0), *given(1, 1, 2)]


def test_a_death_heard_of_from_another() -> None:
    desk = Desk(n=3)
    round_of(desk, 0, 1, 2)
    assert desk.feed(Control(1, Leave(3))) == [DropModel(3), Apply((1, 2), 1.0), *given(1, 1, 2)]
    assert desk.dies(3) == []


def test_a_death_while_its_gradient_comes() -> None:
    desk = Desk(n=2)
    desk.announce(2, 0)
    assert desk.dies(2) == [Broadcast(Leave(2)), DropModel(2), Discard(2)]
    assert desk.announce(2, 0) == []
    assert desk.arrives(2) == [Discard(2)]  # of what was already on the way
    assert desk.pushes_whole(1, 0) == [Apply((1,), 1.0), *given(1, 1)]


def test_a_death_while_weights_go_to_it_does_not_hold_up_the_end() -> None:
    desk = Desk(n=2)
    round_of(desk, 0, 1, 2)
    desk.gave(1)
    desk.dies(2)
    assert desk.leaves(1) == [Broadcast(Leave(0)), Finish()]


def test_the_gradient_of_a_dead_one_that_is_here_counts() -> None:
    desk = Desk(n=2)
    desk.pushes_whole(2, 0)
    desk.dies(2)
    assert desk.pushes_whole(1, 0) == [Apply((2, 1), 1.0), *given(1, 1)]


def test_all_die() -> None:
    desk = Desk(n=2)
    round_of(desk, 0, 1, 2)
    desk.dies(1)
    assert not desk.engine.deserted
    assert desk.dies(2) == [Broadcast(Leave(2)), DropModel(2), Broadcast(Leave(0)), Finish()]
    assert desk.engine.deserted


def test_one_has_left_and_the_rest_die() -> None:
    desk = Desk(n=2)
    desk.leaves(1)
    desk.dies(2)
    assert desk.engine.phase is Phase.FINISHED
    assert not desk.engine.deserted


def test_one_that_dies_after_its_goodbye_with_its_gradient_on_the_way() -> None:
    desk = Desk(n=1)
    desk.announce(1, 0)
    assert desk.leaves(1) == [Broadcast(Leave(0))]
    assert desk.dies(1) == [DropModel(1), Discard(1), Finish()]


def test_one_that_dies_after_its_goodbye_with_weights_on_the_way() -> None:
    desk = Desk(n=2)
    round_of(desk, 0, 1, 2)
    desk.gave(2)
    desk.leaves(1)
    assert desk.leaves(2) == [Broadcast(Leave(0))]
    assert desk.dies(1) == [DropModel(1), Finish()]
    assert desk.dies(2) == [DropModel(2)]


def test_a_dead_one_is_given_nothing_and_may_be_waited_for_by_nobody() -> None:
    desk = Desk("backup", n=3, b=1)
    round_of(desk, 0, 1, 2)
    desk.dies(3)  # while weights go to it, that is
    for worker in (1, 2):
        desk.gave(worker)
        desk.fetch(worker, 1)
    assert desk.pushes_whole(1, 1) == [Apply((1,), 1.0), *given(2, 1, 2)]  # all but one of those that are left
    assert desk.fetch(3, 1) == desk.gave(3) == []
    assert "\n  rank 3 has died" in desk.engine.describe(desk.now)


# -- words ----------------------------------------------------------------------------------------------------------------


def test_it_tells_where_each_worker_stands() -> None:
    desk = Desk(n=5)
    round_of(desk, 0, 1, 2, 3, 4, 5)
    for worker in (1, 2, 3, 5):
        desk.gave(worker)
    desk.announce(1, 1)
    desk.pushes_whole(2, 1)
    desk.leaves(5)
    told = desk.engine.describe(desk.now + 2.5).splitlines()
    assert told[0].startswith("rank 0 serves version 1 for ")
    assert told[0].endswith("s; bsp: 1 of 4 gradients, 4 wanted")
    assert [line for line in told[1:] if not line.startswith("    ")] == [
        "  rank 1 pushes its gradient 2",
        "  rank 2 is held for 3.5 s, its gradient kept",
        "  rank 3 computes, with version 1",
        "  rank 4 is being given version 1",
        "  rank 5 has left",
    ]
    assert "GradientTaken(peer=2" in told[told.index("  rank 3 computes, with version 1") - 1]


def test_a_held_one_without_a_gradient() -> None:
    desk = Desk("ssp", n=2, push="pull", s=0)
    desk.pushes_whole(1, 0)
    assert "\n  rank 1 is held for 1.0 s\n" in desk.engine.describe(desk.now)


@pytest.mark.parametrize(("rule", "push"), [("bsp", "wait"), ("ssp", "pull"), ("asp", "pull")])
def test_it_waits_only_while_somebody_waits_for_it(rule: str, push: PushMode) -> None:
    desk = Desk(rule, n=2, push=push, **({"s": 0} if rule == "ssp" else {}))
    desk.now += 1000.0
    assert desk.engine.waits_since is None  # both compute
    desk.pushes_whole(1, 0)
    since = desk.now - (rule == "ssp")  # which has made an update meanwhile
    desk.now += 1000.0
    assert desk.engine.waits_since == (None if rule == "asp" else since)
    desk.pushes_whole(2, 0)
    assert desk.engine.waits_since is None
    desk.leaves(1)
    desk.leaves(2)
    assert desk.engine.waits_since is None


# -- what does not go together ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", ["asp", "ssp", "elastic"])
@pytest.mark.parametrize("push", ["wait", "interrupt"])
def test_asynchronous_rules_pull(rule: str, push: PushMode) -> None:
    with pytest.raises(ConfigError, match=f"push = '{push}' does not go with rule '{rule}'.*use 'pull'"):
        check_push(build_server(rule), push)
    check_push(build_server(rule), "pull")


def test_an_unknown_way_of_pushing() -> None:
    with pytest.raises(ConfigError, match="push = 'shove', expected 'wait', 'interrupt' or 'pull'"):
        Desk(push="shove")  # type: ignore[arg-type]


def test_too_many_backups() -> None:
    with pytest.raises(ConfigError, match="b = 3 with 3 workers, expected at most 2"):
        Desk("backup", n=3, b=3)


def test_steps_do_not_grow_when_workers_leave() -> None:
    """In proportion to n, that is; else the last gradients of a run, of the last to leave, would make its longest steps."""
    desk = Desk("asp", n=4, push="pull", factor=lambda k, n: k / n)
    for worker in (2, 3, 4):
        desk.leaves(worker)
    assert [command.factor for command in desk.pushes_whole(1, 0) if isinstance(command, Apply)] == [0.25]


# -- checkpoints ----------------------------------------------------------------------------------------------------------


def test_another_server_goes_on_at_the_version_that_the_first_had() -> None:
    first = Desk("backup", n=3, b=1)
    first.pushes_whole(1, 0)
    first.pushes_whole(2, 0)
    first.pushes_whole(3, 0)
    first.pushes_whole(1, 1, square=NAN)
    state = first.engine.state()
    desk = Desk("backup", n=3, b=1)
    desk.engine.resume(state)
    desk.engine.begin(10.0)
    assert (desk.engine.round, desk.engine.arrived) == (1, 3)
    assert (desk.engine.discarded, desk.engine.rejected) == ({3: 1}, {1: 1})
    assert desk.pushes_whole(2, 1) == []
    assert desk.pushes_whole(3, 1) == [Apply((2, 3), 1.0), *given(2, 1, 2, 3)]
    with pytest.raises(ProtocolError, match="pushed a gradient at version 3, but was given version 2 at most"):
        desk.announce(1, 3)


def test_what_a_rule_has_learnt_outlives_the_workers_that_leave_in_the_end() -> None:
    first = Desk("dbw", n=3)
    for version in range(2):
        for worker in (1, 2, 3):
            first.pushes_whole(worker, version, square=2.0)
    known = first.engine.rule_state.times.state_dict()
    assert [worker for worker, _ in known["samples"]] == [1, 2, 3]
    for worker in (1, 2, 3):
        first.leaves(worker)
    state = first.engine.state()
    for rule, kept in (("dbw", known), ("bsp", None)):
        desk = Desk(rule, n=3)
        desk.engine.resume(state)
        desk.engine.begin(100.0)
        assert (desk.engine.rule_state.times.state_dict() if kept else desk.engine.rule_state) == kept
    other = Desk("dbw", n=3, window=5)
    other.engine.resume(state)
    other.engine.begin(100.0)
    assert not other.engine.rule_state.times.state_dict()["samples"]
