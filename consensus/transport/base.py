"""The contract every transport keeps, in prose and as a protocol class.

A transport moves control messages and models between ranks, keeps the clock, and decides nothing. One rank has one
transport object; it is used by one thread.

*Order.* Control messages from one rank are handed out in the order in which that rank sent them. Nothing is promised between
control messages and models, nor between different senders.

*Waiting.* Only :meth:`Transport.wait` blocks. Between calls nothing is handed out, and messages that arrive wait, small ones
only: a model waits in its sender's memory until its receiver has asked for it by :meth:`Transport.take` or
:meth:`Transport.swap`. One of a few kilobytes may leave before.

*Models.* `give` starts one direction, `take` the other, `swap` both. Each chunk that leaves is read from the memory that
``parcel.outgoing`` named when it started, until ``parcel.release`` is called for it, so the caller may not write it before;
arriving chunks land in memory that ``parcel.lend`` gives, and go to ``parcel.deliver``, whose memory it is from then on. Release
and deliver are called from inside `wait` or `poll`, each once a chunk, in order of index for one peer and direction, in any order
between them; ModelGiven follows the last release, ModelTaken the last delivery, ModelSwapped the last of all.

*Directions.* Both ends move models as one: a give is answered by a take and a swap by a swap, the first by the first, the second
by the second. The two directions between two ranks are independent and may overlap in any way; within one, the next transfer may
start when the event of the one before has been handed out. Whoever gives blocks nobody, however late the taker is, and the other
way round; between the two it matters not who asks first.

*Deaths.* Where ranks may die and the others go on, a death is one ``PeerLost``, handed out at every rank that had no goodbye of
the dead one (at others perhaps), and first thing in later connections. Afterwards nothing of that rank is handed out, and what is
asked for it is dropped; a model under way is given up without a call of the parcel or an event. Collectives are of the living.

*Ends.* The last message of a channel is a ``Leave``: after it arrived the transport keeps no receive open for that rank.
Nothing is ever cancelled, so :meth:`Transport.disconnect` may be called only after Finish, when all of them have come and all
that was given has been taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from consensus.protocol.events import Event
from consensus.protocol.messages import Message
from consensus.types import Rank, Round, Seconds

Bytes = NDArray[np.uint8]

CHUNK_BYTES = 1 << 20
"""Size of a model chunk, bytes: large enough to amortise a message, small enough to be averaged while in cache."""


class Parcel(Protocol):
    """What a rank sends and receives as the transport sees it: bytes in chunks."""

    @property
    def chunks(self) -> Sequence[Bytes]:
        """The own model, uint8 views of shape (<= CHUNK_BYTES,), the same lengths at every rank."""

    def outgoing(self, peer: Rank) -> Sequence[Bytes]:
        """Return what is to be sent to ``peer``; asked once a transfer."""

    def incoming(self, peer: Rank) -> int:
        """Return how many chunks ``peer`` sends, as many as it has outgoing for this rank."""

    def lend(self, peer: Rank, index: int) -> Bytes:
        """Return memory for chunk ``index`` of what ``peer`` sends, as long as the own one."""

    def deliver(self, peer: Rank, index: int, data: Bytes) -> None:
        """Take chunk ``index`` of what ``peer`` sent, and the memory it came in."""

    def release(self, peer: Rank, index: int) -> None:
        """Take note that chunk ``index`` of what was outgoing has left for ``peer``."""


class Transport(Protocol):
    """What a driver needs of the world."""

    @property
    def rank(self) -> Rank:
        """The own number."""

    @property
    def size(self) -> int:
        """How many ranks there were to begin with."""

    @property
    def members(self) -> Sequence[Rank]:
        """Who took part in the last collective, ascending: all ranks, or those that lived; the same at each of them."""

    def now(self) -> Seconds:
        """The clock: monotonic; its zero is the transport's own affair."""

    def sleep(self, duration: Seconds) -> None:
        """Let time pass (really, or on the virtual clock)."""

    def pace(self, round: Round, elapsed: Seconds) -> Seconds:
        """Return how long the local step of ``round``, which took ``elapsed``, is still to last; the straggler injector's say."""

    def connect(self, neighbours: Sequence[Rank], parcel: Parcel) -> None:
        """Be ready to receive from everybody; afterwards all ranks may send."""

    def send(self, peer: Rank, message: Message) -> None:
        """Send a control message; never blocks on the receiver."""

    def swap(self, peer: Rank, round: Round, peer_round: Round) -> None:
        """Start to send the own model to ``peer`` and to receive its one; ModelSwapped tells the end."""

    def give(self, peer: Rank) -> None:
        """Start to send what is outgoing to ``peer``; ModelGiven tells the end."""

    def take(self, peer: Rank) -> None:
        """Start to receive what ``peer`` gives; ModelTaken tells the end."""

    def poll(self) -> list[Event]:
        """What has happened, without waiting."""

    def wait(self, until: Seconds | None) -> list[Event]:
        """What has happened, waiting until there is something or the clock reaches ``until`` (then perhaps nothing)."""

    def disconnect(self) -> None:
        """Release what `connect` took; `connect` may be called again, by all ranks."""

    def broadcast(self, buffer: Bytes, root: Rank = 0) -> None:
        """Collective, in place: everybody's ``buffer`` becomes ``root``'s, the first member's if ``root`` is dead. As `sum`."""

    def sum(self, buffer: NDArray[Any]) -> None:
        """Collective, in place: everybody's ``buffer`` becomes the sum over ``members``. Not while connected."""

    def gather(self, item: Any) -> list[Any]:
        """Collective: everybody's small picklable ``item``, in the order of ``members``. Not while connected."""

    @property
    def bytes_sent(self) -> int:
        """Payload and control bytes sent since the transport was made."""
