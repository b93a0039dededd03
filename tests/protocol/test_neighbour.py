"""Races on one engine, written as the events it meets and the commands it must answer with."""

from __future__ import annotations

from typing import Any

import pytest
from support.wire import Shuffle, Wire, complete, path, ring, star

from consensus.errors import ConfigError, ProtocolError
from consensus.protocol.commands import Broadcast, Command, DropModel, Finish, Mix, SendControl, StartStep, SwapModel, WakeAt
from consensus.protocol.edge import EdgeState
from consensus.protocol.events import Control, Event, LeaveWanted, ModelSwapped, PeerLost, StepDone, Tick
from consensus.protocol.messages import Closed, Engage, Leave, Ready
from consensus.protocol.neighbour import NeighbourEngine
from consensus.protocol.rounds import Phase
from consensus.protocol.validate import check_engine
from consensus.rules import build
from consensus.sim.explore import AnyTime


def engine(rank: int = 0, graph: Any = None, rule: Any = None, **options: Any) -> NeighbourEngine:
    return NeighbourEngine(rank, path(2) if graph is None else graph, build("full") if rule is None else rule, **options)


def feed(subject: NeighbourEngine, *events: Event, now: float = 0.0) -> list[Command]:
    """The commands that answer ``events``, all in one list."""
    answer: list[Command] = []
    for event in events:
        commands = subject.handle(event, now)
        check_engine(subject, commands)
        answer += commands
    return answer


def close(subject: NeighbourEngine) -> list[Command]:
    """Tell an engine under :class:`AnyTime` to close."""
    subject.rule_state = True
    return feed(subject, Tick())


def says(peer: int, *messages: Any) -> list[Event]:
    return [Control(peer, message) for message in messages]


def exchanged(peer: int, mine: int, theirs: int) -> list[Event]:
    """All that completes an exchange with ``peer``, whose Ready is known."""
    return [Control(peer, Engage(theirs, mine)), ModelSwapped(peer)]


# -- the handshake ------------------------------------------------------------------------------------------------------


def test_a_whole_round() -> None:
    e = engine()
    assert feed(e, StepDone(), now=1.0) == [SendControl(1, Ready(1))]
    assert feed(e, *says(1, Ready(1)), now=2.0) == [SendControl(1, Engage(1, 1))]
    assert feed(e, *says(1, Engage(1, 1)), now=3.0) == [SwapModel(1, 1, 1, 0.5, last=True)]
    assert feed(e, ModelSwapped(1), now=5.0) == [Mix(((1, 0.5),)), StartStep(1)]
    assert e.last == (1, 1.0, 5.0, ((1, 1, 0.5, 3.0, 5.0),), (), "all living neighbours have exchanged")


def test_the_last_possible_exchange_of_a_round_is_known_as_such() -> None:
    e = engine(graph=star(5))
    feed(e, StepDone(), *says(1, Ready(1)), *says(2, Ready(1)), *says(3, Ready(1)))
    assert feed(e, *says(1, Engage(1, 1))) == [SwapModel(1, 1, 1, 1 / 5, last=False)]
    feed(e, *says(2, Closed(1, 0)))  # an offer that falls back may be made again
    assert feed(e, *says(3, Engage(1, 1))) == [SwapModel(3, 1, 1, 1 / 5, last=False)]
    feed(e, *says(4, Leave(4)))
    assert feed(e, *says(2, Ready(2), Engage(2, 1)))[-1] == SwapModel(2, 1, 2, 1 / 5, last=True)


def test_ready_while_computing_is_answered_when_the_round_opens() -> None:
    e = engine()
    assert feed(e, *says(1, Ready(4))) == []
    assert feed(e, StepDone()) == [SendControl(1, Engage(1, 4))]  # says Ready(1), too


def test_ready_withdrawn_while_computing_is_not_answered() -> None:
    e = engine()
    assert feed(e, *says(1, Ready(4), Closed(4, 0)), StepDone()) == [SendControl(1, Ready(1))]


def test_the_last_ready_counts() -> None:
    e = engine()
    feed(e, *says(1, Ready(4), Closed(4, 0), Ready(5)))
    assert feed(e, StepDone()) == [SendControl(1, Engage(1, 5))]


def test_an_engage_may_be_the_first_that_is_heard_of_a_round() -> None:
    e = engine()
    feed(e, StepDone())
    assert feed(e, *says(1, Engage(4, 1))) == [SendControl(1, Engage(1, 4)), SwapModel(1, 1, 4, 0.5, last=True)]


def test_an_engage_for_a_closed_round_says_that_its_sender_is_ready() -> None:
    e = engine(rule=AnyTime())
    feed(e, StepDone())
    close(e)
    assert feed(e, *says(1, Engage(4, 1))) == []
    assert feed(e, StepDone()) == [SendControl(1, Engage(2, 4))]
    assert feed(e, *says(1, Engage(4, 2))) == [SwapModel(1, 2, 4, 0.5, last=True)]


def test_engage_for_a_closed_round_is_ignored() -> None:
    e = engine(rule=AnyTime())
    feed(e, StepDone())
    assert close(e) == [SendControl(1, Closed(1, 0)), StartStep(1)]
    # The peer answered my Ready(1) before it saw Closed(1).
    assert feed(e, *says(1, Ready(1), Engage(1, 1))) == []
    assert feed(e, StepDone()) == [SendControl(1, Engage(2, 1))]
    assert e.edges[1].state is EdgeState.OFFERED
    assert feed(e, *says(1, Engage(1, 2))) == [SwapModel(1, 2, 1, 0.5, last=True)]


def test_engage_for_a_closed_round_is_ignored_after_the_next_has_opened() -> None:
    e = engine(rule=AnyTime())
    feed(e, StepDone())
    close(e)
    feed(e, StepDone())
    assert feed(e, *says(1, Ready(1), Engage(1, 1))) == [SendControl(1, Engage(2, 1))]
    assert e.edges[1].state is EdgeState.OFFERED


def test_closed_voids_an_offer() -> None:
    e = engine()
    feed(e, StepDone(), *says(1, Ready(1)))
    assert e.edges[1].state is EdgeState.OFFERED
    assert feed(e, *says(1, Closed(1, 0))) == []
    assert e.edges[1].state is EdgeState.IDLE
    assert feed(e, *says(1, Ready(2))) == [SendControl(1, Engage(1, 2))]


def test_closed_of_an_older_round_voids_nothing() -> None:
    e = engine(rank=1, graph=path(2))
    feed(e, *says(0, Ready(1), Closed(1, 0), Ready(2)), StepDone())
    assert feed(e, *says(0, Closed(1, 0))) == []
    assert e.edges[0].state is EdgeState.OFFERED


def test_closed_may_overtake_the_end_of_the_model() -> None:
    e = engine()
    feed(e, StepDone(), *says(1, Ready(1), Engage(1, 1)))
    # The peer has all of my model and knows that its own has left: it closes, computes, and opens again.
    assert feed(e, *says(1, Closed(1, 1), Ready(2))) == []
    assert e.edges[1].state is EdgeState.MOVING
    assert feed(e, ModelSwapped(1)) == [Mix(((1, 0.5),)), StartStep(1)]
    assert feed(e, StepDone()) == [SendControl(1, Engage(2, 2))]


def test_a_newer_ready_survives_the_end_of_an_older_exchange() -> None:
    e = engine(graph=path(3), rank=1, rule=AnyTime())
    feed(e, StepDone(), *says(0, Ready(7)), *exchanged(0, 1, 7))
    assert feed(e, *says(0, Closed(7, 1), Ready(8))) == []
    close(e)
    assert feed(e, StepDone()) == [SendControl(0, Engage(2, 8)), SendControl(2, Ready(2))]


def test_a_used_ready_is_not_answered_again() -> None:
    e = engine(rule=AnyTime())
    feed(e, StepDone(), *says(1, Ready(7)), *exchanged(1, 1, 7))
    close(e)
    assert feed(e, StepDone()) == [SendControl(1, Ready(2))]
    assert e.edges[1].state is EdgeState.IDLE


def test_one_exchange_per_edge_and_round() -> None:
    e = engine(rule=AnyTime())
    feed(e, StepDone(), *says(1, Ready(7)), *exchanged(1, 1, 7))
    assert feed(e, *says(1, Closed(7, 1), Ready(8), Engage(8, 1))) == []
    assert e.edges[1].state is EdgeState.DONE


# -- closing ------------------------------------------------------------------------------------------------------------


def test_a_round_does_not_close_while_an_edge_is_offered_or_moves() -> None:
    e = engine(rule=AnyTime())
    feed(e, StepDone(), *says(1, Ready(1)))
    assert close(e) == []
    assert feed(e, *says(1, Engage(1, 1))) == [SwapModel(1, 1, 1, 0.5, last=True)]
    assert feed(e, ModelSwapped(1)) == [Mix(((1, 0.5),)), StartStep(1)]


def test_a_round_that_waits_to_close_does_so_when_the_offer_is_void() -> None:
    e = engine(rule=AnyTime())
    feed(e, StepDone(), *says(1, Ready(1)))
    close(e)
    assert feed(e, *says(1, Closed(1, 0))) == [SendControl(1, Closed(1, 0)), StartStep(1)]


def test_a_round_that_waits_to_close_still_answers() -> None:
    e = engine(graph=ring(3), rule=AnyTime())
    feed(e, StepDone(), *says(1, Ready(1)))
    close(e)
    assert feed(e, *says(2, Ready(1))) == [SendControl(2, Engage(1, 1))]


def test_a_cycle_of_offers_that_wait_to_close_comes_apart() -> None:
    """Each of three ranks has offered itself to the next, decides to close, and only then sees the offer made to it."""
    net = Shuffle(ring(3), AnyTime, rounds=1)
    for rank in range(3):
        net.perform(("step", rank))
    for rank in range(3):
        net.perform(("deliver", (rank + 1) % 3, rank))
    for rank in range(3):
        net.engines[rank].rule_state = True
        net.perform(("tick", rank))  # told to close
    assert all(net.engines[rank].edges[(rank + 1) % 3].state is EdgeState.OFFERED for rank in range(3))
    net.drain()


def test_the_rule_is_asked_at_its_time() -> None:
    e = engine(rule=build("deadline", seconds=2.0))
    assert feed(e, StepDone(), now=1.0) == [SendControl(1, Ready(1)), WakeAt(3.0)]
    assert feed(e, *says(1, Ready(1), Closed(1, 0)), now=2.0) == [SendControl(1, Engage(1, 1))]
    assert feed(e, Tick(), now=3.0) == [SendControl(1, Closed(1, 0)), StartStep(1)]


def test_a_late_tick_does_not_ask_for_another() -> None:
    e = engine(rule=build("deadline", seconds=2.0))
    feed(e, StepDone(), *says(1, Ready(1)), *exchanged(1, 1, 1), now=1.0)
    assert feed(e, StepDone(), now=2.0)[-1] == WakeAt(4.0)
    assert feed(e, Tick(), now=3.0) == []  # the first round's
    assert feed(e, Tick(), now=4.0) == [SendControl(1, Closed(2, 0)), StartStep(2)]


def test_a_tick_while_computing_does_nothing() -> None:
    assert feed(engine(), Tick()) == []


# -- leaving ------------------------------------------------------------------------------------------------------------


def test_leaving_while_computing() -> None:
    e = engine(graph=path(3))
    assert feed(e, LeaveWanted()) == [Broadcast(Leave(0))]
    assert e.phase is Phase.LEFT
    assert feed(e, LeaveWanted(), *says(1, Ready(1), Leave(1))) == []
    assert feed(e, *says(2, Leave(2))) == [Finish()]


def test_goodbyes_to_neighbours_only() -> None:
    e = engine(graph=path(3), everyone=False)
    assert feed(e, LeaveWanted()) == [SendControl(1, Leave(0))]
    assert feed(e, *says(1, Leave(1))) == [Finish()]


def test_leaving_alone() -> None:
    e = engine(graph={0: []})
    assert feed(e, StepDone()) == [StartStep(1)]
    assert feed(e, LeaveWanted()) == [Broadcast(Leave(0)), Finish()]


def test_leaving_closes_an_open_round() -> None:
    e = engine(graph=path(3), rank=1)
    feed(e, StepDone())
    assert feed(e, LeaveWanted()) == [
        SendControl(0, Closed(1, 0)),
        SendControl(2, Closed(1, 0)),
        StartStep(1),
        Broadcast(Leave(1)),
    ]
    assert e.last is not None
    assert e.last.reason == "this rank leaves"


def test_leaving_waits_for_a_model_that_moves() -> None:
    e = engine(rule=AnyTime())
    feed(e, StepDone(), *says(1, Ready(1), Engage(1, 1)))
    assert feed(e, LeaveWanted()) == []
    assert feed(e, ModelSwapped(1)) == [Mix(((1, 0.5),)), StartStep(1), Broadcast(Leave(0))]


def test_leave_of_a_peer_while_its_model_moves() -> None:
    e = engine(rule=build("full"), graph=path(3), rank=1)
    feed(e, StepDone(), *says(0, Ready(1), Engage(1, 1)))
    assert feed(e, *says(0, Closed(1, 1), Leave(0))) == []
    assert e.edges[0].state is EdgeState.MOVING
    assert e.view.living == {2}
    assert feed(e, ModelSwapped(0)) == []
    assert list(e.view.done) == [0]
    assert feed(e, *says(2, Leave(2))) == [Mix(((0, 1 / 3),)), StartStep(1)]


def test_the_next_round_begins_afresh_with_a_peer_that_left_after_its_exchange() -> None:
    e = engine(rule=AnyTime(), graph=path(3), rank=1)
    feed(e, StepDone(), *says(0, Ready(1)), *exchanged(0, 1, 1), *says(0, Closed(1, 1), Leave(0)))
    close(e)
    assert feed(e, StepDone()) == [SendControl(2, Ready(2))]
    assert e.edges[0].state is EdgeState.IDLE


def test_the_rule_looks_again_after_a_departure() -> None:
    e = engine(graph=star(3))
    feed(e, StepDone(), *says(1, Ready(1)), *exchanged(1, 1, 1))
    assert feed(e, *says(2, Leave(2))) == [Mix(((1, 1 / 3),)), StartStep(1)]


def test_a_rank_without_neighbours_left_goes_on() -> None:
    e = engine()
    feed(e, *says(1, Leave(1)))
    assert feed(e, StepDone(), StepDone()) == [StartStep(1), StartStep(2)]
    assert feed(e, LeaveWanted()) == [Broadcast(Leave(0)), Finish()]


# -- dying --------------------------------------------------------------------------------------------------------------


def test_a_death_while_the_model_moves() -> None:
    e = engine(graph=path(3), rank=1)
    feed(e, StepDone(), *says(0, Ready(1), Engage(1, 1)))
    assert feed(e, PeerLost(0)) == [Broadcast(Leave(0)), DropModel(0)]
    assert e.edges[0].state is EdgeState.IDLE
    assert feed(e, *says(2, Ready(1)), *exchanged(2, 1, 1))[-2:] == [
        Mix(((2, 1 / 3),)),
        StartStep(1),
    ]


def test_a_death_after_the_exchange_leaves_it_valid() -> None:
    e = engine(graph=path(3), rank=1)
    feed(e, StepDone(), *says(0, Ready(1)), *exchanged(0, 1, 1))
    assert feed(e, PeerLost(0)) == [Broadcast(Leave(0))]
    assert feed(e, PeerLost(2)) == [Broadcast(Leave(2)), Mix(((0, 1 / 3),)), StartStep(1)]


def test_a_death_is_told_once() -> None:
    e = engine(graph=path(3), rank=1)
    feed(e, StepDone(), PeerLost(0))
    assert feed(e, PeerLost(0)) == []
    assert feed(e, *says(2, Leave(0))) == []
    assert e.view.departed == {0}


def test_without_everyone_neighbours_are_left_to_find_out() -> None:
    assert feed(engine(graph=path(3), rank=1, everyone=False), PeerLost(0)) == []


def test_a_death_told_by_another_rank_while_the_model_moves() -> None:
    e = engine(graph=ring(3))
    feed(e, StepDone(), *says(1, Ready(1), Engage(1, 1)))
    assert feed(e, *says(2, Leave(1))) == [DropModel(1)]
    # The transport has not noticed yet, and hands out what the dead rank had sent: all of it is void.
    assert feed(e, ModelSwapped(1), *says(1, Closed(1, 1), Ready(2), Engage(2, 1))) == []
    assert e.edges[1].state is EdgeState.IDLE
    assert feed(e, PeerLost(1)) == []
    assert feed(e, *says(2, Ready(1)), *exchanged(2, 1, 1))[-1] == StartStep(1)


def test_a_death_after_the_goodbye_while_the_model_moves() -> None:
    e = engine(graph=path(3), rank=1)
    feed(e, StepDone(), *says(0, Ready(1), Engage(1, 1), Closed(1, 1), Leave(0)))
    assert feed(e, PeerLost(0)) == [DropModel(0)]
    assert e.view.done == {}


def test_a_death_seen_after_the_own_goodbye_is_not_passed_on() -> None:
    e = engine(graph=path(3))
    feed(e, LeaveWanted())
    assert feed(e, PeerLost(1)) == []
    assert feed(e, *says(2, Leave(2))) == [Finish()]
    assert feed(e, PeerLost(2)) == []


def test_goodbye_is_not_said_to_the_dead() -> None:
    e = engine(graph=star(3), everyone=False)
    feed(e, PeerLost(1))
    assert feed(e, LeaveWanted()) == [SendControl(2, Leave(0))]


# -- active weights -----------------------------------------------------------------------------------------------------


def test_active_weights_wait_for_the_partners_count() -> None:
    e = engine(graph=path(3), rank=1, weights="active")
    assert feed(e, StepDone(), *says(0, Ready(1), Engage(1, 1)))[-1] == SwapModel(0, 1, 1, None, last=False)
    feed(e, ModelSwapped(0), *says(2, Ready(5)), *exchanged(2, 1, 5), *says(0, Closed(1, 4)))
    assert e.phase is Phase.SETTLING
    assert "[2]" in e.describe(0.0)
    assert feed(e, *says(2, Closed(5, 1))) == [Mix(((0, 1 / 5), (2, 1 / 3))), StartStep(1)]
    assert e.last is not None
    assert [exchange.weight for exchange in e.last.exchanges] == [1 / 5, 1 / 3]


def test_active_weights_do_without_the_count_of_the_dead() -> None:
    e = engine(weights="active")
    feed(e, StepDone(), *says(1, Ready(1)), *exchanged(1, 1, 1))
    assert e.phase is Phase.SETTLING
    assert feed(e, PeerLost(1)) == [Broadcast(Leave(1)), Mix(((1, 1 / 2),)), StartStep(1)]


def test_a_wish_to_leave_while_settling() -> None:
    e = engine(weights="active")
    feed(e, StepDone(), *says(1, Ready(1)), *exchanged(1, 1, 1))
    assert feed(e, LeaveWanted()) == []
    assert feed(e, *says(1, Closed(1, 1))) == [Mix(((1, 1 / 2),)), StartStep(1), Broadcast(Leave(0))]


def test_under_dtur_a_partners_close_closes() -> None:
    e = engine(graph=star(4), rule=build("dtur"), weights="active")
    feed(e, StepDone(), *says(1, Ready(1)), *says(2, Ready(1), Engage(1, 1)))
    assert feed(e, *says(2, Closed(1, 1)), ModelSwapped(2)) == []  # still offered to 1
    assert feed(e, *says(1, Closed(1, 0)))[-2:] == [Mix(((2, 1 / 2),)), StartStep(1)]


@pytest.mark.parametrize("name", ["static_backup", "pathsearch", "gap", "deadline", "run_free"])
def test_active_weights_are_refused_where_partners_stay_open(name: str) -> None:
    with pytest.raises(ConfigError, match=f'"active" does not go with rule {name!r}'):
        engine(rule=build(name), weights="active")


def test_leaving_under_full_with_active_weights_finishes_the_round() -> None:
    """On a square, two opposite ranks leave early; if they closed at once each would wait for the other's waiting partner."""
    net = Shuffle(ring(4), build("full"), rounds=1, weights="active")
    for rank in range(4):
        net.perform(("step", rank))
    for leaver, partner in ((0, 1), (2, 3)):
        for _ in range(2):  # Ready, Engage
            net.perform(("deliver", leaver, partner))
            net.perform(("deliver", partner, leaver))
        for a, b in ((leaver, partner), (partner, leaver)):
            net.perform(("arrive", a, b, (1, 1)))
            net.perform(("sent", a, b, (1, 1)))
    net.perform(("leave", 0))
    net.perform(("leave", 2))
    net.drain()
    assert [len(records[0].exchanges) for records in net.records] == [2, 2, 2, 2]


# -- what cannot happen -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("events", "words"),
    [
        ([StepDone(), StepDone()], "a step was done while open"),
        ([LeaveWanted(), StepDone()], "a step was done while left"),
        ([ModelSwapped(1)], "models were swapped with rank 1, but that edge is IDLE"),
        ([StepDone(), *says(1, Ready(1)), ModelSwapped(1)], "models were swapped with rank 1, but that edge is OFFERED"),
        (says(2, Ready(1)), "rank 2 is not a neighbour"),
        (says(2, Engage(1, 1)), "rank 2 is not a neighbour"),
        (says(2, Closed(1, 0)), "rank 2 is not a neighbour"),
        ([ModelSwapped(2)], "rank 2 is not a neighbour"),
    ],
)
def test_impossible_events_are_refused_with_the_story(events: list[Event], words: str) -> None:
    e = engine(graph=path(3))
    with pytest.raises(ProtocolError, match=words) as caught:
        feed(e, *events, now=1.5)
    (note,) = caught.value.__notes__
    assert note.splitlines()[0] == "last events:"
    assert note.splitlines()[-1] == f"   0.000 s ago  {events[-1]!r}"


def test_the_stall_report() -> None:
    e = engine(graph=star(7))
    feed(e, StepDone(), now=1.0)
    feed(e, *says(2, Ready(3)), now=2.0)
    feed(e, *says(3, Ready(4), Engage(4, 1)), now=2.5)
    feed(e, *says(4, Ready(5)), *exchanged(4, 1, 5), *says(4, Closed(5, 1), Ready(6)), now=2.75)
    feed(e, *says(5, Leave(5)), now=2.875)
    assert e.describe(now=3.0).splitlines() == [
        "rank 0 is open in round 1 for 2.0 s; rule full: waits for all neighbours, 4 of 5 missing",
        "  edge to 1: idle, it computes",
        "  edge to 2: offered with its round 3",
        "       1.000 s ago  Control(peer=2, message=Ready(round=3))",
        "  edge to 3: moving with its round 4",
        "       0.500 s ago  Control(peer=3, message=Ready(round=4))",
        "       0.500 s ago  Control(peer=3, message=Engage(mine=4, yours=1))",
        "  edge to 4: done with its round 5",
        "       0.250 s ago  ModelSwapped(peer=4)",
        "       0.250 s ago  Control(peer=4, message=Closed(round=5, exchanges=1))",
        "       0.250 s ago  Control(peer=4, message=Ready(round=6))",
        "  edge to 5: left",
        "       0.125 s ago  Control(peer=5, message=Leave(who=5))",
        "  edge to 6: idle, it computes",
    ]


def test_the_stall_report_of_a_rank_that_left() -> None:
    e = engine(graph=path(3))
    feed(e, LeaveWanted())
    assert e.describe(now=1.0).splitlines()[0].endswith("waits for the goodbyes of [1, 2]")


def test_a_ready_for_an_idle_edge_is_told() -> None:
    e = engine(rule=AnyTime())
    feed(e, *says(1, Ready(4)))
    assert "edge to 1: idle, its round 4 is open" in e.describe(now=0.0)


def test_backups_are_the_living_neighbours_without_an_exchange() -> None:
    e = engine(graph=complete(4), rule=build("static_backup", b=1))
    feed(
        e,
        StepDone(),
        *says(
            2,
            Leave(2),
        ),
        *says(3, Ready(1)),
        *exchanged(3, 1, 1),
    )
    assert e.last is not None
    assert e.last.backups == (1,)
    assert [peer for peer, *_ in e.last.exchanges] == [3]


def test_many_rounds_of_two_ranks_agree() -> None:
    net = Wire(path(2), build("full"), rounds=20, seed=3).run()
    assert [len(records) for records in net.records] == [20, 20]
    assert all(record.exchanges[0][1] == record.round for record in net.records[0])


def silence(**options: Any) -> NeighbourEngine:
    """Rank 1 of a path of three, in its first round since 1 s; rank 0 has exchanged, rank 2 has not come for 5 s."""
    e = engine(rank=1, graph=path(3), stuck_after=5.0, **options)
    assert WakeAt(6.0) in feed(e, StepDone(), now=1.0)
    feed(e, *says(0, Ready(1)), *exchanged(0, 1, 1), now=1.5)
    assert e.view.awaited == {0, 2}
    feed(e, Tick(), now=6.0)
    return e


def test_who_does_not_come_is_waited_for_no_more_until_it_comes() -> None:
    e = silence(rule=AnyTime())
    assert (e.view.living, e.view.awaited) == ({0, 2}, {0})
    assert "edge to 2: idle, it computes; silent, and not waited for" in e.describe(now=6.0)
    close(e)
    feed(e, StepDone(), now=7.0)
    assert e.view.awaited == {0}  # in later rounds, too
    feed(e, Tick(), now=12.0)
    assert e.view.awaited == set()
    out = feed(e, *says(2, Ready(9)), now=13.0)
    assert out == [SendControl(2, Engage(2, 9))]
    assert e.view.awaited == {2}


def test_it_says_once_without_whom_it_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    e = silence(rule=build("deadline", seconds=100.0))
    assert e.phase is Phase.COMPUTING
    feed(e, StepDone(), *says(0, Ready(2)), *exchanged(0, 2, 2), now=7.0)
    (message,) = caplog.messages
    assert message.startswith("rank 1, round 1: goes on without ranks [2], which have not come for 5 s")


def test_a_silent_rank_that_leaves_or_dies_is_gone() -> None:
    for events in (says(2, Leave(2)), [PeerLost(2)]):
        e = silence(rule=AnyTime())
        feed(e, *events, now=7.0)
        assert e.view.living == e.view.awaited == {0}
        assert e.phase is Phase.OPEN


def test_an_offer_to_a_silent_rank_is_none() -> None:
    """Who has said that it is open is not silent: an offer to it cannot be taken back."""
    e = engine(rank=1, graph=path(3), rule=AnyTime(), stuck_after=5.0)
    feed(e, StepDone(), *says(2, Ready(1)))
    feed(e, Tick(), now=6.0)
    assert e.view.awaited == {2}
    close(e)
    assert e.phase is Phase.OPEN


@pytest.mark.parametrize("deadline", [2.0, 9.0])
def test_the_rules_alarm_and_the_engines_are_both_kept(deadline: float) -> None:
    e = engine(rank=1, graph=path(3), rule=build("deadline", seconds=deadline), stuck_after=5.0)
    first = min(deadline, 5.0)
    assert WakeAt(first) in feed(e, StepDone())
    out = feed(e, Tick(), now=first)
    assert e.view.awaited == ({0, 2} if deadline < 5.0 else set())
    assert StartStep(1) in out  # the deadline has passed, or nobody is awaited


def test_full_waits_for_silent_ranks(caplog: pytest.LogCaptureFixture) -> None:
    e = silence()
    assert e.phase is Phase.OPEN
    assert caplog.messages == []
    assert e.unmet == "waits for all neighbours, 1 of 2 missing"
