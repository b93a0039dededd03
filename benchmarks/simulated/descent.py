"""One rule, one graph, one number of workers: descend a quadratic on the virtual clock, and keep what there is to compare."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

import numpy as np

from benchmarks.simulated.sharing import shared
from consensus.protocol.messages import WIRE_BYTES
from consensus.protocol.rounds import RoundRecord
from consensus.sim.kernel import Kernel
from consensus.sim.lockstep import Lockstep
from consensus.sim.network import Network
from consensus.sim.quadratic import Quadratic
from consensus.timing import ComputeTime, Link
from consensus.topology import build
from consensus.types import Rank, Round, Seconds

STEP, STALL = 0.055, 1.0
"""Seconds of a step, and of a stall."""

LATENCY = 5e-5
"""Seconds that a message takes; models take no longer. The all-reduce is given its transfers for nothing."""

DIMENSION = 20

MARK = 0.025
"""Seconds between two looks at the models."""

ALLREDUCE = "allreduce"

RULES: Mapping[str, tuple[str, Mapping[str, int]]] = MappingProxyType(
    {
        "full": ("full", {}),
        "static_backup b=1": ("static_backup", {"b": 1}),
        "static_backup b=2": ("static_backup", {"b": 2}),
        "dtur": ("dtur", {}),
        "pathsearch": ("pathsearch", {}),
        "gap": ("gap", {}),
    }
)
"""Name and parameters by the word in tables."""

GRAPHS: Mapping[str, tuple[str, int | None]] = MappingProxyType(
    {
        "ring": ("ring", None),
        "4-regular": ("random_regular", 4),
        "8-regular": ("random_regular", 8),
        "exponential": ("exponential", None),
    }
)
"""Family and degree by the word in tables."""


@dataclass(frozen=True)
class Stalls(ComputeTime):
    """Steps of :data:`STEP` seconds, uneven by ``spread`` on either side; each stalls for :data:`STALL` with ``probability``.

    Steps that take equal times to the nanosecond would be a case of their own: ranks fall into a common beat, and what happens
    at one instant is decided by the order of ties.
    """

    probability: float
    spread: float

    def draws(self, rank: Rank, generator: np.random.Generator) -> Iterator[Seconds]:
        while True:
            step = STEP * (1.0 + self.spread * (2.0 * generator.random() - 1.0))
            yield step + STALL if generator.random() < self.probability else step


@dataclass(frozen=True)
class Case:
    """What is simulated.

    ``targets`` are losses, in units of the loss before the first step; ``awaits`` says whose loss has to reach the last of them:
    that of the workers' models, on average, or that of their mean. The simulation ends then, but goes on for ``least`` seconds
    of the clock in any case; it ends without it after ``most`` steps a worker.
    """

    part: str
    workers: int
    rule: str
    graph: str
    probability: float
    lr: float
    noise: float
    targets: tuple[float, ...]
    awaits: Literal["workers", "mean"]
    least: float
    most: int
    heterogeneity: float = 1.0
    spread: float = 0.05
    seed: int = 1

    @property
    def work(self) -> float:
        """About how long it takes to simulate, in arbitrary units."""
        announces = self.rule in ("dtur", "pathsearch")
        return self.workers ** (2 if announces else 1) * (30 if self.graph == "exponential" else 10)


class Together(Quadratic):
    """Workers that can also average their gradients at every step."""

    def step_together(self, round: Round) -> None:
        """See :class:`consensus.sim.lockstep.LockstepPlant`."""
        for rank in range(len(self.models)):
            self.step(rank, round)
        self.models[:] = self.mean()


def problem(case: Case) -> Together:
    """The parabolas of all workers.

    Their minima are apart by ``heterogeneity`` (root mean square distance from the common one's neighbourhood), curvatures span
    a factor of 4 and are 1/2 on average, whatever the number of workers; a gradient's noise is ``noise`` in norm. Models start
    at distance 1 from the minimum of the mean.
    """
    generator = np.random.default_rng([case.seed, case.workers])
    centres = case.heterogeneity * DIMENSION**-0.5 * generator.standard_normal((case.workers, DIMENSION))
    curvatures = 4.0 ** -((generator.permutation(case.workers) + 0.5) / case.workers)
    curvatures *= 0.5 / curvatures.mean()
    start = curvatures @ centres / curvatures.sum() + DIMENSION**-0.5
    noise = case.noise * DIMENSION**-0.5
    return Together(centres, lr=case.lr, curvatures=curvatures, noise=noise, seed=case.seed, start=start)


def adjacency(graph: str, workers: int) -> dict[Rank, tuple[Rank, ...]]:
    """The graph; with few workers, of as many neighbours as there are.

    Examples
    --------
    >>> adjacency("4-regular", 3)
    {0: (1, 2), 1: (0, 2), 2: (0, 1)}
    """
    family, degree = GRAPHS[graph]
    parameters = {} if degree is None else {"degree": max(1, min(degree, workers - 1))}
    built = build(family, workers, seed=1, **parameters)
    return {rank: tuple(sorted(built[rank])) for rank in sorted(built)}


class _Meter:
    """Looks at the models at marks of the clock, and sums up rounds."""

    def __init__(self, case: Case, plant: Together, kernel: Kernel) -> None:
        self._case, self._plant, self._kernel = case, plant, kernel
        self.rounds = self.exchanges = 0
        self.wait = 0.0
        self.consensus: list[float] = []
        self.reached: dict[str, dict[str, tuple[float, float]]] = {"workers": {}, "mean": {}}
        self._look(0)

    @property
    def over(self) -> bool:
        case = self._case
        awaited = str(case.targets[-1]) in self.reached[case.awaits]
        late = self._plant.steps >= case.most * case.workers
        return self._kernel.now >= case.least - MARK and (awaited or late)

    def _look(self, mark: int) -> None:
        plant = self._plant
        # F_i differ in curvature, F does not: its value at any x is mean curvature / 2 times the squared distance.
        mean, apart = plant.distance() ** 2, plant.consensus_distance() ** 2
        self.consensus.append(apart)
        now = (round(mark * MARK, 6), plant.steps / self._case.workers)
        for words, loss in (("workers", mean + apart), ("mean", mean)):
            for target in self._case.targets:
                if loss <= target:
                    self.reached[words].setdefault(str(target), now)
        self._kernel.at((mark + 1) * MARK, self._look, mark + 1)

    def exchanged(self, rank: Rank, record: RoundRecord, compute: Seconds) -> None:
        self.rounds += 1
        self.exchanges += len(record.exchanges)
        self.wait += record.closed_at - record.opened_at

    def reduced(self, rank: Rank, compute: Seconds, wait: Seconds) -> None:
        self.rounds += 1
        self.wait += wait


def descend(case: Case) -> dict[str, Any]:
    """Simulate ``case``.

    Returns
    -------
    dict
        Means per round of exchanges, seconds of waiting and control messages; steps per worker and second; the consensus error,
        sqrt(mean_i ||x_i - mean||^2), over the second half of the time; by target and by whose loss, the seconds and the steps
        per worker that it took.
    """
    began = time.process_time()
    plant, kernel = problem(case), Kernel()
    meter = _Meter(case, plant, kernel)
    streams = [Stalls(case.probability, case.spread).stream(rank, case.seed) for rank in range(case.workers)]
    ranks: Network | Lockstep
    if case.rule == ALLREDUCE:
        ranks = Lockstep(streams, Link(0.0, math.inf), stop=_never, plant=plant, on_round=meter.reduced, kernel=kernel)
    else:
        name, parameters = RULES[case.rule]
        ranks = Network(
            adjacency(case.graph, case.workers),
            shared(name, **parameters),
            streams,
            Link(LATENCY, math.inf),
            stop=_never,
            plant=plant,
            on_round=meter.exchanged,
            kernel=kernel,
        )
    seconds = 0.0
    while not meter.over:
        seconds += 10 * MARK
        ranks.run(seconds)
    messages = sum(ranks.bytes_sent(rank) for rank in range(case.workers)) / WIRE_BYTES
    rounds = max(meter.rounds, 1)
    return {
        "part": case.part,
        "workers": case.workers,
        "graph": case.graph,
        "rule": case.rule,
        "probability": case.probability,
        "spread": case.spread,
        "seed": case.seed,
        "lr": case.lr,
        "seconds": seconds,
        "pace": plant.steps / case.workers / seconds,
        "exchanges": meter.exchanges / rounds,
        "wait": meter.wait / rounds,
        "messages": messages / rounds,
        "consensus": math.sqrt(statistics.fmean(meter.consensus[len(meter.consensus) // 2 :])),
        "reached": meter.reached,
        "processor_seconds": round(time.process_time() - began, 1),
    }


def _never(rank: Rank, round: Round) -> bool:
    return False
