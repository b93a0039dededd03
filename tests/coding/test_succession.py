"""Updates that follow one another: the same, moment by moment, as those that the engines make on the virtual clock."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

import numpy as np
import pytest

from consensus.coding import GradientCode, construct
from consensus.coding.layout import MASTER, Layout
from consensus.coding.runtime import Sample, Tolerance, samples
from consensus.coding.succession import ROWS, Push, Succession, course, update_seconds
from consensus.coding.system import Edge, System, Worker
from consensus.errors import ConfigError
from consensus.protocol.rounds import RoundRecord
from consensus.rules.coded import Sufficient
from consensus.sim.coded import CodedNetwork
from consensus.timing import Stream
from consensus.types import Rank, Seconds


class Drawn:
    """What nodes take on the virtual clock: of the weights of each version, what the sample of that update says."""

    network: CodedNetwork

    def __init__(self, code: GradientCode, drawn: Sequence[Sample]) -> None:
        self._code, self._drawn = code, drawn
        layout = Layout(code.workers_per_edge)
        self._edges = {rank: edge for edge, rank in enumerate(layout.edges)}
        self._seats = {rank: (edge, seat) for edge, own in enumerate(layout.workers) for seat, rank in enumerate(own)}

    def duration(self, giver: Rank, taker: Rank, nbytes: int) -> Seconds:
        """Of a transfer; messages take no time."""
        if not nbytes:
            return 0.0
        engine: Any = self.network.nodes[giver].engine
        version = engine.version if giver in self._seats else engine.view.version
        drawn, lower, down = self._drawn[version], max(giver, taker), giver < taker
        if lower in self._edges:
            return float((drawn.edge_down if down else drawn.edge_up)[0, self._edges[lower]])
        return float((drawn.down if down else drawn.up)[0][self._seats[lower]])

    def steps(self, rank: Rank) -> Iterator[Seconds]:
        """Of a worker's computing."""
        load = len(self._code.assignment(*self._seats[rank]))
        while True:
            engine: Any = self.network.nodes[rank].engine
            yield load * float(self._drawn[engine.version].part[0][self._seats[rank]])


def by_engines(code: GradientCode, drawn: Sequence[Sample], push: Push) -> list[Seconds]:
    """When the master's engine makes its updates."""
    layout = Layout(code.workers_per_edge)
    taken = Drawn(code, drawn)
    times: list[Seconds] = []

    def note(rank: Rank, record: RoundRecord, compute: Seconds) -> None:
        if rank == MASTER:
            times.append(network.kernel.now)

    network = taken.network = CodedNetwork(
        layout,
        Sufficient(code.master, layout.below.start),
        [Sufficient(layer, own.start) for layer, own in zip(code.edges, layout.workers, strict=True)],
        [Stream(taken.steps(rank)) for own in layout.workers for rank in own],
        taken,
        limit=len(drawn),
        push=push,
        model_bytes=1,
        payload_bytes=1,
        control_bytes=0,
        on_round=note,
    )
    network.run()
    return times


def by_model(code: GradientCode, drawn: Sequence[Sample], push: Push) -> list[Seconds]:
    succession = Succession(code, push, rows=1)
    return [float(succession.advance(sample)[0]) for sample in drawn]


def draw(system: System, updates: int, seed: int = 0) -> list[Sample]:
    return list(samples(system, updates, seed, block=1))


def random_system(
    generator: np.random.Generator, workers_per_edge: tuple[int, ...], part: float = 1.0, edge: float = 1.0
) -> System:
    """Some nodes are much slower than others, for good or by chance. A part, and an edge's transfer, take so many others."""

    def seconds() -> float:
        return float(generator.uniform(0.5, 1.5) * generator.choice([1.0, 5.0], p=[0.75, 0.25]))

    def workers(count: int) -> list[Worker]:
        return [Worker(c=0.2 * part * seconds(), gamma=1 / part, tau=0.7 * seconds(), p=0.2) for _ in range(count)]

    return System([Edge(workers=workers(count), tau=edge * seconds(), p=0.4) for count in workers_per_edge])


@pytest.mark.parametrize("push", ["wait", "interrupt"])
@pytest.mark.parametrize(
    ("counts", "tolerances"),
    [
        ((3,), [(0, 0), (0, 1), (0, 2)]),
        ((2, 3, 4), [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1)]),
        ((3, 3, 9), [(1, 0), (1, 1), (1, 2)]),
        ((6, 8, 9), [(0, 3), (1, 5)]),
    ],
)
def test_updates_are_made_when_the_engines_make_them(counts: tuple[int, ...], tolerances: list[Tolerance], push: Push) -> None:
    generator = np.random.default_rng((9, *counts))
    for tolerance, scales in product(tolerances, [(1.0, 1.0), (0.03, 1.0), (0.03, 0.03)]):
        drawn = draw(random_system(generator, counts, *scales), 40)
        code = construct("hgc", counts, sum(counts) + 1, *tolerance)
        assert by_model(code, drawn, push) == pytest.approx(by_engines(code, drawn, push), rel=1e-9), (tolerance, scales)


def test_greedy_goes_on_with_the_first() -> None:
    drawn = draw(random_system(np.random.default_rng(2), (2, 3, 4)), 40)
    code = construct("greedy", (2, 3, 4), 9, 1, 1)
    assert by_model(code, drawn, "wait") == pytest.approx(by_engines(code, drawn, "wait"), rel=1e-9)


def test_a_worker_without_parts_is_not_waited_for() -> None:
    system = System([Edge(workers=[Worker(c=1.0), Worker(c=1.0), Worker(c=99.0)]), Edge(workers=[Worker(c=99.0)])])
    code = construct("hgc", (3, 1), 2, 0, 0)
    assert code.loads == (1, 1, 0, 0)
    assert by_model(code, draw(system, 3), "wait") == [1.0, 2.0, 3.0]


def test_who_is_late_is_late_again_unless_interrupted() -> None:
    """Of two workers with the same parts each is slow in turn: a worker that drops what it is at is quick in time."""
    code = construct("hgc", (2,), 1, 0, 1)
    slow_and_quick = np.array([[[1.0, 10.0]], [[10.0, 1.0]], [[10.0, 1.0]]])
    none, no_edge = np.zeros((1, 1, 2)), np.zeros((1, 1))
    times: dict[str, list[float]] = {}
    for push in ("wait", "interrupt"):
        succession = Succession(code, push, rows=1)
        found = [succession.advance(Sample(part[None], none, none, no_edge, no_edge, np.array([2]))) for part in slow_and_quick]
        times[push] = [float(one[0]) for one in found]
    # Waiting, the second worker is at the first weights until 10 s; the first one's second step takes until 11 s.
    assert times == {"wait": [1.0, 11.0, 12.0], "interrupt": [1.0, 2.0, 3.0]}


def test_successions_are_independent_and_means_of_their_updates() -> None:
    system = System([Edge(tau=0.01, p=0.2, workers=[Worker(c=0.02, gamma=50.0, tau=0.01, p=0.2)] * 3)] * 2)
    code = construct("hgc", (3, 3), 6, 0, 1)
    seconds = update_seconds(system, code, draws=4000, seed=3)
    assert seconds.shape == (ROWS,)
    assert len(set(seconds)) == ROWS
    other = update_seconds(system, code, draws=4000, seed=4)
    error = math.sqrt((seconds.var() + other.var()) / ROWS)
    assert seconds.mean() == pytest.approx(other.mean(), abs=4 * error)
    assert np.array_equal(seconds, update_seconds(system, code, draws=4000, seed=3))


@pytest.mark.parametrize("draws", [2, 3, 99, 100, 250, 4000])
def test_updates_are_at_most_as_many_as_draws_and_some_count(draws: int) -> None:
    rows, updates, settled = course(draws)
    assert 0 < rows * updates <= draws
    assert 0 <= settled < updates


def test_bad_input() -> None:
    system = System([Edge(workers=[Worker(c=1.0)] * 2)] * 2)
    code = construct("hgc", (2, 2), 4, 0, 0)
    with pytest.raises(ConfigError, match="push = 'pull': expected 'wait', or 'interrupt'"):
        update_seconds(system, code, "pull")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="draws = 1"):
        update_seconds(system, code, draws=1)
    with pytest.raises(ConfigError, match=r"the code is for \[2, 2\] workers per edge, the system has \[2, 3\]"):
        update_seconds(System([Edge(workers=[Worker(c=1.0)] * count) for count in (2, 3)]), code)
    with pytest.raises(ConfigError, match="a code without edges"):
        update_seconds(system, construct("flat", (2, 2), 4, 0, 1))
