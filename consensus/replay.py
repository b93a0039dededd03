"""Feeding recorded events through fresh engines, and finding the first answer that is another one.

An engine decides by the events it is given and their times, and by nothing else. So the same events must bring the same
decisions, in any process and whatever goes on around it; if they do not, engine or rule have changed since, or depend on
something that they must not see.
"""

from __future__ import annotations

from dataclasses import dataclass

from consensus.errors import ConfigError, ProtocolError
from consensus.protocol.commands import Command
from consensus.protocol.decision import Rule
from consensus.protocol.events import Event
from consensus.protocol.neighbour import NeighbourEngine
from consensus.recording.decoding import Cursor, Entry, Outcome, take_entry
from consensus.recording.encoding import Encoder
from consensus.recording.log import Clock, Ended, Ending, EventLog, Session
from consensus.rules import build
from consensus.types import Rank, Seconds


@dataclass(frozen=True)
class Divergence:
    """The first event after which a replay differs from what was recorded.

    Attributes
    ----------
    number : int
        Of the event in the log, from 1.
    time : float
        When it was handled, seconds on the run's clock (on the transport's, if the log does not tell it).
    event : Event
        What the engine was told.
    what : str
        In which way the two differ.
    recorded, replayed : str
        What was recorded, and what the fresh engine did.
    story : str
        The engine's last events, this one included.
    state : str
        The engine's description of itself, after it.
    """

    number: int
    time: Seconds
    event: Event
    what: str
    recorded: str
    replayed: str
    story: str
    state: str


@dataclass(frozen=True)
class Replayed:
    """What the replay of one rank came to.

    Attributes
    ----------
    rank : int
        Whose log.
    sessions, events, rounds : int
        How many were replayed, all with the same answers up to a divergence.
    ended : Ended or None
        How the log ends; None if it was not read to its end because of a divergence.
    divergence : Divergence or None
        The first difference, None if there is none.
    """

    rank: Rank
    sessions: int
    events: int
    rounds: int
    ended: Ended | None
    divergence: Divergence | None

    @property
    def agrees(self) -> bool:
        """Whether all that was recorded could be replayed, with the same answers."""
        return self.ended is not None and self.ended.ending is not Ending.DAMAGED


def rule_of(log: EventLog) -> Rule:
    """The rule that decided when it was recorded.

    Raises
    ------
    ConfigError
        If this version does not know it, or not with these parameters.
    """
    try:
        return build(log.rule, **log.parameters)
    except ConfigError as error:
        raise ConfigError(
            f"{log.path}: recorded by consensus {log.consensus} under a rule that cannot be built here: {error}. "
            "Replay it with that version, or, if the rule is your own, with consensus.replay.replay(log, rule)"
        ) from error


def replay(log: EventLog, rule: Rule | None = None) -> Replayed:
    """Feed a log through fresh engines, until its end or the first difference.

    Parameters
    ----------
    log
        Of one rank.
    rule
        In place of the recorded one.

    Returns
    -------
    Replayed
        How far it came.

    Raises
    ------
    ConfigError
        If the rule cannot be built, or refuses the recorded weights.
    """
    return _Replay(log, rule_of(log) if rule is None else rule).run()


class _Replay:
    """One replay under way."""

    def __init__(self, log: EventLog, rule: Rule) -> None:
        self._log, self._rule = log, rule
        self._encoder = Encoder()
        self._origin: Seconds = 0.0
        self._sessions = self._events = self._rounds = 0
        self._begin()

    def _begin(self) -> None:
        log = self._log
        self._engine = NeighbourEngine(
            log.rank, log.adjacency, self._rule, weights=log.weights, everyone=log.everyone, stuck_after=log.stuck_after
        )
        self._encoder.follow(self._engine)

    def run(self) -> Replayed:
        """Go through the log."""
        divergence, ended = None, None
        for item in self._log.items():
            if isinstance(item, Entry):
                divergence = self._feed(item)
                if divergence is not None:
                    break
            elif isinstance(item, Session):
                self._sessions += 1
                self._begin()
            elif isinstance(item, Clock):
                self._origin = item.origin
            else:
                ended = item
        return Replayed(self._log.rank, self._sessions, self._events, self._rounds, ended, divergence)

    def _feed(self, entry: Entry) -> Divergence | None:
        engine, encoder = self._engine, self._encoder
        try:
            commands = engine.handle(entry.event, entry.now)
        except ProtocolError as error:
            return self._divergence(entry, "the engine refuses the event", _told(entry), str(error))
        encoder.buffer.clear()
        encoder.encode(entry.now, entry.event, commands)
        if encoder.buffer != entry.wire:
            return self._compare(entry, take_entry(Cursor(bytes(encoder.buffer))), commands)
        self._events += 1
        self._rounds += entry.outcome is not None
        return None

    def _compare(self, recorded: Entry, replayed: Entry, commands: list[Command]) -> Divergence:
        own = ", ".join(map(repr, commands)) or "nothing"
        if recorded.answered != replayed.answered:
            return self._divergence(recorded, "the engine answers otherwise", _told(recorded), own)
        assert recorded.outcome is not None
        assert replayed.outcome is not None
        if recorded.outcome[:-1] != replayed.outcome[:-1]:
            what, own = "the round comes to something else", _words(replayed.outcome)
        else:
            what = "a weight or a time of the round, or what is in a command since the last one, is another"
        return self._divergence(recorded, what, _words(recorded.outcome), own)

    def _divergence(self, entry: Entry, what: str, recorded: str, replayed: str) -> Divergence:
        number, now, engine = self._events + 1, entry.now, self._engine
        story, state = engine.story.tell(now) if engine.story is not None else "", engine.describe(now)
        return Divergence(number, now - self._origin, entry.event, what, recorded, replayed, story, state)


def _told(entry: Entry) -> str:
    return ", ".join(entry.answered) or "nothing"


def _words(outcome: Outcome) -> str:
    exchanged, backups = ([*ranks] or "nobody" for ranks in (outcome.exchanged, outcome.backups))
    checksum = f"checksum {outcome.checksum:08x}"
    return f"round {outcome.round}: exchanged with {exchanged}, not waited for {backups}; {outcome.reason}; {checksum}"
