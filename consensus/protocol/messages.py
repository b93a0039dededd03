"""The control messages two ranks exchange, and their fixed-size wire form.

All of them are one small record of 64-bit numbers; the only heavy transfer, the model itself, is not a message here but
the transport's answer to :class:`~consensus.protocol.commands.SwapModel`.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Any, NamedTuple, TypeAlias, TypeVar, get_type_hints

from consensus.errors import ProtocolError
from consensus.types import Rank, Round

_T = TypeVar("_T")


record: Any = tuple.__new__
"""``record(Ready, (3,))`` is ``Ready(3)`` in half the time: what the named tuples' constructors come to, for hot places."""


def tagged(cls: type[_T]) -> type[_T]:
    """Make equality of a named tuple depend on its class: ``Ready(3) != Progress(3)``.

    Named tuples are the cheapest immutable record Python has, and a rank makes dozens of these in each round; but as tuples
    they compare by content alone, which would let a test (or a set of explored states) confuse two kinds of message.
    """

    def eq(self: Any, other: object) -> bool:
        return type(self) is type(other) and tuple.__eq__(self, other)  # type: ignore[operator]

    def ne(self: Any, other: object) -> bool:
        return not eq(self, other)

    def digest(self: Any) -> int:
        return hash((cls.__name__, tuple(self)))

    cls.__eq__, cls.__ne__, cls.__hash__ = eq, ne, digest  # type: ignore[method-assign]
    return cls


@tagged
class Ready(NamedTuple):
    """To every neighbour when a round opens, but those that get an Engage: "my step is done, I can exchange"."""

    round: Round


@tagged
class Engage(NamedTuple):
    """ "I want to swap my round `mine` with your round `yours`"; if `mine` opened later, the first the peer hears of it."""

    mine: Round
    yours: Round


@tagged
class Closed(NamedTuple):
    """When a round closes, to every neighbour it has not exchanged with: withdraws its Ready and every unanswered Engage.

    Under active weights to the others as well, because it carries the number of exchanges.
    """

    round: Round
    exchanges: int


@tagged
class Leave(NamedTuple):
    """The last message on a channel: remove this rank for good. ``who`` is the sender, or the dead rank it speaks for."""

    who: Rank


@tagged
class Established(NamedTuple):
    """A rule's news, to every rank: the edge ``(i, j)`` has been used and ends iteration ``slot`` of ``epoch``.

    ``departed`` (how many ranks the sender knows to have left) and ``digest`` (which ones, see
    :func:`consensus.rules.epochs.departure_digest`) name the epoch's generation: epochs restart when a rank leaves.
    """

    epoch: int
    slot: int
    i: Rank
    j: Rank
    departed: int
    digest: int


@tagged
class Push(NamedTuple):
    """Worker to server: "my gradient at weights of ``version`` follows", its ``iteration``-th push, 1 for the first.

    ``loss`` is the batch's (NaN if it is not known), and ``fetch``, 0 or 1, says Fetch as well.
    """

    version: int
    iteration: int
    fetch: int
    loss: float


@tagged
class Fetch(NamedTuple):
    """Worker to server: "I have the weights of ``version``, and room for newer ones"."""

    version: int


@tagged
class Weights(NamedTuple):
    """Server to worker: "the weights of ``version`` follow"."""

    version: int


class Work(IntEnum):
    """What the first shard of a server has another do."""

    TAKE = 0
    """Take in the gradient of a worker."""
    GIVE = 1
    """Give a worker the newest weights."""
    DISCARD = 2
    """Forget the gradient kept of a worker."""
    USE = 3
    """Take the gradient kept of a worker into the next update."""
    APPLY = 4
    """Make the update."""


@tagged
class Order(NamedTuple):
    """First shard to another: do ``work`` (a :class:`Work`) about ``worker``; ``factor`` is an update's, see Apply."""

    work: int
    worker: Rank
    factor: float


@tagged
class Report(NamedTuple):
    """Another shard to the first: ``work`` about ``worker`` is done; ``square`` and ``step`` as of GradientTaken and Applied."""

    work: int
    worker: Rank
    square: float
    step: float


@tagged
class Progress(NamedTuple):
    """For the application, not the engine: how many samples the sender has processed in this run."""

    samples: int


@tagged
class Stop(NamedTuple):
    """For the application, not the engine: finish your round and leave; ``reason`` is an application's code."""

    reason: int


Message: TypeAlias = Ready | Engage | Closed | Leave | Established | Progress | Stop | Push | Fetch | Weights | Order | Report

_KINDS: tuple[type[Any], ...] = (Ready, Engage, Closed, Leave, Established, Progress, Stop, Push, Fetch, Weights, Order, Report)
_CODE = {cls: code for code, cls in enumerate(_KINDS)}
_FIELDS = max(len(cls._fields) for cls in _KINDS)


def _struct(cls: type[Any]) -> struct.Struct:
    letters = "".join("d" if kind is float else "q" for kind in get_type_hints(cls).values())
    return struct.Struct(f"<q{letters}{8 * (_FIELDS - len(letters))}x")


_STRUCTS = [_struct(cls) for cls in _KINDS]
_FIRST = struct.Struct("<q")
_WIRE = {code: (cls, form.unpack_from) for code, (cls, form) in enumerate(zip(_KINDS, _STRUCTS, strict=True))}

WIRE_BYTES = _STRUCTS[0].size
"""Size of every encoded message, bytes."""


def encode(message: Message) -> bytes:
    """Pack ``message`` into :data:`WIRE_BYTES` bytes, little-endian: kind and fields of 64 bits each, zeros."""
    code = _CODE[type(message)]
    return _STRUCTS[code].pack(code, *message)


def decode(buffer: bytes | bytearray | memoryview) -> Message:
    """Unpack what :func:`encode` packed.

    Raises
    ------
    ProtocolError
        If the bytes are not one of this version's messages.
    """
    try:
        kind, unpack = _WIRE[_FIRST.unpack_from(buffer)[0]]
        message: Message = record(kind, unpack(buffer)[1:])
        return message
    except (struct.error, KeyError) as error:
        raise ProtocolError(
            f"not a control message of this version: {bytes(buffer)[:WIRE_BYTES].hex()} ({error}); "
            "do all ranks run the same version of consensus?"
        ) from None


def foreign(peer: Rank, message: Message) -> str:
    """What is wrong with a message that no rank sends to such a rank, or not with such contents."""
    return f"rank {peer} sent {message}, which is not for this rank; do all run the same version of consensus?"
