"""Back from bytes to events, and to what is recorded of the answers."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from consensus.protocol.events import Control, Event
from consensus.protocol.messages import Message
from consensus.recording.encoding import COMMAND_KINDS, ENDS_ROUND, EVENT_FORMS, MANY, MESSAGE_FORMS, OUTCOME
from consensus.types import Rank, Round, Seconds


class Truncated(Exception):
    """The bytes end in the middle of a record."""


class Damaged(Exception):
    """The bytes are no records of this version."""


class Outcome(NamedTuple):
    """What a round came to.

    ``checksum`` is of its times, of its exchanges with their weights and times, and of all commands since the last round.
    """

    round: Round
    exchanged: tuple[Rank, ...]
    backups: tuple[Rank, ...]
    reason: str
    checksum: int


class Entry(NamedTuple):
    """An event as it was recorded.

    ``answered`` are the kinds of the engine's commands, in words; ``outcome`` is there if the round ended; ``wire`` is all of it
    in bytes.
    """

    now: Seconds
    event: Event
    answered: tuple[str, ...]
    outcome: Outcome | None
    wire: bytes


class Cursor:
    """Takes records off the front of some bytes.

    Attributes
    ----------
    at : int
        Where the next one begins.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.at = 0

    def __bool__(self) -> bool:
        """Whether anything is left."""
        return self.at < len(self._data)

    def code(self) -> int:
        """Return the next record's code without taking it."""
        return self._data[self.at]

    def take(self, form: struct.Struct) -> tuple[Any, ...]:
        """Unpack a fixed form."""
        return form.unpack(self.take_bytes(form.size))

    def take_bytes(self, size: int) -> bytes:
        """Take so many bytes."""
        begin, self.at = self.at, self.at + size
        if self.at > len(self._data):
            raise Truncated
        return self._data[begin : self.at]

    def since(self, begin: int) -> bytes:
        """Return what was taken since it stood at ``begin``."""
        return self._data[begin : self.at]


_BYTE, _WORD = struct.Struct("<B"), struct.Struct("<I")


def _control(kind: Callable[..., Message]) -> Callable[..., Event]:
    return lambda peer, *fields: Control(peer, kind(*fields))


_FORMS: Mapping[int, tuple[struct.Struct, Callable[..., Event]]] = {
    **{code: (form, _control(kind)) for code, kind, form in MESSAGE_FORMS},
    **{code: (form, kind) for code, kind, form in EVENT_FORMS},
}


def take_entry(cursor: Cursor) -> Entry:
    """Take an event with what is recorded of the answer.

    Raises
    ------
    Truncated
        If the bytes end before it does.
    Damaged
        If it is no event.
    """
    begin = cursor.at
    try:
        form, make = _FORMS[cursor.code()]
    except KeyError:
        raise Damaged(f"a record of kind {cursor.code()}, expected one of {sorted(_FORMS)}") from None
    _, now, *fields = cursor.take(form)
    (count,) = cursor.take(_BYTE)
    if count == MANY:
        (count,) = cursor.take(_WORD)
    kinds = cursor.take_bytes(count)
    unknown = [kind for kind in kinds if kind >= len(COMMAND_KINDS)]
    if unknown:
        raise Damaged(f"a command of kind {unknown[0]}, expected less than {len(COMMAND_KINDS)}")
    outcome = _take_outcome(cursor) if ENDS_ROUND in kinds else None
    return Entry(now, make(*fields), tuple(COMMAND_KINDS[kind] for kind in kinds), outcome, cursor.since(begin))


def _take_outcome(cursor: Cursor) -> Outcome:
    round_, checksum, exchanged, backups, length = cursor.take(OUTCOME)
    peers = cursor.take(struct.Struct(f"<{exchanged + backups}H"))
    words = cursor.take_bytes(length)
    return Outcome(round_, peers[:exchanged], peers[exchanged:], words.decode(errors="replace"), checksum)
