"""A run's measured pace, and the simulated pace of what might have been run instead."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

import networkx as nx
import numpy as np

from consensus.config import RunConfig
from consensus.protocol.rounds import RoundRecord
from consensus.report.load import LoadedRun
from consensus.sim.kernel import Kernel
from consensus.timing import ComputeTime
from consensus.types import Rank, Seconds
from consensus.whatif.fit import Fitted
from consensus.whatif.noise import Noise
from consensus.whatif.server import SharedNetwork

MOST_ROUNDS = 20_000
"""Rounds of all ranks that are simulated at most; the time to more samples is reckoned from their pace."""

FEWEST_ROUNDS = 100
"""Rounds of each rank that are simulated at least, for a mean to be one."""

_LOOKS_A_STEP = 2.0


@dataclass(frozen=True)
class Pace:
    """How fast a run goes.

    Attributes
    ----------
    samples_per_second : float
        Of all ranks.
    seconds : float
        To the number of samples asked for, at that pace.
    open_seconds : float
        From a round's opening to its close, mean: waiting for others, and swapping.
    backups : float
        Neighbours that a round did without, mean.
    contraction : float or None
        See :meth:`consensus.whatif.noise.Noise.contraction`, per second; None for a measured run.
    spread : float
        Standard deviation of the throughput from start to start, as a fraction of it; 0 for one.
    """

    samples_per_second: float
    seconds: Seconds
    open_seconds: Seconds
    backups: float
    contraction: float | None
    spread: float = 0.0


@dataclass(frozen=True)
class Setting:
    """What is to be simulated.

    Attributes
    ----------
    rule, topology : str
        Their names.
    config : RunConfig
        Its rule and its way to exchange.
    graph : nx.Graph
        On ranks 0 to n - 1.
    compute : ComputeTime, optional
        Of local steps; the recorded ones by default.
    """

    rule: str
    topology: str
    config: RunConfig
    graph: nx.Graph[Rank]
    compute: ComputeTime | None = None


def samples_per_round(run: LoadedRun) -> float:
    """How many samples a round of one rank takes: on the average, if the run has counted them."""
    if run.summary is not None:
        return float(run.summary["samples"] / sum(run.summary["rounds"]))
    return float(run.config.data.batch * run.config.exchange.every)


def measured(run: LoadedRun, fitted: Fitted, samples: float) -> Pace:
    """The pace of a recorded run, until the first of its ranks stopped.

    Parameters
    ----------
    run : LoadedRun
    fitted : Fitted
        Its model, for what the ranks' clocks are apart.
    samples : float
        To be reached.
    """
    closed = [rank.closed - offset for rank, offset in zip(run.columns, fitted.offsets, strict=True)]
    end = min(float(own[-1]) for own in closed)
    rounds = sum(int((own <= end).sum()) for own in closed)
    pace = rounds * samples_per_round(run) / end
    waits = np.concatenate([rank.closed - rank.opened for rank in run.columns])
    backups = np.concatenate([rank.backups for rank in run.columns])
    return Pace(pace, samples / pace, float(waits.mean()), float(backups.mean()), None)


def predict(fitted: Fitted, setting: Setting, samples: float, per_round: float, seeds: Sequence[int]) -> Pace:
    """Simulate a setting from several starting moments of the recorded run.

    Parameters
    ----------
    fitted : Fitted
    setting : Setting
    samples : float
        To be reached, by all ranks together.
    per_round : float
        Samples that a round takes.
    seeds : sequence of int
        One simulation each.

    Returns
    -------
    Pace
        Means; the throughput is that of all simulations put together.
    """
    size = len(setting.graph)
    rounds = max(min(samples / per_round, MOST_ROUNDS), FEWEST_ROUNDS * size)
    trials = [_Trial(fitted, setting, math.ceil(rounds), seed) for seed in seeds]
    pace = per_round * sum(trial.rounds for trial in trials) / sum(trial.seconds for trial in trials)
    paces = [per_round * trial.rounds / trial.seconds for trial in trials]
    return Pace(
        pace,
        samples / pace,
        fmean(trial.open_seconds for trial in trials),
        fmean(trial.backups for trial in trials),
        fmean(trial.contraction for trial in trials),
        stdev(paces) / pace if len(paces) > 1 else 0.0,
    )


class _Trial:
    """One simulation, until all ranks together have closed so many rounds."""

    def __init__(self, fitted: Fitted, setting: Setting, rounds: int, seed: int) -> None:
        graph, exchange, compute = setting.graph, setting.config.exchange, setting.compute
        size = len(graph)
        streams = fitted.steps.streams(size, seed) if compute is None else fitted.steps.modelled(compute, size, seed)
        self.rounds = 0
        self.seconds = self.contraction = math.nan
        self._wanted = rounds
        self._open_for = self._backups = 0.0
        self._kernel = Kernel()
        self._noise = Noise(size, seed)
        self._noise.watch(self._kernel, float(np.median(np.concatenate(fitted.steps.durations))) / _LOOKS_A_STEP)
        SharedNetwork(
            {rank: tuple(sorted(graph[rank])) for rank in sorted(graph)},
            setting.config.rule.build(),
            streams,
            fitted.link,
            stop=lambda rank, round: self.rounds >= rounds,
            plant=self._noise,
            control_bytes=1,
            weights=exchange.weights,
            every=exchange.every,
            order=exchange.order,
            on_round=self._count,
            kernel=self._kernel,
            works=fitted.works_on([(min(edge), max(edge)) for edge in graph.edges()], seed),
            sharing=fitted.sharing,
        ).run()

    def _count(self, rank: Rank, record: RoundRecord, step: Seconds) -> None:
        if self.rounds >= self._wanted:
            return
        self.rounds += 1
        self._open_for += record.closed_at - record.opened_at
        self._backups += len(record.backups)
        if self.rounds == self._wanted:
            self.seconds = self._kernel.now
            self.contraction = self._noise.contraction(self.seconds)

    @property
    def open_seconds(self) -> Seconds:
        return self._open_for / self.rounds

    @property
    def backups(self) -> float:
        return self._backups / self.rounds
