"""The small systems hold, the explorer finds what is wrong with bad engines, and its reduction loses nothing."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from support.wire import Wire, WireError, path, ring

from consensus.errors import ProtocolError
from consensus.protocol.commands import Broadcast, Command
from consensus.protocol.edge import Edge, EdgeState
from consensus.protocol.events import Event, PeerLost, Tick
from consensus.protocol.messages import Closed, Engage, Leave
from consensus.protocol.neighbour import NeighbourEngine
from consensus.protocol.rounds import Phase
from consensus.rules import build
from consensus.sim.explore import LARGE, SMALL, AnyTime, Explorer, main


@pytest.mark.parametrize("name", SMALL)
def test_small_systems_hold(name: str) -> None:
    assert SMALL[name].run() > 50


def test_names_of_systems_say_what_they_are() -> None:
    for name, system in (SMALL | LARGE).items():
        assert f"{system.rounds} round" in name
        assert system.rule.name.replace("any_time", "any rule") in name
        assert ("death" in name) == (system.deaths > 0)
        assert ("leave" in name) == (system.leaves > 0)
        assert ("active" in name) == (system.weights == "active")


# -- reduction ----------------------------------------------------------------------------------------------------------

COMPARED = {
    "2 x 3 any": Explorer(path(2), 3, AnyTime()),
    "2 x 2 any, death": Explorer(path(2), 2, AnyTime(), deaths=1),
    "2 x 2 any, leaves": Explorer(path(2), 2, AnyTime(), leaves=2),
    "path of 3 x 1 any": Explorer(path(3), 1, AnyTime()),
    "path of 3 x 1 static": Explorer(path(3), 1, build("static_backup")),
    "path of 3 x 1 full active": Explorer(path(3), 1, build("full"), weights="active"),
    "2 x 3 dtur active": Explorer(path(2), 3, build("dtur"), weights="active"),
    "2 x 3 dtur, death": Explorer(path(2), 3, build("dtur"), deaths=1),
    "2 x 3 gap": Explorer(path(2), 3, build("gap", window=1)),
}


@pytest.mark.parametrize("name", COMPARED)
def test_reduction_keeps_every_outcome(name: str) -> None:
    exact = COMPARED[name]
    reduced = replace(exact, reduce=True)
    assert reduced.outcomes() == exact.outcomes()
    assert reduced.run() < exact.run()


def test_two_ranks_may_meet_in_any_rounds() -> None:
    """Two rounds each: no exchange, one exchange in any pair of rounds, or two in order."""
    pairs = [{(0, 1, a, b), (1, 0, b, a)} for a in (1, 2) for b in (1, 2)]
    both = {(0, 1, 1, 1), (1, 0, 1, 1), (0, 1, 2, 2), (1, 0, 2, 2)}
    expected = {frozenset(), frozenset(both), *map(frozenset, pairs)}
    assert Explorer(path(2), 2, AnyTime()).outcomes() == expected


def test_under_full_all_meet_in_step() -> None:
    (outcome,) = Explorer(path(3), 2, build("full")).outcomes()
    assert outcome == {(i, j, k, k) for i, j in ((0, 1), (1, 0), (1, 2), (2, 1)) for k in (1, 2)}


# -- bad engines --------------------------------------------------------------------------------------------------------


class Bad(NeighbourEngine):
    """An engine whose handlers may be overridden like other methods."""

    def __init_subclass__(cls) -> None:
        cls._EVENTS = {kind: getattr(cls, handler.__name__) for kind, handler in NeighbourEngine._EVENTS.items()}
        cls._MESSAGES = {kind: getattr(cls, handler.__name__) for kind, handler in NeighbourEngine._MESSAGES.items()}


class DoesNotConsumeReady(Bad):
    def _move_if_agreed(self, edge: Edge, now: float) -> None:
        ready = edge.ready
        super()._move_if_agreed(edge, now)
        edge.ready = ready


class ClosesWhileOffered(Bad):
    def handle(self, event: Event, now: float) -> list[Command]:
        if type(event) is Tick:
            for edge in self.edges.values():
                if edge.state is EdgeState.OFFERED:
                    edge.reset()
                    self._busy -= 1
        return super().handle(event, now)


class IgnoresClosed(Bad):
    def _closed(self, peer: int, message: Closed, now: float) -> None:
        pass


class TakesAnEngageForAnyRound(Bad):
    def _engage(self, peer: int, message: Engage, now: float) -> None:
        super()._engage(peer, message._replace(yours=self.view.round), now)


class AnswersNobodyWhileWaitingToClose(Bad):
    def _is_ready(self, edge: Edge, round: int, now: float) -> None:
        if self.phase is Phase.OPEN and self._verdict is not None:
            edge.ready = round
        else:
            super()._is_ready(edge, round, now)


class ForgetsToAskAfterADeparture(Bad):
    def _depart(self, who: int, dead: bool) -> None:
        changed = self._changed
        super()._depart(who, dead)
        self._changed = changed


class WaitsForModelsOfTheDead(Bad):
    def _depart(self, who: int, dead: bool) -> None:
        super()._depart(who, dead=False)


class PassesDeathsOnAfterItsGoodbye(Bad):
    def _lost(self, event: PeerLost, now: float) -> None:
        super()._lost(event, now)
        if self.phase is Phase.LEFT:
            self._out.append(Broadcast(Leave(event.peer)))


class TakesItsOfferBack(Bad):
    def _engage(self, peer: int, message: Engage, now: float) -> None:
        edge = self.edges[peer]
        if edge.state is EdgeState.OFFERED and self._verdict is not None:
            edge.reset()
            self._busy -= 1
        else:
            super()._engage(peer, message, now)


@pytest.mark.parametrize("reduce", [False, True])
@pytest.mark.parametrize(
    ("engine", "system", "words"),
    [
        (DoesNotConsumeReady, Explorer(path(2), 1, AnyTime()), "still counts as ready"),
        (ClosesWhileOffered, Explorer(path(2), 2, AnyTime()), "deadlock"),
        (IgnoresClosed, Explorer(path(2), 2, AnyTime()), "deadlock"),
        (TakesAnEngageForAnyRound, Explorer(path(2), 2, AnyTime()), "deadlock"),
        (TakesItsOfferBack, Explorer(path(2), 1, AnyTime()), "deadlock"),
        (ForgetsToAskAfterADeparture, Explorer(path(3), 1, build("full"), leaves=1), "deadlock"),
        (WaitsForModelsOfTheDead, Explorer(path(2), 1, AnyTime(), deaths=1), "deadlock"),
        (PassesDeathsOnAfterItsGoodbye, Explorer(path(3), 1, build("full"), deaths=1, everyone=True), "after its goodbye"),
    ],
)
def test_bad_engines_are_found(engine: type[NeighbourEngine], system: Explorer, words: str, reduce: bool) -> None:
    with pytest.raises(ProtocolError, match=words) as caught:
        replace(system, engine=engine, reduce=reduce).run(limit=20_000)
    assert "more than" not in str(caught.value)
    assert caught.value.__notes__[0].startswith("after:\nrank ")


def test_a_bad_engine_is_found_by_random_runs() -> None:
    with pytest.raises(WireError, match="wait, and nothing can happen"):
        Wire(ring(4), build("static_backup"), rounds=30, engine=IgnoresClosed).run()


def test_the_cycle_of_waiting_offers_is_found() -> None:
    system = Explorer(ring(3), 1, AnyTime(), engine=AnswersNobodyWhileWaitingToClose, reduce=True)
    with pytest.raises(ProtocolError, match=r"deadlock: ranks \[0, 1, 2\] wait") as caught:
        system.run()
    story = caught.value.__notes__[0]
    assert story.count("told to close") == 3
    assert len(set(re.findall(r"rank (\d): Control\(peer=(\d)", story))) == 6  # everybody has heard both others


def test_a_limit_is_kept() -> None:
    with pytest.raises(ProtocolError, match="more than 100 states"):
        Explorer(path(2), 3, AnyTime()).run(limit=100)


def test_command_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("consensus.sim.explore.SMALL", {"two": Explorer(path(2), 1, AnyTime())})
    main([])
    assert capsys.readouterr().out.startswith("two: ")
