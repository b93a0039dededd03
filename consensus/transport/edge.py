"""The models that move between this rank and one neighbour over MPI: two directions, each a window of chunks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

import numpy as np

from consensus.errors import ProtocolError
from consensus.protocol.events import Event, ModelGiven, ModelSwapped, ModelTaken
from consensus.transport.base import Bytes, Parcel
from consensus.types import Rank

WINDOW = 2
"""Chunks in flight per edge and direction: one is averaged while the next one arrives. Measured: more are colder in cache."""

_NOTHING: Bytes = np.empty(0, np.uint8)


class Link(Protocol):
    """What an edge needs of the connection that it belongs to."""

    comm: Any
    parcel: Parcel
    requests: list[Any]
    events: list[Event]
    moving: int
    bytes_sent: int

    def reserve(self, handler: Callable[[], None]) -> int:
        """Return the number of a new place in ``requests``; when the request there completes, ``handler`` is called."""

    def vacate(self, place: int) -> Any:
        """Return the request of ``place``, for which the handler is called no more."""


class _Direction(ABC):
    """Transfers of one direction, one at a time: chunks start and end in order, however their requests complete."""

    def __init__(self, link: Link, peer: Rank, tag: int) -> None:
        self._link, self._peer, self._tag = link, peer, tag
        self._width = min(WINDOW, len(link.parcel.chunks))
        self._places = [link.reserve(partial(self._completed, slot)) for slot in range(self._width)]
        self._complete = [False] * self._width
        self._count = self._done = 0
        self._over: Callable[[], None]
        self.busy = False

    def start(self, count: int, over: Callable[[], None]) -> None:
        """Move ``count`` chunks, then call ``over``."""
        if not count:
            over()
            return
        self._count, self._done, self._over, self.busy = count, 0, over, True
        for index in range(min(self._width, count)):
            self._begin(index)

    def _completed(self, slot: int) -> None:
        complete, width, count = self._complete, self._width, self._count
        complete[slot] = True
        while complete[slot := self._done % width]:
            complete[slot] = False
            index = self._done
            self._end(index)
            self._done = index + 1
            if index + width < count:
                self._begin(index + width)
            # Until its first chunk has moved, the peer may be computing for long; from then on it is at it as well.
            if not index:
                self._link.moving += 1
        if self._done == count:
            self._link.moving -= 1
            self.busy = False
            self._over()

    def overlooked(self) -> list[int]:
        """Return the places of the requests that have completed and were not handled."""
        if not self.busy:
            return []
        slots = [index % self._width for index in range(self._done, min(self._done + self._width, self._count))]
        return [self._places[slot] for slot in slots if not (self._complete[slot] or self._link.requests[self._places[slot]])]

    def cut(self) -> list[Any]:
        """Give up what is under way and return its requests, of which MPI may still hold the memory."""
        held = [request for request in map(self._link.vacate, self._places) if request]
        if self.busy and self._done:
            self._link.moving -= 1
        self.busy = False
        return held

    @abstractmethod
    def _begin(self, index: int) -> None:
        """Ask MPI to move chunk ``index``."""

    _end: Callable[[int], None]
    """Tells the parcel that chunk ``index`` has moved."""


class _Sending(_Direction):
    def __init__(self, link: Link, peer: Rank, tag: int) -> None:
        super().__init__(link, peer, tag)
        self._end = partial(link.parcel.release, peer)
        self._chunks: Sequence[Bytes] = ()

    def send(self, chunks: Sequence[Bytes], over: Callable[[], None]) -> None:
        """Send ``chunks``, then call ``over``."""
        self._chunks = chunks
        self.start(len(chunks), over)

    def _begin(self, index: int) -> None:
        link, chunk = self._link, self._chunks[index]
        link.requests[self._places[index % self._width]] = link.comm.Isend(chunk, self._peer, self._tag)
        link.bytes_sent += len(chunk)


class _Receiving(_Direction):
    def __init__(self, link: Link, peer: Rank, tag: int) -> None:
        super().__init__(link, peer, tag)
        self._buffers: list[Bytes] = [_NOTHING] * self._width
        self._end = self._hand_over

    def _begin(self, index: int) -> None:
        link, slot = self._link, index % self._width
        into = self._buffers[slot] = link.parcel.lend(self._peer, index)
        link.requests[self._places[slot]] = link.comm.Irecv(into, self._peer, self._tag)

    def _hand_over(self, index: int) -> None:
        slot = index % self._width
        data, self._buffers[slot] = self._buffers[slot], _NOTHING
        self._link.parcel.deliver(self._peer, index, data)


class Edge:
    """The models that move between this rank and one neighbour.

    Consecutive transfers of one direction are told apart by MPI's order of messages, for each end has one at a time.

    Parameters
    ----------
    link : Link
        Whose requests, events and parcel these are.
    peer : int
        The neighbour.
    tag : int
        Of all messages of models.
    """

    def __init__(self, link: Link, peer: Rank, tag: int) -> None:
        self._link, self._peer = link, peer
        # In this order, so that of what completes together arrivals are handed out first.
        self._receiving = _Receiving(link, peer, tag)
        self._sending = _Sending(link, peer, tag)
        self._halves = 0
        self._dead = False

    @property
    def busy(self) -> bool:
        """Whether a model is under way, or waits for the neighbour to move it."""
        return self._sending.busy or self._receiving.busy

    def overlooked(self) -> list[int]:
        """Return the places of the requests that have completed and were not handled."""
        return self._receiving.overlooked() + self._sending.overlooked()

    def cut(self) -> list[Any]:
        """Give up what is under way, for the neighbour is dead, and ignore what is still asked of this edge.

        Returns
        -------
        list
            The requests of what was under way; MPI may hold their memory for a while.
        """
        if self._halves:
            self._link.moving -= 1
        self._halves, self._dead = 0, True
        return self._receiving.cut() + self._sending.cut()

    def give(self) -> None:
        """Start to send."""
        if self._dead:
            return
        if self._sending.busy:
            raise self._refusal("given to")
        self._sending.send(self._link.parcel.outgoing(self._peer), self._given)

    def take(self) -> None:
        """Start to receive."""
        if self._dead:
            return
        if self._receiving.busy:
            raise self._refusal("taken from")
        self._receiving.start(self._link.parcel.incoming(self._peer), self._taken)

    def swap(self) -> None:
        """Start both directions."""
        if self._dead:
            return
        sending, receiving, link = self._sending, self._receiving, self._link
        if sending.busy or receiving.busy:
            raise self._refusal("swapped with")
        self._halves = 2
        link.moving += 1
        receiving.start(link.parcel.incoming(self._peer), self._half_swapped)
        sending.send(link.parcel.outgoing(self._peer), self._half_swapped)

    def _refusal(self, act: str) -> ProtocolError:
        return ProtocolError(
            f"a model was to be {act} rank {self._peer} while one with it is under way; one at a time: wait for its end"
        )

    def _given(self) -> None:
        self._link.events.append(ModelGiven(self._peer))

    def _taken(self) -> None:
        self._link.events.append(ModelTaken(self._peer))

    def _half_swapped(self) -> None:
        self._halves -= 1
        if not self._halves:
            self._link.moving -= 1
            self._link.events.append(ModelSwapped(self._peer))
