"""A run with coded gradients on a virtual clock: its models, its network, and the system that its time models describe."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from consensus.coding import GradientCode
from consensus.coding.fit import fit_compute
from consensus.coding.layout import MASTER
from consensus.coding.system import Edge, System, Worker
from consensus.config import RunConfig
from consensus.config.coding import SELECTED
from consensus.protocol.events import Event
from consensus.rules.coded import Sufficient
from consensus.run.coded_fleet import CodedFleet, coded_fleet
from consensus.run.evaluation import quality
from consensus.run.ledger import Ledger
from consensus.run.prepare import prepare_all
from consensus.run.summary import coding_of
from consensus.sim.coded import CodedNetwork
from consensus.sim.kernel import Kernel
from consensus.sim.nodes import LinkTimes
from consensus.sim.sites import StillRelay, StillServer, StillWorker
from consensus.timing import ComputeTime
from consensus.types import Rank

DRAWS = 2000
"""Steps of each worker that a system is made of."""


class _CountedMaster(StillServer):
    """A master without a model; each part has a whole batch."""

    def __init__(self, samples: int, updated: Callable[[int, float], None]) -> None:
        self._samples, self._updated = samples, updated

    def apply(self, workers: Sequence[Rank], factor: float) -> Event:
        self._updated(self._samples, math.nan)
        return super().apply(workers, factor)


@dataclass
class CodedSimulation:
    """What is simulated.

    Parameters
    ----------
    config
        Of the run.
    size
        Number of ranks.
    compute
        How long a part takes.
    timing
        Whether there are no models.
    ledger
        Counts.
    kernel
        The clock.
    nbytes
        Size of the weights, bytes.

    Attributes
    ----------
    network : CodedNetwork
        Ready to run.
    """

    config: RunConfig
    size: int
    compute: ComputeTime
    timing: bool
    ledger: Ledger
    kernel: Kernel
    nbytes: int
    network: CodedNetwork = field(init=False)

    def __post_init__(self) -> None:
        config, layout = self.config, self.config.layout(self.size)
        self._loss = math.nan
        self.ledger.loss = lambda: self._loss
        link = config.network.build()
        # The vectors of one dtype are about as large as the weights; in a training their size is known exactly.
        self.code = code_of(config, self.size, self.compute, link, self.nbytes)
        code, coding = self.code, config.coding
        rules = [
            Sufficient(layer, own.start, coding.approximate)
            for layer, own in zip(code.edges, layout.workers, strict=False)
        ]
        self.fleet: CodedFleet | None = None
        sites: Any
        if self.timing:
            master = _CountedMaster(config.data.batch * code.parts, self._updated)
            sites = master, [StillRelay(MASTER) for _ in layout.edges], [StillWorker() for _ in code.loads]
            payload_bytes = self.nbytes
        else:
            self._tasks = prepare_all(config, self.size, range(self.size))
            self.fleet = coded_fleet(config, code, self._tasks, self._updated)
            sites, payload_bytes = self.fleet[:3], self.fleet.payload_bytes
        streams = [
            self.compute.stream(worker, config.run.seed).times(load) for worker, load in enumerate(code.loads)
        ]
        self.network = CodedNetwork(
            layout,
            Sufficient(code.master, layout.below.start, coding.approximate),
            rules,
            streams,
            link,
            limit=config.run.stop.rounds,
            push=coding.push,
            sites=sites,
            model_bytes=self.nbytes,
            payload_bytes=payload_bytes if config.network.model_bytes is None else self.nbytes,
            on_round=self.ledger.exchanged,
            kernel=self.kernel,
        )
        if config.run.stop.seconds is not None:
            self.kernel.at(config.run.stop.seconds, self._out_of_time, None)

    def _updated(self, samples: int, loss: float) -> None:
        engine = self.network.engine
        self._loss = loss
        self.ledger.count(MASTER, samples)
        if self.ledger.stop(MASTER, engine.round + 1):
            engine.limit = engine.round + 1

    def _out_of_time(self, _: object) -> None:
        if self.ledger.stop(MASTER, self.network.engine.round):
            self.network.stop()

    def quality(self) -> tuple[float, float, float]:
        """Accuracy and loss of the master's model, and no consensus distance."""
        if self.timing:
            return (math.nan,) * 3
        return *quality(self._tasks[0].model, self._tasks[0].dataset.test, self.config.evaluation.test_samples), 0.0

    def told(self) -> dict[str, Any]:
        """What ``summary.json`` says of the code."""
        residual = self.fleet.master.worst_residual if self.fleet is not None else 0.0
        return coding_of(self.code, self.network.engine, residual)


def code_of(config: RunConfig, size: int, compute: ComputeTime, link: LinkTimes, nbytes: int) -> GradientCode:
    """The code of a run; one that is chosen for a system is by default chosen for what the run file's time models say."""
    coding, scheme, seed = config.coding, config.rule.name, config.run.seed
    if scheme != SELECTED or coding.system is not None:
        return coding.build(scheme, size, seed)
    return coding.build(scheme, size, seed, system_of(config, size, compute, link, nbytes))


def system_of(config: RunConfig, size: int, compute: ComputeTime, link: LinkTimes, nbytes: int) -> System:
    """What the nodes of a simulated run take: draws from its time models, and the fit to them."""
    layout, seed = config.layout(size), config.run.seed
    edges = []
    for edge, own in zip(range(1, 1 + len(layout.workers)), layout.workers, strict=True):
        workers = []
        for rank in own:
            # Draws of another seed: what is to come is not known.
            stream = compute.stream(config.worker(rank, size), seed + 1)
            times = [stream.next() for _ in range(DRAWS)]
            workers.append(Worker(**fit_compute({1: times})._asdict(), tau=link.duration(edge, rank, nbytes)))
        edges.append(Edge(workers=workers, tau=link.duration(MASTER, edge, nbytes)))
    return System(edges)
