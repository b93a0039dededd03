"""The binary form of what an engine is told and of what it answers; the same bytes from any process on any machine.

An event is stored whole, its time as the exact float64. Of the answer there are the kinds of its commands, at once; and with the
command that ends a round, what the round came to and a checksum of everything that was commanded since the last one, and of the
round's weights and times. Contents of single commands are not stored: given the same engine they follow from the events, and
whether they do is what a replay finds out.

Python calls cost more here than bytes do. Hence one call takes in an event with its answer, and there is one checksum a round.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import Any

from consensus.protocol.commands import Broadcast, Command, DropModel, Finish, Mix, SendControl, StartStep, SwapModel, WakeAt
from consensus.protocol.events import Control, Event, LeaveWanted, ModelSwapped, PeerLost, StepDone, Tick
from consensus.protocol.messages import Closed, Engage, Established, Leave, Ready
from consensus.protocol.neighbour import NeighbourEngine
from consensus.types import Seconds

MOST_RANKS = 1 << 16
"""Ranks are stored in 16 bits."""

LONGEST_REASON = (1 << 16) - 1
"""Of a reason, bytes; the rest is cut off."""

MANY = 0xFF
"""In place of a number of commands: it follows in 32 bits."""

SESSION, CLOCK, LIMIT, END = range(0xF0, 0xF4)
"""Marks among the events: a fresh engine begins; the run's clock; recording stopped at its limit; recording ended in order."""

CLOCK_FORM = struct.Struct("<Bdd")
"""The mark of the clock: the time that is 0 on the run's clock, and the same moment in seconds since 1970."""

# The fields of what reaches an engine. Rounds and counts have 32 bits: a million rounds an hour for five months.
_MESSAGES: dict[type[Any], str] = {Ready: "I", Engage: "II", Closed: "II", Leave: "I", Established: "IIIIIq"}
_EVENTS: dict[type[Any], str] = {StepDone: "", ModelSwapped: "H", PeerLost: "H", Tick: "", LeaveWanted: ""}
_COMMANDS = (SwapModel, DropModel, Mix, StartStep, WakeAt, Finish)

MESSAGE_FORMS = [(code, kind, struct.Struct(f"<BdH{fields}")) for code, (kind, fields) in enumerate(_MESSAGES.items())]
"""Code, class and form (code, time, sender, fields) of each message."""

EVENT_FORMS = [(code, kind, struct.Struct(f"<Bd{_EVENTS[kind]}")) for code, kind in enumerate(_EVENTS, len(_MESSAGES))]
"""Code, class and form (code, time, fields) of each other event."""

_PACK: Mapping[type[Any], Callable[..., bytes]] = {
    kind: partial(form.pack, code) for code, kind, form in (*MESSAGE_FORMS, *EVENT_FORMS)
}
_SENT = {kind: code for code, kind in enumerate(_MESSAGES)}
_TOLD = {kind: code for code, kind in enumerate(_MESSAGES, len(_SENT))}
_REST = {kind: code for code, kind in enumerate(_COMMANDS, len(_SENT) + len(_TOLD))}
_MIX = _REST[Mix]

COMMAND_KINDS = (
    *(f"SendControl({kind.__name__})" for kind in _SENT),
    *(f"Broadcast({kind.__name__})" for kind in _TOLD),
    *(kind.__name__ for kind in _REST),
)
"""Kinds of commands in words, by code."""

ENDS_ROUND = _REST[StartStep]
"""The code of the command after which the round's outcome follows."""

OUTCOME = struct.Struct("<IIHHH")
"""Round, checksum, number of exchanges, number of backups, bytes of the reason; then the peers of both, and the reason."""


class Encoder:
    """Turns what an engine is told, and answers, into bytes.

    Attributes
    ----------
    buffer : bytearray
        What has been encoded and not yet been taken away.
    """

    def __init__(self) -> None:
        self.buffer = bytearray()
        self._numbers: list[float] = []
        self._engine: NeighbourEngine | None = None

    def follow(self, engine: NeighbourEngine) -> None:
        """Take events from now on as those of ``engine``, which is fresh."""
        self._engine = engine
        self._numbers.clear()

    def encode(self, now: Seconds, event: Event, commands: Sequence[Command]) -> None:
        """Add an event, the time it was handled, and the answer of the engine, which stands as that left it."""
        buffer = self.buffer
        if type(event) is Control:
            message: Any = event.message
            buffer += _PACK[type(message)](now, event.peer, *message)
        else:
            buffer += _PACK[type(event)](now, *event)
        count = len(commands)
        if not count:
            buffer.append(0)
            return
        if count < MANY:
            buffer.append(count)
        else:
            buffer.append(MANY)
            buffer += count.to_bytes(4, "little")
        append, numbers = buffer.append, self._numbers
        ends = False
        command: Any
        for command in commands:
            kind = type(command)
            if kind is SendControl:
                peer, message = command
                append(_SENT[type(message)])
                numbers.append(peer)
                numbers += message
            elif kind is Broadcast:
                message = command.message
                append(_TOLD[type(message)])
                numbers += message
            elif kind is Mix:
                append(_MIX)
                numbers += chain.from_iterable(command.weights)
            else:
                append(_REST[kind])
                numbers += command
                ends = ends or kind is StartStep
        if ends:
            self._end_round()

    def _end_round(self) -> None:
        assert self._engine is not None
        assert self._engine.last is not None
        round_, opened, closed, exchanges, backups, reason = self._engine.last
        numbers = self._numbers
        numbers += (opened, closed)
        peers = []
        for exchange in exchanges:
            numbers += exchange
            peers.append(exchange.peer)
        peers += backups
        words = reason.encode()[:LONGEST_REASON]
        self.buffer += OUTCOME.pack(round_, _checksum(numbers), len(exchanges), len(backups), len(words))
        self.buffer += struct.pack(f"<{len(peers)}H", *peers)
        self.buffer += words
        numbers.clear()


def _checksum(numbers: list[Any]) -> int:
    if None in numbers:  # active weights are not known when models are swapped
        numbers = [-1.0 if number is None else number for number in numbers]
    return zlib.crc32(struct.pack(f"<{len(numbers)}d", *numbers))
