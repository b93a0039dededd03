"""A whole experiment on a virtual clock: the same run file, the same engines, the same results, in one process."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch

from consensus.config import RunConfig
from consensus.config.schema import Exchange
from consensus.errors import ConfigError
from consensus.flat import FlatModel
from consensus.protocol.server import ServerEngine
from consensus.run import served_fleet
from consensus.run.coded_simulation import CodedSimulation
from consensus.run.curves import CURVES, dispensable, draw_curves
from consensus.run.evaluation import Evaluated, quality
from consensus.run.fleet import Fleet
from consensus.run.folder import make_folder, write_atomically
from consensus.run.ledger import Ledger
from consensus.run.marks import kept, spacing
from consensus.run.prepare import build_model, load_data, prepare_all
from consensus.run.results import to_metrics, write_metrics, write_summary
from consensus.run.signals import Interruption
from consensus.run.status import Report
from consensus.run.summary import RankResult, summarise
from consensus.run.watch import STOP
from consensus.serving import default_push
from consensus.sim.kernel import Kernel
from consensus.sim.lockstep import Lockstep
from consensus.sim.network import Network
from consensus.sim.nodes import NodeNetwork
from consensus.sim.plant import Still
from consensus.sim.served import ServedNetwork
from consensus.sim.sites import ServerSite, StillServer, StillWorker, WorkerSite
from consensus.step_scale import factor
from consensus.timing import ComputeTime
from consensus.trace import TraceWriter
from consensus.types import Rank, Round, Seconds

EPOCH = datetime.fromtimestamp(0, UTC)
"""When every simulated run starts."""

Quality: TypeAlias = tuple[float, float, float]
"""Accuracy and loss of the averaged model, consensus distance."""


def simulate(config: RunConfig, *, timing: bool = False, report: Report | None = None) -> Path:
    """Simulate the run that ``config`` says, and write the results.

    Parameters
    ----------
    config : RunConfig
        With ``run.ranks`` and a model of compute times.
    timing : bool
        Compute no gradients: find out how long things take, and nothing else.
    report : callable, optional
        Called with a :class:`~consensus.run.status.Status` about five times a second.

    Returns
    -------
    Path
        The folder of results, see docs/results.md and docs/simulator.md.

    Raises
    ------
    ConfigError
        If the run cannot be simulated as it is written.
    NonFiniteLoss
        If a loss becomes NaN or infinite and ``run.on_nan`` is "stop".
    """
    size, compute = check(config, timing)
    kernel = Kernel()
    with Interruption() as interruption, _quiet_and_alone():
        ledger = Ledger(config, size, kernel, interruption, report)
        models = _models(config, size, compute, timing, ledger)
        # Nothing is written before all is known to be right.
        folder = make_folder(config, size, datetime.now().astimezone())
        ranks = _ranks(config, size, compute, models, ledger, kernel)
        marks = _Marks(config, kernel, ledger, ranks, models.quality)
        ranks.run()
        results = [ledger.result(rank, ranks.bytes_sent(rank), ranks.ended_at[rank]) for rank in range(size)]
        if report is not None:
            report(ledger.status(evaluating=True))
        server = ranks.engine if isinstance(ranks, ServedNetwork) else None
        coding = None if models.coded is None else models.coded.told()
        _write(config, folder, ledger, results, marks, server, coding)
    return folder


def check(config: RunConfig, timing: bool) -> tuple[int, ComputeTime]:
    """Make sure that ``config`` can be simulated.

    Returns
    -------
    int
        Number of ranks.
    ComputeTime
        How long their steps take.

    Raises
    ------
    ConfigError
        With all that is wrong.
    """
    size, compute = config.size, config.stragglers.build()
    problems = []
    if size is None:
        problems.append("run.ranks: missing; a simulation starts no ranks that could be counted, so set it: --set run.ranks=8")
    if compute is None:
        problems.append(
            "stragglers.model = 'none': a simulated step takes the time that a model says; set one, as in "
            "--set stragglers.model=constant --set stragglers.seconds=0.01"
        )
    if timing and config.run.stop.target is not None:
        problems.append("run.stop.target: a simulation of timing alone has no model that could reach it; leave out --timing")
    if timing and all(getattr(config.run.stop, key) is None for key in ("samples", "seconds", "rounds")):
        problems.append("run.stop: nothing else would end the simulation; set samples, seconds or rounds")
    exchange = config.exchange
    if config.rule.is_allreduce and exchange.model_copy(update={"buffers": "average"}) != Exchange():
        problems.append("rule.name = 'allreduce': averages gradients at every step; of exchange, only buffers applies to it")
    if timing and config.serves and config.rule.build_served().uses_losses:
        problems.append(f"rule.name = {config.rule.name!r}: decides by losses and gradients; leave out --timing")
    if problems or size is None or compute is None:
        raise ConfigError("\n".join(problems))
    config.check(size)
    return size, compute


class _Counted(Still):
    """No models; each step has a whole batch."""

    def __init__(self, config: RunConfig, ledger: Ledger, size: int) -> None:
        self._batch, self._ledger, self._size = config.data.batch, ledger, size

    def step(self, rank: Rank, round: Round) -> None:
        self._ledger.count(rank, self._batch)

    def step_together(self, round: Round) -> None:
        for rank in range(self._size):
            self.step(rank, round)


class _CountedWorker(StillWorker):
    """A worker without a model; each step has a whole batch."""

    def __init__(self, config: RunConfig, ledger: Ledger, rank: Rank) -> None:
        self._batch, self._ledger, self._rank = config.data.batch, ledger, rank

    def step(self, round: Round) -> float:
        self._ledger.count(self._rank, self._batch)
        return super().step(round)


class _Models(NamedTuple):
    """What is trained, how good it is, and how many bytes it has. With a server, a model each for it and the workers."""

    plant: Fleet | _Counted | None
    served: tuple[Sequence[ServerSite], Sequence[WorkerSite]] | None
    quality: Callable[[], Quality]
    nbytes: int
    coded: CodedSimulation | None = None


def _models(config: RunConfig, size: int, compute: ComputeTime, timing: bool, ledger: Ledger) -> _Models:
    given = config.network.model_bytes
    if config.codes:
        nbytes = given if given is not None else _model_bytes(config)
        coded = CodedSimulation(config, size, compute, timing, ledger, ledger.kernel, nbytes)
        return _Models(None, None, coded.quality, nbytes, coded)
    if timing:
        nbytes = given if given is not None else _model_bytes(config)
        first = config.server.servers
        still = None
        if config.serves:
            still = [StillServer()] * first, [_CountedWorker(config, ledger, rank) for rank in range(first, size)]
        return _Models(None if config.serves else _Counted(config, ledger, size), still, lambda: (math.nan,) * 3, nbytes)
    tasks = prepare_all(config, size, range(size))
    test = tasks[0].dataset.test
    if config.serves:
        losses = [math.nan]

        def count(rank: Rank, samples: int, loss: float) -> None:
            ledger.count(rank, samples)
            losses[0] = loss

        ledger.loss = lambda: losses[0]
        servers, workers = served_fleet.shards(config, tasks, count)
        nbytes = given if given is not None else sum(chunk.nbytes for chunk in servers[0].chunks)
        limit = config.evaluation.test_samples

        def judge() -> Quality:
            for other in servers[1:]:
                other.show(servers[0])
            return *quality(tasks[0].model, test, limit), 0.0

        return _Models(None, (servers, workers), judge, nbytes)
    fleet = Fleet(config, tasks, ledger.count)
    ledger.loss = lambda: fleet.loss
    return _Models(fleet, None, lambda: fleet.evaluate(test), given if given is not None else fleet.model_bytes)


def _model_bytes(config: RunConfig) -> int:
    """What a rank would send to a neighbour."""
    try:
        model = build_model(config, load_data(config))
    except ConfigError as error:
        error.add_note("only the model's size is wanted; network.model_bytes may say it instead")
        raise
    return FlatModel(model, model.parameters(), buffers=config.exchange.buffers).nbytes


def _ranks(
    config: RunConfig,
    size: int,
    compute: ComputeTime,
    models: _Models,
    ledger: Ledger,
    kernel: Kernel,
) -> Network | Lockstep | NodeNetwork:
    link, exchange, seed = config.network.build(), config.exchange, config.run.seed
    plant, model_bytes = models.plant, models.nbytes
    if models.coded is not None:
        return models.coded.network
    streams = [compute.stream(worker, seed) for worker in range(config.workers(size))]
    if plant is None:
        assert models.served is not None
        rule = config.rule.build_served()
        return ServedNetwork(
            rule,
            streams,
            link,
            stop=ledger.stop,
            push=config.server.push or default_push(rule),
            factor=config.server.learning_rate.build(),
            server=models.served[0][0],
            followers=models.served[0][1:],
            workers=models.served[1],
            model_bytes=model_bytes,
            on_round=ledger.exchanged,
            kernel=kernel,
        )
    if config.rule.is_allreduce:
        return Lockstep(
            streams,
            link,
            stop=ledger.stop_in_step,
            plant=plant,
            model_bytes=model_bytes,
            on_round=ledger.reduced,
            kernel=kernel,
        )
    graph = config.graph(size)
    network = Network(
        {rank: tuple(sorted(graph[rank])) for rank in sorted(graph)},
        config.rule.build(),
        streams,
        link,
        stop=ledger.stop,
        plant=plant,
        model_bytes=model_bytes,
        weights=exchange.weights,
        every=exchange.every,
        order=exchange.order,
        on_round=ledger.exchanged,
        kernel=kernel,
    )
    if isinstance(plant, Fleet):
        engines = network.engines
        plant.step_factor = lambda rank: factor(engines[rank].participation, engines[rank].view.round)
    return network


class _Marks:
    """Evaluates the mean of all models at common marks of the clock: there the models are at hand, all at once."""

    def __init__(
        self,
        config: RunConfig,
        kernel: Kernel,
        ledger: Ledger,
        ranks: Network | Lockstep | NodeNetwork,
        quality: Callable[[], Quality],
    ) -> None:
        self._every, self._limit = config.evaluation.every, config.evaluation.marks
        self._target = config.run.stop.target
        self._kernel, self._ledger, self._ranks, self._quality = kernel, ledger, ranks, quality
        self._evaluated: dict[int, Evaluated] = {}
        self.stop: dict[str, object] | None = None
        """What the target came to, when it was reached."""
        kernel.at(self._every, self._look, 1)

    def _look(self, mark: int) -> None:
        if not any(math.isnan(ended) for ended in self._ranks.ended_at):
            return
        distance = spacing(mark, self._limit)
        if mark % distance == 0:
            self._evaluated[mark] = now = self._evaluate(mark)
            if self._target is not None and self.stop is None and now.reaches(self._target):
                self._ledger.target_reached = True
                reached = getattr(now, self._target.metric)
                self.stop = {**self._target.model_dump(), "reached": reached, "seconds": mark * self._every}
        following = mark + distance - mark % distance
        self._kernel.at(following * self._every, self._look, following)

    def _evaluate(self, mark: int | None) -> Evaluated:
        ledger = self._ledger
        return Evaluated(mark, ledger.samples, ledger.rounds, ledger.backups, *self._quality())

    def lines(self, end: Seconds) -> list[tuple[Seconds, Evaluated]]:
        """All marks that are kept, with their times, and the end."""
        marks = kept(int(end / self._every), self._limit)
        return [*((mark * self._every, self._evaluated[mark]) for mark in marks), (end, self._evaluate(None))]


def _write(
    config: RunConfig,
    folder: Path,
    ledger: Ledger,
    results: list[RankResult],
    marks: _Marks,
    server: ServerEngine | None,
    coding: dict[str, Any] | None,
) -> None:
    if config.run.trace:
        for rank, rounds in enumerate(ledger.traced):
            with TraceWriter(folder / f"trace-{rank}.jsonl", rank, 0.0, EPOCH.timestamp()) as writer:
                for line in rounds:
                    writer.write(*line)
    if marks.stop is not None:
        write_atomically(folder / STOP, json.dumps(marks.stop) + "\n")
    metrics = to_metrics(marks.lines(max(result.ended_at for result in results)))
    write_metrics(folder, metrics)
    write_summary(folder, summarise(config, EPOCH, results, metrics, simulated=True, server=server, coding=coding))
    with dispensable(folder / CURVES):
        draw_curves({config.rule.name: metrics}, folder / CURVES)


@contextmanager
def _quiet_and_alone() -> Iterator[None]:
    """One thread, so that sums do not depend on how many there are; and no words on numbers that diverge: losses tell."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            yield
    finally:
        torch.set_num_threads(before)
