"""The window of chunks of one MPI edge: order, whatever completes first, and when the peer counts as being at it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from consensus.errors import ProtocolError
from consensus.protocol.events import Event, ModelGiven, ModelSwapped, ModelTaken
from consensus.transport.base import Bytes
from consensus.transport.edge import WINDOW, Edge

PEER = 3


class Model:
    """Chunks of one byte that tell what became of them."""

    def __init__(self, count: int) -> None:
        self.chunks = [np.full(1, index, np.uint8) for index in range(count)]
        self.log: list[tuple[str, int, int]] = []

    def incoming(self, peer: int) -> int:
        """How many chunks a peer sends: as many as this rank has."""
        return len(self.chunks)

    def outgoing(self, peer: int) -> list[Bytes]:
        return self.chunks

    def lend(self, peer: int, index: int) -> Bytes:
        return np.zeros(1, np.uint8)

    def deliver(self, peer: int, index: int, data: Bytes) -> None:
        self.log.append(("deliver", peer, index))

    def release(self, peer: int, index: int) -> None:
        self.log.append(("release", peer, index))


class Wire:
    """A link and its communicator; a request completes when it is told to."""

    def __init__(self, count: int) -> None:
        self.comm: Any = self
        self.parcel = Model(count)
        self.requests: list[Any] = []
        self.events: list[Event] = []
        self.moving = self.bytes_sent = 0
        self._handlers: list[Callable[[], None]] = []
        self.edge = Edge(self, PEER, 2)

    def reserve(self, handler: Callable[[], None]) -> int:
        self.requests.append(None)
        self._handlers.append(handler)
        return len(self._handlers) - 1

    def vacate(self, place: int) -> Any:
        request, self.requests[place] = self.requests[place], None
        return request

    def Isend(self, data: Bytes, peer: int, tag: int) -> str:
        return "send"

    def Irecv(self, data: Bytes, peer: int, tag: int) -> str:
        return "receive"

    def under_way(self, kind: str) -> list[int]:
        return [place for place, request in enumerate(self.requests) if request == kind]

    def complete(self, place: int) -> None:
        self.requests[place] = None
        self._handlers[place]()

    def finish(self, kind: str) -> None:
        """Complete the latest request first, until there is none."""
        while places := self.under_way(kind):
            self.complete(places[-1])


@pytest.mark.parametrize("count", [1, WINDOW, WINDOW + 1, 7])
@pytest.mark.parametrize(
    ("act", "request_kind", "call", "event"),
    [("give", "send", "release", ModelGiven(PEER)), ("take", "receive", "deliver", ModelTaken(PEER))],
)
def test_chunks_move_in_order(act: str, request_kind: str, call: str, event: Event, count: int) -> None:
    wire = Wire(count)
    getattr(wire.edge, act)()
    assert len(wire.under_way(request_kind)) == min(WINDOW, count)
    assert wire.edge.busy
    wire.finish(request_kind)
    assert wire.parcel.log == [(call, PEER, index) for index in range(count)]
    assert wire.events == [event]
    assert not wire.edge.busy
    assert wire.bytes_sent == (count if act == "give" else 0)


def test_a_swap_ends_with_its_later_half() -> None:
    wire = Wire(3)
    wire.edge.swap()
    wire.finish("send")
    assert wire.events == []
    wire.finish("receive")
    assert wire.events == [ModelSwapped(PEER)]


def test_the_peer_is_at_it_from_the_first_chunk_of_a_give_or_take_and_all_through_a_swap() -> None:
    wire = Wire(3)
    wire.edge.take()
    wire.edge.give()
    waiting = wire.moving
    wire.complete(wire.under_way("receive")[0])
    taking = wire.moving
    wire.finish("receive")
    taken = wire.moving
    wire.finish("send")
    assert (waiting, taking, taken, wire.moving) == (0, 1, 0, 0)
    wire.edge.swap()
    assert wire.moving == 1
    wire.finish("send")
    assert wire.moving == 1
    wire.finish("receive")
    assert wire.moving == 0


def test_nothing_to_move_is_moved_at_once() -> None:
    wire = Wire(0)
    for act in (wire.edge.give, wire.edge.take, wire.edge.swap):
        act()
    assert wire.events == [ModelGiven(PEER), ModelTaken(PEER), ModelSwapped(PEER)]
    assert (wire.moving, wire.edge.busy) == (0, False)


@pytest.mark.parametrize(
    ("first", "refused"),
    [("give", ("give", "swap")), ("take", ("take", "swap")), ("swap", ("give", "take", "swap"))],
)
def test_one_transfer_of_a_direction_at_a_time(first: str, refused: tuple[str, ...]) -> None:
    wire = Wire(2)
    getattr(wire.edge, first)()
    before = list(wire.requests)
    for act in refused:
        with pytest.raises(ProtocolError, match=f"rank {PEER} .*under way"):
            getattr(wire.edge, act)()
    assert wire.requests == before


@pytest.mark.parametrize("moved", [0, 1])
@pytest.mark.parametrize("act", ["give", "take", "swap"])
def test_what_is_under_way_with_a_dead_peer_is_given_up(act: str, moved: int) -> None:
    wire = Wire(3)
    getattr(wire.edge, act)()
    for place in wire.under_way("send")[:moved] + wire.under_way("receive")[:moved]:
        wire.complete(place)
    waiting, told = sorted(request for request in wire.requests if request), list(wire.parcel.log)
    assert sorted(wire.edge.cut()) == waiting
    assert (wire.requests, wire.moving, wire.edge.busy) == ([None] * len(wire.requests), 0, False)
    for later in (wire.edge.give, wire.edge.take, wire.edge.swap):
        later()
    assert (wire.parcel.log, wire.events, wire.moving, wire.edge.busy) == (told, [], 0, False)
    assert not any(wire.requests)


def test_requests_that_completed_unseen_are_found() -> None:
    wire = Wire(3)
    wire.edge.swap()
    first, second = wire.under_way("receive")
    assert wire.edge.overlooked() == []
    wire.complete(second)
    # The second chunk was handled, though not yet handed over; the first is the one nobody has seen.
    wire.requests[first] = None
    assert wire.edge.overlooked() == [first]
    wire.complete(first)
    assert [entry for entry in wire.parcel.log if entry[0] == "deliver"] == [("deliver", PEER, 0), ("deliver", PEER, 1)]
    assert wire.edge.overlooked() == []
    wire.finish("receive")
    wire.finish("send")
    assert wire.events == [ModelSwapped(PEER)]
    assert wire.edge.overlooked() == []
