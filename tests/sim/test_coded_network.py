"""Master, edges and workers on a virtual clock: what holds whatever the times, and where theory knows."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from consensus.coding.layout import Layout
from consensus.errors import CodingError
from consensus.protocol.events import Applied, Control, Event, GradientTaken, ModelTaken
from consensus.protocol.messages import Leave
from consensus.protocol.rounds import Phase, RoundRecord
from consensus.protocol.service import PushMode
from consensus.rules.coded import Sufficient
from consensus.sim.coded import CodedNetwork
from consensus.sim.sites import Chunks
from consensus.timing import Constant, Link, Pareto, ShiftedExponential, Stream


class AnyOf:
    """A code of which any so many nodes are enough, whichever."""

    def __init__(self, size: int, needed: int) -> None:
        self.participants, self.needed = tuple(range(size)), needed

    def sufficient(self, alive: Iterable[int]) -> bool:
        return len(set(alive)) >= self.needed


INSTANT = Link(latency=0.0, bandwidth=math.inf)


class Site:
    """Sends and keeps version numbers in place of models."""

    def __init__(self) -> None:
        self.here: dict[int, int] = {}
        self.version = 0

    def release(self, peer: int, index: int) -> None:
        """The chunk is a copy."""

    def lend(self, peer: int, index: int) -> NDArray[np.uint8]:
        return np.zeros(8, np.uint8)

    def deliver(self, peer: int, index: int, data: NDArray[np.uint8]) -> None:
        self.here[peer] = int(data.view(np.int64)[0])

    def outgoing(self, peer: int) -> Chunks:
        return [np.array([self.version], np.int64).view(np.uint8)]

    def discard(self, peer: int) -> None:
        del self.here[peer]


class Worker(Site):
    def __init__(self, above: int) -> None:
        super().__init__()
        self.above = above
        self.steps: list[int] = []

    def step(self, round: int) -> float:
        assert round == self.version
        self.steps.append(round)
        return 1.0

    def taken(self, peer: int) -> Event:
        assert peer == self.above
        return ModelTaken(peer)

    def install(self) -> None:
        assert self.here[self.above] > self.version
        self.version = self.here[self.above]


class Relay(Site):
    """What goes up is the version that was combined last, what goes down the one that is present."""

    def __init__(self) -> None:
        super().__init__()
        self.combined: list[tuple[int, tuple[int, ...]]] = []

    def outgoing(self, peer: int) -> Chunks:
        version = self.combined[-1][0] if peer == 0 else self.version
        return [np.array([version], np.int64).view(np.uint8)]

    def taken(self, peer: int) -> Event:
        return ModelTaken(peer) if peer == 0 else GradientTaken(peer, 0.0)

    def install(self) -> None:
        assert self.here[0] > self.version
        self.version = self.here.pop(0)

    def apply(self, workers: Sequence[int], factor: float) -> Event:
        assert {self.here.pop(worker) for worker in workers} == {self.version}
        self.combined.append((self.version, tuple(workers)))
        return Applied(0.0, factor)


class Master(Site):
    def __init__(self) -> None:
        super().__init__()
        self.updates: list[tuple[int, ...]] = []

    def taken(self, peer: int) -> Event:
        return GradientTaken(peer, 0.0)

    def apply(self, workers: Sequence[int], factor: float) -> Event:
        assert {self.here.pop(worker) for worker in workers} == {self.version}
        self.updates.append(tuple(workers))
        self.version += 1
        return Applied(0.0, factor)


class World:
    """A network whose sites keep account of everything."""

    def __init__(
        self,
        layout: Sequence[int],
        streams: Sequence[Stream],
        link: Link,
        push: PushMode,
        silent: tuple[int, int],
        limit: int | None,
        edges: bool = True,
    ) -> None:
        seats = Layout(tuple(layout), relayed=edges)
        self.master, self.relays = Master(), [Relay() for _ in layout[: len(layout) * edges]]
        above = [edge for edge, count in enumerate(layout, 1) for _ in range(count)]
        self.workers = [Worker(edge if edges else 0) for edge in above]
        self.rounds: list[tuple[int, RoundRecord]] = []
        self.network = CodedNetwork(
            seats,
            Sufficient(AnyOf(len(seats.below), len(seats.below) - silent[0]), 1),
            [Sufficient(AnyOf(len(own), len(own) - silent[1]), own.start) for own in seats.workers] if edges else [],
            streams,
            link,
            limit=limit,
            push=push,
            sites=(self.master, self.relays, self.workers),
            model_bytes=100,
            payload_bytes=200,
            on_round=lambda rank, record, seconds: self.rounds.append((rank, record)),
        )
        assert self.network.size == seats.size


@given(
    layout=st.lists(st.integers(1, 4), min_size=1, max_size=4),
    data=st.data(),
    push=st.sampled_from(["wait", "interrupt"]),
    edges=st.booleans(),
    seed=st.integers(0, 99),
    link=st.sampled_from([INSTANT, Link(latency=0.3, bandwidth=math.inf), Link(latency=0.0, bandwidth=300.0)]),
)
@settings(deadline=None, max_examples=150)
def test_every_update_takes_enough_of_one_version(
    layout: list[int], data: st.DataObject, push: PushMode, edges: bool, seed: int, link: Link
) -> None:
    top = len(layout) if edges else sum(layout)
    silent = data.draw(st.integers(0, top - 1)), data.draw(st.integers(0, min(layout) - 1))
    streams = [Pareto(scale=1.0, shape=1.5).stream(worker, seed) for worker in range(sum(layout))]
    world = World(layout, streams, link, push, silent, limit=12, edges=edges)
    world.network.run()
    assert len(world.master.updates) == world.master.version == 12
    assert all(len(set(update)) == len(update) >= top - silent[0] for update in world.master.updates)
    for relay, count in zip(world.relays, layout, strict=edges):
        versions = [version for version, _ in relay.combined]
        assert versions == sorted(set(versions))
        assert all(len(set(senders)) == len(senders) >= count - silent[1] for _, senders in relay.combined)
    for worker in world.workers:
        assert worker.steps == sorted(set(worker.steps))
    assert not any(math.isnan(ended) for ended in world.network.ended_at)
    assert [record.round for rank, record in world.rounds if rank == 0] == list(range(1, 13))


class Silent:
    """Steps of 1 s, but in those named it is as good as dead."""

    def __init__(self, when: set[int]) -> None:
        self.when = when

    def stream(self) -> Stream:
        return Stream(1e9 if step in self.when else 1.0 for step in iter(range(10**6)))


def test_nobody_waits_for_the_silent() -> None:
    """In every step another worker of each edge is silent, and all of one edge: an update a second goes on."""
    layout, steps = (2, 3, 4), 30
    streams = []
    for edge, count in enumerate(layout):
        for worker in range(count):
            silent = {step for step in range(steps) if step % count == worker or step % len(layout) == edge}
            streams.append(Silent(silent).stream())
    world = World(layout, streams, INSTANT, "interrupt", (1, 1), limit=steps)
    world.network.run()
    assert world.network.ended_at == [float(steps)] * world.network.size
    assert [len(update) for update in world.master.updates] == [2] * steps


def test_the_slow_work_on_the_newest_that_they_can() -> None:
    """A worker that takes ten times as long works on every tenth version, not on each after the other."""
    times = [Constant(seconds=seconds).stream(0, 0) for seconds in (1.0, 1.0, 9.6)]
    world = World((3,), times, INSTANT, "wait", (0, 1), limit=60)
    world.network.run()
    assert world.network.ended_at[0] == 60.0
    assert world.workers[2].steps[:5] == [0, 9, 19, 28, 38]
    assert world.workers[0].steps == list(range(60))


def test_a_code_of_one_layer_takes_order_statistics_of_exponentials() -> None:
    """Without edges, from common starts: updates take the k-th smallest of n, whose mean is a sum of harmonic terms."""
    n, k, updates = 6, 4, 4_000
    streams = [ShiftedExponential(shift=0.0, mean=1.0).stream(worker, 5) for worker in range(n)]
    world = World((n,), streams, INSTANT, "interrupt", (n - k, 0), limit=updates, edges=False)
    world.network.run()
    expected = sum(1 / (n - i) for i in range(k))
    assert world.network.kernel.now / updates == pytest.approx(expected, rel=0.03)


def test_too_many_departures_end_training_and_say_so() -> None:
    streams = [Constant(seconds=1.0).stream(worker, 0) for worker in range(6)]
    world = World((3, 3), streams, INSTANT, "wait", (1, 1), limit=100)

    def leave(rank: int) -> None:
        for node in world.network.nodes:
            if node.engine.rank != rank and node.engine.phase is not Phase.FINISHED:
                node.take(Control(rank, Leave(rank)))

    world.network.kernel.at(1.5, leave, 3)
    world.network.kernel.at(5.5, leave, 4)
    world.network.run(until=10.2)
    # The first edge has one worker of three: too few, so it is silent, which the master tolerates.
    assert world.network.nodes[1].engine.phase is Phase.LEFT
    assert len(world.master.updates) == 10
    assert world.master.updates[1:] == [(1, 2)] * 4 + [(2,)] * 5 or {*world.master.updates[6:]} == {(2,)}
    world.network.kernel.at(10.5, leave, 6)
    world.network.kernel.at(11.5, leave, 7)
    with pytest.raises(CodingError, match=r"of ranks \[1, 2\], which send to the master, only \[\] are left"):
        world.network.run()


def test_training_ends_when_the_master_is_told_so() -> None:
    streams = [Constant(seconds=1.0).stream(worker, 0) for worker in range(4)]
    world = World((2, 2), streams, Link(latency=0.25, bandwidth=math.inf), "wait", (0, 0), limit=None)
    world.network.kernel.at(20.1, lambda _: world.network.stop(), None)
    world.network.run()
    assert world.network.ended_at[0] < 22
    # A step, and on each of four ways an announcement and a transfer; half of that lies before the first update.
    assert len(world.master.updates) == 1 + int((20.1 - 2.0) / 3.0)
