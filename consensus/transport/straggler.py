"""Straggler injection: a transport whose local steps take the time that a model says, on any transport."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from consensus.protocol.events import Event
from consensus.protocol.messages import Message
from consensus.timing import Stream
from consensus.transport.base import Bytes, Parcel, Transport
from consensus.types import Rank, Round, Seconds


class StragglerTransport(Transport):
    """A transport that says for each local step how much it lacks of the duration drawn for it, and leaves all else to another.

    The emulated step includes the real one: a step is stretched to the drawn time, not delayed by it, so the regime does not
    depend on the machine as long as its own steps are shorter. A longer one passes as it is.

    Parameters
    ----------
    inner : Transport
        Does the work; its `sleep`, for which the caller uses what `pace` returns, decides whether that time is real or virtual.
    stream : Stream
        This rank's step durations, seconds.

    Examples
    --------
    ``StragglerTransport(transport, model.stream(transport.rank, seed))``
    """

    def __init__(self, inner: Transport, stream: Stream) -> None:
        self._inner = inner
        self._stream = stream

    def skip(self, rounds: Round) -> None:
        """Go on as after so many rounds."""
        for _ in range(rounds):
            self._stream.next()

    def pace(self, round: Round, elapsed: Seconds) -> Seconds:
        """Return how long the step of ``round``, which took ``elapsed`` seconds, is to last yet; 0 if longer than drawn."""
        return max(0.0, self._stream.next() - elapsed)

    @property
    def rank(self) -> Rank:
        """This process's number."""
        return self._inner.rank

    @property
    def size(self) -> int:
        """How many ranks there were to begin with."""
        return self._inner.size

    @property
    def members(self) -> Sequence[Rank]:
        """Who took part in the inner transport's last collective."""
        return self._inner.members

    @property
    def bytes_sent(self) -> int:
        """Payload and control bytes sent by the inner transport."""
        return self._inner.bytes_sent

    def now(self) -> Seconds:
        return self._inner.now()

    def sleep(self, duration: Seconds) -> None:
        self._inner.sleep(duration)

    def connect(self, neighbours: Sequence[Rank], parcel: Parcel) -> None:
        self._inner.connect(neighbours, parcel)

    def send(self, peer: Rank, message: Message) -> None:
        self._inner.send(peer, message)

    def swap(self, peer: Rank, round: Round, peer_round: Round) -> None:
        self._inner.swap(peer, round, peer_round)

    def give(self, peer: Rank) -> None:
        self._inner.give(peer)

    def take(self, peer: Rank) -> None:
        self._inner.take(peer)

    def poll(self) -> list[Event]:
        return self._inner.poll()

    def wait(self, until: Seconds | None) -> list[Event]:
        return self._inner.wait(until)

    def disconnect(self) -> None:
        self._inner.disconnect()

    def broadcast(self, buffer: Bytes, root: Rank = 0) -> None:
        self._inner.broadcast(buffer, root)

    def sum(self, buffer: NDArray[Any]) -> None:
        self._inner.sum(buffer)

    def gather(self, item: Any) -> list[Any]:
        return self._inner.gather(item)
