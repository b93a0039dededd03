"""Ranks that are connected for a while, to try something out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from consensus.protocol.events import Control, Event
from consensus.protocol.messages import Leave, Progress
from consensus.transport.base import CHUNK_BYTES, Bytes, Parcel, Transport
from consensus.types import Rank


class Ballast:
    """A parcel of zeros; what arrives is dropped.

    Parameters
    ----------
    size : int
        Bytes, 1 or more; the same at every rank.
    """

    def __init__(self, size: int) -> None:
        self.chunks: Sequence[Bytes] = [
            np.zeros(min(CHUNK_BYTES, size - start), np.uint8) for start in range(0, size, CHUNK_BYTES)
        ]
        self._spare: dict[int, list[Bytes]] = {}

    def incoming(self, peer: Rank) -> int:
        """How many chunks a peer sends: as many as this rank has."""
        return len(self.chunks)

    def outgoing(self, peer: Rank) -> Sequence[Bytes]:
        """The same for all."""
        return self.chunks

    def lend(self, peer: Rank, index: int) -> Bytes:
        """Memory of what came before, or new."""
        size = self.chunks[index].size
        spare = self._spare.get(size)
        return spare.pop() if spare else np.empty(size, np.uint8)

    def deliver(self, peer: Rank, index: int, data: Bytes) -> None:
        """Keep the memory alone."""
        self._spare.setdefault(data.size, []).append(data)

    def release(self, peer: Rank, index: int) -> None:
        """Do nothing: what is sent never changes."""


class Inbox:
    """Events in the order in which they are wanted."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._events: list[Event] = []

    def next(self, wanted: Callable[[Event], bool]) -> None:
        """Wait for an event and take it out."""
        while True:
            for index, event in enumerate(self._events):
                if wanted(event):
                    del self._events[index]
                    return
            self._events += self._transport.wait(None)


@contextmanager
def session(transport: Transport, partners: Sequence[Rank], parcel: Parcel) -> Iterator[Inbox]:
    """Connect for the block, with ``partners`` as neighbours, and leave when all ranks have ended theirs. Collective.

    A rank without partners waits there as ranks in training wait, leaving its processor to others.
    """
    others = [rank for rank in range(transport.size) if rank != transport.rank]
    transport.connect(partners, parcel)
    inbox = Inbox(transport)
    yield inbox
    for rank in others:
        transport.send(rank, Leave(transport.rank))
    for _ in others:
        inbox.next(_is_goodbye)
    transport.disconnect()


def is_ping(event: Event) -> bool:
    """Whether a neighbour sent :data:`PING`."""
    return isinstance(event, Control) and isinstance(event.message, Progress)


PING = Progress(0)
"""A small message, for its own sake."""


def _is_goodbye(event: Event) -> bool:
    return isinstance(event, Control) and isinstance(event.message, Leave)
