"""The contract of consensus/transport/base.py, kept by the loopback world and by MPI alike.

A scenario is what every rank does with its transport, and what must be true of all their results. It asserts nothing while it
runs, so that no rank waits for one that failed.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from itertools import cycle
from typing import Any, NamedTuple

import numpy as np
import pytest

from consensus.errors import ProtocolError
from consensus.protocol.events import Control, Event, ModelSwapped
from consensus.protocol.messages import WIRE_BYTES, Closed, Leave, Progress, Ready, Stop
from consensus.transport.base import Bytes, Transport
from consensus.transport.loopback import run

CHUNK = 1000
FOREVER = 60.0
LIMIT = 32


class Model:
    """A parcel that keeps what it is given."""

    def __init__(self, size: int = 0) -> None:
        self.bytes = np.zeros(size, np.uint8)
        self.seen: dict[int, list[tuple[int, bytes]]] = {}
        self.released: dict[int, list[int]] = {}

    @property
    def chunks(self) -> list[Bytes]:
        return [self.bytes[start : start + CHUNK] for start in range(0, len(self.bytes), CHUNK)]

    def lend(self, index: int) -> Bytes:
        return np.empty_like(self.chunks[index])

    def release(self, peer: int, index: int) -> None:
        self.released.setdefault(peer, []).append(index)

    def deliver(self, peer: int, index: int, data: Bytes) -> None:
        self.seen.setdefault(peer, []).append((index, data.tobytes()))


def others(transport: Transport) -> list[int]:
    return [rank for rank in range(transport.size) if rank != transport.rank]


def ring(transport: Transport) -> list[int]:
    return sorted({(transport.rank - 1) % transport.size, (transport.rank + 1) % transport.size} - {transport.rank})


def nobody(transport: Transport) -> list[int]:
    return []


GRAPHS = (ring, others, nobody)


class Ear:
    """What happens to one rank, one event at a time, with the goodbyes sorted out."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._batch: list[Event] = []
        self.left: set[int] = set()

    def next(self) -> Event | None:
        """The next event; None for a goodbye. Ends the test if nothing happens."""
        if not self._batch:
            self._batch = self._transport.wait(self._transport.now() + FOREVER)[::-1]
        if not self._batch:
            raise TimeoutError(f"rank {self._transport.rank}: nothing happened for {FOREVER} s")
        event = self._batch.pop()
        if isinstance(event, Control) and isinstance(event.message, Leave):
            self.left.add(event.peer)
            return None
        return event

    def take(self, count: int) -> list[Event]:
        """The next ``count`` events that are no goodbyes."""
        taken: list[Event] = []
        while len(taken) < count:
            if (event := self.next()) is not None:
                taken.append(event)
        return taken

    def leave(self) -> list[Event]:
        """Say goodbye, and disconnect when everybody has; returns what happened before."""
        transport, seen = self._transport, []
        for peer in others(transport):
            transport.send(peer, Leave(transport.rank))
        while len(self.left) < transport.size - 1:
            if (event := self.next()) is not None:
                seen.append(event)
        transport.disconnect()
        return seen


def leave(transport: Transport) -> list[Event]:
    return Ear(transport).leave()


def say(transport: Transport, k: int) -> Stop:
    return Stop(k * transport.size + transport.rank)


def thousand_messages(transport: Transport) -> list[list[Event]]:
    seen = []
    for graph in GRAPHS:
        transport.connect(graph(transport), Model())
        for k in range(1000):
            for peer in others(transport):
                transport.send(peer, say(transport, k))
        seen.append(leave(transport))
    return seen


def came_in_order(results: list[list[list[Event]]]) -> None:
    size = len(results)
    for rank, connections in enumerate(results):
        for seen in connections:
            for peer in set(range(size)) - {rank}:
                came = [event.message for event in seen if event.peer == peer]
                assert came == [Stop(k * size + peer) for k in range(1000)]


SIZES = (0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 20 * CHUNK, 20 * CHUNK + 7)
ROUNDS = 3


def pattern(rank: int, round: int, size: int) -> Bytes:
    return (np.arange(size) * (rank + 3) + round).astype(np.uint8)


def swap_models(transport: Transport) -> list[Any]:
    """Swap on all edges at once, several rounds; the model is written as soon as it has been sent."""
    seen = []
    for size in SIZES:
        model = Model(size)
        transport.connect(others(transport), model)
        ear = Ear(transport)
        for round in range(ROUNDS):
            model.bytes[:] = pattern(transport.rank, round, size)
            for peer in others(transport):
                transport.swap(peer, round, round)
            came = ear.take(transport.size - 1)
            seen.append((size, round, came, model.seen, model.released))
            model.seen, model.released = {}, {}
        ear.leave()
    return seen


def models_are_whole(results: list[Any]) -> None:
    ranks = set(range(len(results)))
    for rank, rounds in enumerate(results):
        peers = ranks - {rank}
        assert [(size, round) for size, round, *_ in rounds] == [(size, round) for size in SIZES for round in range(ROUNDS)]
        for size, round, came, seen, released in rounds:
            assert set(came) == {ModelSwapped(peer) for peer in peers}
            for peer in peers:
                chunks = seen.get(peer, [])
                assert [index for index, _ in chunks] == list(range(-(-size // CHUNK)))
                assert released.get(peer, []) == [index for index, _ in chunks]
                assert b"".join(data for _, data in chunks) == pattern(peer, round, size).tobytes()


def connect_again(transport: Transport) -> list[tuple[int, list[Event]]]:
    """Connections of different graphs follow each other without a barrier, ranks being late in turn."""
    seen = []
    for turn, graph in zip(range(12), cycle(GRAPHS), strict=False):
        if turn % transport.size == transport.rank:
            transport.sleep(2e-3)
        transport.connect(graph(transport), Model())
        for peer in others(transport):
            transport.send(peer, say(transport, turn))
        seen.append((turn, leave(transport)))
    return seen


def connections_are_apart(results: list[list[tuple[int, list[Event]]]]) -> None:
    for connections in results:
        for turn, seen in connections:
            assert {event.message.reason // len(results) for event in seen} == {turn}
            assert len(seen) == len(results) - 1


def leave_together(transport: Transport) -> list[Event]:
    transport.connect(ring(transport), Model())
    return leave(transport)


def nothing_else(results: list[list[Event]]) -> None:
    assert results == [[]] * len(results)


def announce_to_the_silent(transport: Transport) -> tuple[int, list[Event]]:
    """Everybody announces thousands of rounds before it looks at a single message."""
    transport.connect(ring(transport), Model())
    before = transport.bytes_sent
    for round in range(1, 5001):
        for peer in others(transport):
            transport.send(peer, Ready(round))
            if round < 5000:
                transport.send(peer, Closed(round, 0))
    stored = (transport.bytes_sent - before) // WIRE_BYTES
    return stored, leave(transport)


def little_is_stored(results: list[tuple[int, list[Event]]]) -> None:
    size = len(results)
    for rank, (stored, seen) in enumerate(results):
        assert stored == LIMIT * (size - 1)
        for peer in set(range(size)) - {rank}:
            came = [event.message for event in seen if event.peer == peer]
            assert came[-1] == Ready(5000)
            assert len(came) <= LIMIT + 1


def report_to_a_listener(transport: Transport) -> list[int]:
    """The last rank says nothing until it has heard everybody's last report, and nobody else says goodbye before it does."""
    transport.connect(ring(transport), Model())
    ear, listener = Ear(transport), transport.size - 1
    heard: dict[int, int] = {}
    if transport.rank == listener:
        while len(heard) < listener or min(heard.values()) < 500:
            for event in ear.take(1):
                heard[event.peer] = event.message.samples
    else:
        for samples in range(1, 501):
            transport.send(listener, Progress(samples))
        while listener not in ear.left:
            ear.next()
    ear.leave()
    return sorted(heard.values())


def listener_heard_all(results: list[list[int]]) -> None:
    assert results == [[]] * (len(results) - 1) + [[500] * (len(results) - 1)]


def collect(transport: Transport) -> tuple[Any, ...]:
    letters = np.full(25, transport.rank, np.uint8)
    transport.broadcast(letters, root=transport.size - 1)
    first = np.full(25, transport.rank, np.uint8)
    transport.broadcast(first)
    table = np.arange(24, dtype=np.float64).reshape(4, 6) * (transport.rank + 1)
    transport.sum(table)
    empty = np.zeros(0)
    transport.sum(empty)
    return letters.tolist(), first.tolist(), table.tolist(), transport.gather({"rank": transport.rank})


def collections_agree(results: list[tuple[Any, ...]]) -> None:
    size = len(results)
    factor = size * (size + 1) / 2
    table = (np.arange(24.0).reshape(4, 6) * factor).tolist()
    assert results == [([size - 1] * 25, [0] * 25, table, [{"rank": rank} for rank in range(size)])] * size


def misuse(transport: Transport) -> list[str]:
    """What is refused leaves the transport as it was."""
    refused = []

    def attempt(act: Callable[[], Any]) -> None:
        try:
            act()
        except ProtocolError as error:
            refused.append(str(error))

    attempt(lambda: transport.send(0, Ready(1)))
    attempt(transport.poll)
    attempt(lambda: transport.wait(None))
    attempt(transport.disconnect)
    transport.connect(ring(transport), Model(5))
    attempt(lambda: transport.connect([], Model()))
    attempt(transport.disconnect)
    attempt(lambda: transport.gather(0))
    attempt(lambda: transport.sum(np.zeros(1)))
    attempt(lambda: transport.broadcast(np.zeros(1, np.uint8)))
    peer = ring(transport)[0]
    for neighbour in ring(transport):
        transport.swap(neighbour, 1, 1)
    attempt(lambda: transport.swap(peer, 1, 1))
    ear = Ear(transport)
    came = ear.take(len(ring(transport)))
    ear.leave()
    return [*refused, f"{len(came)} events"]


def all_refused(results: list[list[str]]) -> None:
    for rank, refused in enumerate(results):
        acts = ["call connect first"] * 4 + ["disconnect first", "only after Finish"] + ["disconnect first"] * 3 + ["under way"]
        assert len(refused) == len(acts) + 1
        for message, act in zip(refused, acts, strict=False):
            assert act in message, f"rank {rank}: {message}"


def look_and_wait(transport: Transport) -> tuple[int, list[Event]]:
    """A wait ends when its time has come, though nothing does: whoever waits first hears nobody."""
    transport.connect(ring(transport), Model())
    seen = transport.poll() + transport.wait(transport.now() - 1)
    until = transport.now() + 2e-3
    while transport.now() < until:
        seen += transport.wait(until)
    for peer in others(transport):
        transport.send(peer, Leave(transport.rank))
    while len(seen) < transport.size - 1:
        seen += transport.wait(None)
    transport.disconnect()
    return transport.rank, seen


def only_goodbyes(results: list[tuple[int, list[Event]]]) -> None:
    for rank, seen in results:
        assert sorted(seen) == [Control(peer, Leave(peer)) for peer in range(len(results)) if peer != rank]


class Scenario(NamedTuple):
    act: Callable[[Any], Any]
    check: Callable[[list[Any]], None]


SCENARIOS = [
    Scenario(thousand_messages, came_in_order),
    Scenario(swap_models, models_are_whole),
    Scenario(connect_again, connections_are_apart),
    Scenario(leave_together, nothing_else),
    Scenario(announce_to_the_silent, little_is_stored),
    Scenario(report_to_a_listener, listener_heard_all),
    Scenario(collect, collections_agree),
    Scenario(misuse, all_refused),
    Scenario(look_and_wait, only_goodbyes),
]

scenarios = pytest.mark.parametrize("scenario", SCENARIOS, ids=[scenario.act.__name__ for scenario in SCENARIOS])


@scenarios
@pytest.mark.parametrize("size", [2, 3, 5])
def test_loopback(scenario: Scenario, size: int) -> None:
    scenario.check(run(size, scenario.act, seed=size))


@pytest.mark.mpi(min_size=2)
@scenarios
def test_mpi(scenario: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    from mpi4py import MPI

    from consensus.transport import mpi

    monkeypatch.setattr(mpi, "COLLECTIVE_ELEMENTS", 7)
    transport = mpi.MpiTransport()
    try:
        result = scenario.act(transport)
    except BaseException:
        traceback.print_exc()
        MPI.COMM_WORLD.Abort(1)
    results = transport.gather(result)
    transport.close()
    scenario.check(results)
