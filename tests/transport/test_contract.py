"""The contract of consensus/transport/base.py, kept by the loopback world and by MPI alike.

A scenario is what every rank does with its transport, and what must be true of all their results. It asserts nothing while it
runs, so that no rank waits for one that failed.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from consensus.errors import ProtocolError
from consensus.protocol.events import Control, Event, ModelGiven, ModelSwapped, ModelTaken
from consensus.protocol.messages import WIRE_BYTES, Closed, Leave, Progress, Ready, Stop
from consensus.transport.base import Bytes, Transport
from consensus.transport.loopback import run

CHUNK = 1000
FOREVER = 60.0
LIMIT = 32


class Model:
    """A parcel that keeps what it is given, and sends its bytes to all but those for whom there are others in ``special``."""

    def __init__(self, size: int = 0, chunk: int = CHUNK) -> None:
        self.bytes = np.zeros(size, np.uint8)
        self.chunk = chunk
        self.special: dict[int, Bytes] = {}
        self.seen: dict[int, list[tuple[int, bytes]]] = {}
        self.released: dict[int, list[int]] = {}

    @property
    def chunks(self) -> list[Bytes]:
        return cut(self.bytes, self.chunk)

    def incoming(self, peer: int) -> int:
        """How many chunks a peer sends: as many as this rank has."""
        return len(self.chunks)

    def outgoing(self, peer: int) -> list[Bytes]:
        return cut(self.special.get(peer, self.bytes), self.chunk)

    def lend(self, peer: int, index: int) -> Bytes:
        return np.full_like(self.chunks[index], peer)

    def release(self, peer: int, index: int) -> None:
        self.released.setdefault(peer, []).append(index)

    def deliver(self, peer: int, index: int, data: Bytes) -> None:
        self.seen.setdefault(peer, []).append((index, data.tobytes()))


def cut(memory: Bytes, length: int) -> list[Bytes]:
    return [memory[start : start + length] for start in range(0, len(memory), length)]


def in_chunks(*models: Bytes, length: int = CHUNK) -> list[tuple[int, bytes]]:
    """What a peer's chunks are when it has sent ``models``, one after the other."""
    return [(index, chunk.tobytes()) for model in models for index, chunk in enumerate(cut(model, length))]


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

    def look(self) -> list[Event]:
        """What is there already and no goodbye, without waiting."""
        self._batch = [*self._transport.poll()[::-1], *self._batch]
        waiting = len(self._batch)
        return [event for event in (self.next() for _ in range(waiting)) if event is not None]

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
    attempt(lambda: transport.give(peer))
    attempt(lambda: transport.take(peer))
    ear = Ear(transport)
    came = ear.take(len(ring(transport)))
    for act in (transport.give, transport.take, lambda rank: transport.swap(rank, 1, 1)):
        attempt(partial(act, transport.rank))
    ear.leave()
    return [*refused, f"{len(came)} events"]


def all_refused(results: list[list[str]]) -> None:
    for rank, refused in enumerate(results):
        acts = ["call connect first"] * 4 + ["disconnect first", "only after Finish"] + ["disconnect first"] * 3
        acts += ["under way"] * 3 + ["not its neighbour"] * 3
        assert len(refused) == len(acts) + 1
        for message, act in zip(refused, acts, strict=False):
            assert act in message, f"rank {rank}: {message}"


LONG = 20 * CHUNK + 7


def start_twice(transport: Transport) -> tuple[list[tuple[int, str]], list[Event], dict[int, list[tuple[int, bytes]]]]:
    """A second give (take) is refused, names the peer and does no harm; nobody may go while one is under way."""
    refused: list[tuple[int, str]] = []
    model = Model(LONG)
    model.bytes[:] = pattern(transport.rank, 0, LONG)
    transport.connect(others(transport), model)
    ear, peers = Ear(transport), others(transport)

    def attempt(peer: int, act: Callable[[], Any]) -> None:
        try:
            act()
        except ProtocolError as error:
            refused.append((peer, str(error)))

    for peer in peers:
        transport.take(peer)
        attempt(peer, partial(transport.take, peer))
        attempt(peer, partial(transport.swap, peer, 1, 1))
        transport.send(peer, Leave(transport.rank))
    heard: list[Event] = []
    while len(ear.left) < len(peers):
        heard += filter(None, [ear.next()])
    for peer in peers:
        transport.give(peer)
        attempt(peer, partial(transport.give, peer))
        attempt(peer, partial(transport.swap, peer, 1, 1))
    # Everybody has said goodbye by now: the models alone are in the way.
    attempt(peers[0], transport.disconnect)
    heard += ear.take(2 * len(peers) - len(heard))
    transport.disconnect()
    return refused, heard, model.seen


def second_refused(results: list[tuple[list[tuple[int, str]], list[Event], dict[int, list[tuple[int, bytes]]]]]) -> None:
    for rank, (refused, heard, seen) in enumerate(results):
        peers = [peer for peer in range(len(results)) if peer != rank]
        assert [peer for peer, _ in refused] == [*np.repeat(peers, 2), *np.repeat(peers, 2), peers[0]]
        assert all("under way" in message for _, message in refused)
        assert all(f"rank {peer}" in message for peer, message in refused[:-1])
        assert f"with ranks {peers}" in refused[-1][1]
        assert sorted(map(repr, heard)) == sorted(repr(kind(peer)) for kind in (ModelTaken, ModelGiven) for peer in peers)
        assert seen == {peer: in_chunks(pattern(peer, 0, LONG)) for peer in peers}


def serve(transport: Transport) -> list[tuple[Any, ...]]:
    """Rank 0 gives each worker weights of its own and takes gradients, in as many rounds a worker as its number and two.

    A worker gives the gradient of one round while it takes the weights of the next, and both send control messages meanwhile.
    """
    seen = []
    for size in SIZES:
        model, worker = Model(size), transport.rank
        transport.connect(others(transport) if worker == 0 else [0], model)
        ear = Ear(transport)
        rounds = {0: worker + 2} if worker else {peer: peer + 2 for peer in others(transport)}
        given, taken, heard = (dict.fromkeys(rounds, 0) for _ in range(3))
        messages: list[Event] = []

        def begin(peer: int, sent: int, model: Model = model, size: int = size) -> None:
            # Own memory for every peer: what is outgoing to one is written while that to another is still being sent.
            model.special[peer] = pattern(transport.rank, 10 * sent + peer, size)
            transport.send(peer, Progress(sent))
            transport.give(peer)

        for peer in rounds:
            transport.take(peer)
            begin(peer, 0)
        while given != rounds or taken != rounds or heard != rounds:
            (event,) = ear.take(1)
            peer = event.peer
            if isinstance(event, ModelGiven):
                given[peer] += 1
                model.special[peer][:] = 0
                if given[peer] < rounds[peer]:
                    begin(peer, given[peer])
            elif isinstance(event, ModelTaken):
                taken[peer] += 1
                if taken[peer] < rounds[peer]:
                    transport.take(peer)
            else:
                messages.append(event)
                heard[peer] += 1
        seen.append((size, messages, ear.leave(), model.seen, model.released))
    return seen


def served(results: list[list[tuple[Any, ...]]]) -> None:
    for rank, seen in enumerate(results):
        rounds = {0: rank + 2} if rank else {peer: peer + 2 for peer in range(1, len(results))}
        assert [size for size, *_ in seen] == list(SIZES)
        for size, messages, rest, came, released in seen:
            assert rest == []
            for peer, count in rounds.items():
                assert [event for event in messages if event.peer == peer] == [Control(peer, Progress(n)) for n in range(count)]
                chunks = in_chunks(*(pattern(peer, 10 * sent + rank, size) for sent in range(count)))
                assert came.get(peer, []) == chunks
                assert released.get(peer, []) == [index for index, _ in chunks]


LARGE = 100_000
"""A chunk that no MPI library sends before it is asked for."""


def take_late(transport: Transport) -> tuple[list[Event], dict[int, list[tuple[int, bytes]]]]:
    """Rank 0 gives five models in a row to everybody; nobody takes before it has heard a message sent after the first give."""
    model, turns = Model(5 * LARGE + 7, LARGE), 5
    transport.connect(others(transport) if transport.rank == 0 else [0], model)
    ear = Ear(transport)
    order: list[Event] = []
    if transport.rank == 0:
        peers = others(transport)
        left = dict.fromkeys(peers, turns)
        for peer in peers:
            model.special[peer] = pattern(0, 0, 5 * LARGE + 7)
            transport.give(peer)
        for peer in peers:
            transport.send(peer, Ready(1))
        while any(left.values()):
            (event,) = ear.take(1)
            order.append(event)
            left[event.peer] -= 1
            if left[event.peer]:
                model.special[event.peer] = pattern(0, turns - left[event.peer], 5 * LARGE + 7)
                transport.give(event.peer)
    else:
        order += ear.take(1)
        for _ in range(turns):
            order += ear.look()
            transport.sleep(1e-3)
            transport.take(0)
            order += ear.take(1)
    return order + ear.leave(), model.seen


def models_wait_for_the_late(results: list[tuple[list[Event], dict[int, list[tuple[int, bytes]]]]]) -> None:
    workers = range(1, len(results))
    for worker in workers:
        order, seen = results[worker]
        assert order == [Control(0, Ready(1))] + [ModelTaken(0)] * 5
        assert seen == {0: in_chunks(*(pattern(0, turn, 5 * LARGE + 7) for turn in range(5)), length=LARGE)}
    assert sorted(results[0][0]) == sorted([ModelGiven(peer) for peer in workers] * 5)


def swap_and_give(transport: Transport) -> list[Any]:
    """Swaps, gives and takes of one edge follow each other without a pause."""
    model = Model(LONG)
    transport.connect(others(transport), model)
    ear, peers = Ear(transport), others(transport)
    seen: list[Any] = []
    for turn in range(4):
        model.bytes[:] = pattern(transport.rank, turn, LONG)
        for peer in peers:
            if turn % 2:
                transport.give(peer)
                transport.take(peer)
            else:
                transport.swap(peer, turn, turn)
        seen.append(sorted(map(repr, ear.take(len(peers) * (1 + turn % 2)))))
    return [*seen, ear.leave(), model.seen]


def turns_are_apart(results: list[Any]) -> None:
    for rank, (*turns, rest, seen) in enumerate(results):
        peers = [peer for peer in range(len(results)) if peer != rank]
        for turn, came in enumerate(turns):
            kinds = (ModelGiven, ModelTaken) if turn % 2 else (ModelSwapped,)
            assert came == sorted(repr(kind(peer)) for kind in kinds for peer in peers)
        assert rest == []
        assert seen == {peer: in_chunks(*(pattern(peer, turn, LONG) for turn in range(4))) for peer in peers}


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
    Scenario(start_twice, second_refused),
    Scenario(serve, served),
    Scenario(take_late, models_wait_for_the_late),
    Scenario(swap_and_give, turns_are_apart),
    Scenario(look_and_wait, only_goodbyes),
]

scenarios = pytest.mark.parametrize("scenario", SCENARIOS, ids=[scenario.act.__name__ for scenario in SCENARIOS])


@scenarios
@pytest.mark.parametrize("size", [2, 3, 5])
def test_loopback(scenario: Scenario, size: int) -> None:
    scenario.check(run(size, scenario.act, seed=size))


@pytest.mark.mpi(min_size=2)
def test_one_look_finds_what_has_come(tmp_path: Path) -> None:
    """Rank 0 looks for the first time when the others' messages have long been sent, and has not let MPI progress before."""
    from mpi4py import MPI

    from consensus.transport.mpi import MpiTransport

    comm = MPI.COMM_WORLD
    folder = comm.bcast(tmp_path)
    transport = MpiTransport()
    transport.connect(others(transport), Model())
    first: list[Event] = []
    if transport.rank == 0:
        while not all((folder / str(peer)).exists() for peer in others(transport)):
            os.sched_yield()
        first = transport.poll()
    else:
        transport.send(0, Ready(transport.rank))
        (folder / str(transport.rank)).touch()
    came = first + leave(transport)
    results = transport.gather((len(first), came))
    transport.close()
    looked, came = results[0]
    assert looked > 0
    assert sorted(came) == [Control(peer, Ready(peer)) for peer in range(1, len(results))]


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
