"""Coded gradients on the virtual clock, timing alone: when each update is made, and of whose gradients, in a given system."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from consensus.coding import GradientCode
from consensus.coding.fit import fit_compute
from consensus.coding.layout import MASTER, Layout
from consensus.coding.system import Edge, Node, System, Worker
from consensus.protocol.rounds import RoundRecord
from consensus.rules.coded import Sufficient
from consensus.sim.coded import CodedNetwork
from consensus.sim.kernel import Kernel
from consensus.sim.sites import RelaySite, ServerSite, WorkerSite
from consensus.timing import ComputeTime, ShiftedExponential, Stream
from consensus.types import Rank, Seconds

WORKERS = (6, 8, 9, 11)
"""Workers of the four edges."""

SHIFT, SCATTER = 0.008, 0.004
"""Seconds of a part at a worker that is not slow: what it takes at least, and the mean of the random rest."""

WORKER_LINK, EDGE_LINK, LOST = 0.004, 0.008, 0.1
"""Seconds of a transmission between worker and edge, and between edge and master; the share that is lost."""

SLOW_EDGE = 1
"""Which edge the slow one is."""

PUSH: Literal["interrupt"] = "interrupt"
"""Workers drop what they are at when newer weights come."""

QUANTILES = 200
"""Times that stand for a worker's where they are no shifted exponential."""


@dataclass(frozen=True)
class Regime:
    """What the system of a simulation is like.

    Parameters
    ----------
    slow
        How many times longer parts take at slow workers.
    share
        Of each edge's workers that is slow, rounded, the last of them.
    edge
        How many times longer a transmission of the slow edge takes.
    scatter
        Mean of the random rest of a part, seconds.
    lost
        Share of the transmissions that is lost.
    parts
        K, in units of the number of workers; the data are the same, so that twice as many take half as long each.
    passing
        Whether it is not always the same workers that are slow: any one is in that share of its steps.
    """

    slow: float = 10.0
    share: float = 0.2
    edge: float = 10.0
    scatter: float = SCATTER
    lost: float = LOST
    parts: int = 1
    passing: bool = False

    @property
    def count(self) -> int:
        """K, the number of parts.

        Examples
        --------
        >>> Regime(parts=2).count
        68
        """
        return self.parts * sum(WORKERS)

    @property
    def alike(self) -> bool:
        """Whether no worker is slower than others for good."""
        return self.passing or self.slow == 1.0

    def system(self) -> System:
        """Its nodes.

        Examples
        --------
        >>> [sum(worker.c > SHIFT for worker in edge.workers) for edge in Regime().system().edges]
        [1, 2, 2, 2]
        """
        edges = []
        for edge, workers in enumerate(WORKERS):
            slow = 0 if self.passing else round(self.share * workers)
            own = [self._worker(self.slow if worker >= workers - slow else 1.0) for worker in range(workers)]
            edges.append(Edge(workers=own, tau=EDGE_LINK * (self.edge if edge == SLOW_EDGE else 1.0), p=self.lost))
        return System(edges)

    def _worker(self, factor: float) -> Worker:
        shift, scatter = factor * SHIFT / self.parts, factor * self.scatter / self.parts
        if not self.passing:
            return Worker(c=shift, gamma=1.0 / scatter if scatter else math.inf, tau=WORKER_LINK, p=self.lost)
        late = round(self.share * QUANTILES)
        times = [*_quantiles(shift, scatter, QUANTILES - late), *_quantiles(self.slow * shift, self.slow * scatter, late)]
        return Worker(**fit_compute({1: times})._asdict(), tau=WORKER_LINK, p=self.lost)


def _quantiles(shift: Seconds, scatter: Seconds, count: int) -> list[Seconds]:
    """So many of a shifted exponential."""
    return [shift - scatter * math.log(1.0 - (number + 0.5) / count) for number in range(count)]


def without(system: System, *, edges: Sequence[int] = ()) -> System:
    """The system less some edges, and less the workers that take longest per part wherever they take over twice the shortest.

    Examples
    --------
    >>> without(Regime().system(), edges=[1]).workers_per_edge
    (5, 7, 9)
    """
    quickest = min(worker.mean_part for edge in system.edges for worker in edge.workers)
    return System(
        [
            Edge(workers=[worker for worker in edge.workers if worker.mean_part <= 2 * quickest], tau=edge.tau, p=edge.p)
            for number, edge in enumerate(system.edges)
            if number not in edges
        ]
    )


class Links:
    """Transfers that are repeated until they get through; messages take no time.

    Parameters
    ----------
    system
        The nodes.
    layout
        Their ranks. Where workers send to the master, their transfers go along both links.
    seed
        Of the losses; each link has its own draws.
    """

    def __init__(self, system: System, layout: Layout, seed: int) -> None:
        self._paths: dict[Rank, list[Node]] = dict(zip(layout.edges, ([edge] for edge in system.edges), strict=False))
        for edge, ranks in zip(system.edges, layout.workers, strict=True):
            for rank, own in zip(ranks, edge.workers, strict=True):
                self._paths[rank] = [own] if layout.relayed else [own, edge]
        # Workers count from 0 and edges from -n, so that a worker's draws are the same whether there are edges or not.
        first = layout.edges.stop
        self._random = {rank: np.random.default_rng([seed, (rank - first) % 1000]) for rank in self._paths}

    def duration(self, i: Rank, j: Rank, nbytes: int) -> Seconds:
        """See :class:`consensus.sim.nodes.LinkTimes`."""
        if not nbytes:
            return 0.0
        rank = max(i, j)  # the lower one of the two ends
        return sum(node.tau * float(self._random[rank].geometric(1.0 - node.p)) for node in self._paths[rank])


def streams(system: System, loads: Sequence[int], seed: int) -> list[Stream]:
    """Steps of all workers, whose parts take equally long within a step."""
    workers = [worker for edge in system.edges for worker in edge.workers]
    each = enumerate(zip(workers, loads, strict=True))
    return [_parts(worker).stream(number, seed).times(load) for number, (worker, load) in each]


def _parts(worker: Worker) -> ComputeTime:
    return Measured(tuple(worker.measured)) if worker.measured else ShiftedExponential(shift=worker.c, mean=1.0 / worker.gamma)


@dataclass(frozen=True)
class Measured(ComputeTime):
    """Any of these times, seconds, each as likely as another."""

    seconds: tuple[Seconds, ...]

    def draws(self, rank: Rank, generator: np.random.Generator) -> Iterator[Seconds]:
        while True:
            yield self.seconds[generator.integers(len(self.seconds))]


Used: TypeAlias = dict[int, list[int]]
"""Whose vectors an update took: by edge, its workers; where workers send to the master, all by their numbers there, at 0."""


class Made(NamedTuple):
    """When each update was made, seconds, and of whose vectors."""

    times: list[Seconds]
    used: list[Used]

    @property
    def pace(self) -> Seconds:
        """Seconds per update."""
        return self.times[-1] / len(self.times)


Sites: TypeAlias = tuple[ServerSite, Sequence[RelaySite], Sequence[WorkerSite]]


def simulate(code: GradientCode, system: System, updates: int, seed: int, sites: Sites | None = None) -> Made:
    """Let the engines make so many updates; workers drop what they are at when newer weights come.

    Parameters
    ----------
    code
        Who computes what.
    system
        How long that takes.
    updates
        How many.
    seed
        Of steps and losses.
    sites
        The models; none by default.
    """
    layout = Layout(code.workers_per_edge, relayed=not code.direct)
    made, kernel = Made([], []), Kernel()
    latest: dict[Rank, list[int]] = {}

    def note(rank: Rank, record: RoundRecord, compute: Seconds) -> None:
        peers = sorted(exchange.peer for exchange in record.exchanges)
        if rank in layout.edges:
            latest[rank] = [peer - layout.workers[rank - 1].start for peer in peers]
        elif rank == MASTER:
            made.times.append(kernel.now)
            # What an edge has sent for this update is what it combined last: the next weights were not there yet.
            made.used.append({peer - 1: latest[peer] for peer in peers} if layout.relayed else {0: [peer - 1 for peer in peers]})

    network = CodedNetwork(
        layout,
        Sufficient(code.master, layout.below.start),
        [Sufficient(layer, own.start) for layer, own in zip(code.edges, layout.workers, strict=False)],
        streams(system, code.loads, seed),
        Links(system, layout, seed),
        limit=updates,
        push=PUSH,
        sites=sites,
        model_bytes=1,
        payload_bytes=1,
        control_bytes=0,
        on_round=note,
        kernel=kernel,
    )
    network.run()
    return made


def part_weights(code: GradientCode, used: Used) -> NDArray[np.float64]:
    """What each part's gradient is multiplied by in an update of these vectors, shape (parts,): ones, if it is exact."""
    weights = np.zeros(code.parts)
    seats = [(edge, worker) for edge, workers in enumerate(code.workers_per_edge) for worker in range(workers)]
    top = code.master_weights(used[0] if code.direct else used)
    for node, outer in zip(top.nodes, top.weights.tolist(), strict=True):
        if code.direct:
            senders = [(seats[node], outer)]
        else:
            below = code.edge_weights(node, used[node])
            senders = [((node, worker), outer * inner) for worker, inner in zip(below.nodes, below.weights, strict=True)]
        for seat, weight in senders:
            weights[list(code.assignment(*seat))] += weight * code.coefficients(*seat)
    return weights


