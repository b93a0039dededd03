"""Updates that follow one another: the same, moment by moment, as those that the engines make on the virtual clock."""

from __future__ import annotations

import math

import numpy as np
import pytest

from consensus.coding import GradientCode, construct
from consensus.coding.layout import MASTER, Layout
from consensus.coding.runtime import Sample, samples
from consensus.coding.succession import ROWS, Push, Succession, course, update_seconds
from consensus.coding.system import Edge, System, Worker
from consensus.errors import ConfigError
from consensus.protocol.rounds import RoundRecord
from consensus.rules.coded import Sufficient
from consensus.sim.coded import CodedNetwork
from consensus.timing import Constant
from consensus.types import Rank, Seconds


class Links:
    """Transfers that take what the nodes' links do; messages take no time."""

    def __init__(self, system: System, layout: Layout) -> None:
        self._taus = dict(zip(layout.edges, [edge.tau for edge in system.edges], strict=True))
        for edge, ranks in zip(system.edges, layout.workers, strict=True):
            self._taus |= dict(zip(ranks, [worker.tau for worker in edge.workers], strict=True))

    def duration(self, i: Rank, j: Rank, nbytes: int) -> Seconds:
        return self._taus[max(i, j)] if nbytes else 0.0


def by_engines(code: GradientCode, system: System, updates: int, push: Push) -> list[Seconds]:
    """When the master's engine makes its updates."""
    layout = Layout(code.workers_per_edge)
    times: list[Seconds] = []

    def note(rank: Rank, record: RoundRecord, compute: Seconds) -> None:
        if rank == MASTER:
            times.append(network.kernel.now)

    steps = [worker.c for edge in system.edges for worker in edge.workers]
    network = CodedNetwork(
        layout,
        Sufficient(code.master, layout.below.start),
        [Sufficient(layer, own.start) for layer, own in zip(code.edges, layout.workers, strict=True)],
        [Constant(step).stream(0, 0).times(load) for load, step in zip(code.loads, steps, strict=True)],
        Links(system, layout),
        limit=updates,
        push=push,
        model_bytes=1,
        payload_bytes=1,
        control_bytes=0,
        on_round=note,
    )
    network.run()
    return times


def by_model(code: GradientCode, system: System, updates: int, push: Push) -> list[Seconds]:
    succession = Succession(code, push, rows=1)
    return [float(succession.advance(sample)[0]) for sample in samples(system, updates, seed=0, block=1)]


def random_system(generator: np.random.Generator, workers_per_edge: tuple[int, ...]) -> System:
    """Nothing in it is left to chance; some nodes are much slower than others."""

    def seconds() -> float:
        return float(generator.uniform(0.5, 1.5) * generator.choice([1.0, 12.0], p=[0.75, 0.25]))

    def workers(count: int) -> list[Worker]:
        return [Worker(c=seconds(), tau=0.7 * seconds()) for _ in range(count)]

    return System([Edge(workers=workers(count), tau=seconds()) for count in workers_per_edge])


@pytest.mark.parametrize("push", ["wait", "interrupt"])
@pytest.mark.parametrize("counts", [(3,), (2, 3, 4), (3, 3, 9), (6, 8, 9, 11)])
def test_updates_are_made_when_the_engines_make_them(counts: tuple[int, ...], push: Push) -> None:
    generator = np.random.default_rng((9, *counts))
    for s_e in range(len(counts)):
        for s_w in range(min(counts)):
            system = random_system(generator, counts)
            code = construct("hgc", counts, sum(counts) + 1, s_e, s_w)
            assert by_model(code, system, 24, push) == pytest.approx(by_engines(code, system, 24, push), rel=1e-9), (s_e, s_w)
