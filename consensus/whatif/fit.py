"""A model of a run's ranks and links, from its traces alone."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import chain, cycle, islice

import numpy as np

from consensus.errors import ConfigError
from consensus.report.columns import Floats
from consensus.report.load import LoadedRun
from consensus.timing import Link
from consensus.types import Edge, Seconds
from consensus.whatif.sharing import Sharing
from consensus.whatif.sharing import fit as fit_sharing
from consensus.whatif.steps import Steps
from consensus.whatif.steps import fit as fit_steps
from consensus.whatif.swaps import match

FEWEST_ROUNDS = 10
"""Rounds that every rank must have: of fewer, hardly anything but the warming up is to be seen."""


@dataclass(frozen=True)
class Fitted:
    """What a run's traces say about time.

    Attributes
    ----------
    steps : Steps
        Local steps and what goes with them.
    latency : float
        Of a control message: from its sending until it is handled, seconds.
    works : dict
        For each edge that was used, the work of its swaps in order, seconds.
    typical : ndarray of float64
        Those of the median edge.
    sharing : Sharing
        How swaps disturb each other.
    offsets : ndarray of float64, shape (ranks,)
        By how much each rank's clock is ahead of the common one, seconds.
    """

    steps: Steps
    latency: Seconds
    works: dict[Edge, Floats]
    typical: Floats
    sharing: Sharing
    offsets: Floats

    @property
    def ranks(self) -> int:
        """How many ranks there are times of."""
        return len(self.steps.durations)

    @property
    def work(self) -> Seconds:
        """Of a swap on the median edge, seconds, the mean."""
        return float(self.typical.mean())

    @property
    def link(self) -> Link:
        """Control messages of one byte take the latency, models nothing: the work of their swaps is extra."""
        return Link(0.0, 1.0 / self.latency if self.latency > 0 else math.inf)

    def works_on(self, edges: Collection[Edge], seed: int) -> dict[Edge, Iterator[Seconds]]:
        """For each edge its recorded works again, from a place that the seed draws; the median edge's where it has none."""
        generator = np.random.default_rng(seed)
        return {edge: _from(self.works.get(edge, self.typical), float(generator.random())) for edge in sorted(edges)}


def _from(works: Floats, place: float) -> Iterator[Seconds]:
    start = int(place * len(works))
    values = works.tolist()
    return chain(islice(values, start, None), cycle(values))


def fit(run: LoadedRun) -> Fitted:
    """Fit the model.

    Raises
    ------
    ConfigError
        If the run has too little to fit it to, or is one under all-reduce.
    """
    _check(run)
    swaps = match(run.traces)
    if not len(swaps):
        raise ConfigError(
            f"{run.folder}: no exchange in the traces of both its ends, expected some: nothing is known of the links; "
            "record a run of several ranks, and longer"
        )
    sharing, works = fit_sharing(swaps)
    ends = swaps.ends[: len(works)]
    by_edge = {(int(i), int(j)): works[(ends == (i, j)).all(axis=1)] for i, j in np.unique(ends, axis=0)}
    ordered = sorted(by_edge.values(), key=lambda own: float(own.mean()))
    # An agreement takes two control messages from the moment at which both are open: the offer, and its answer.
    latency = max(0.0, float(np.median(swaps.agreed - swaps.opened)) / 2)
    steps = fit_steps(run.columns, swaps.offsets)
    return Fitted(steps, latency, by_edge, ordered[(len(ordered) - 1) // 2], sharing, swaps.offsets)


def _check(run: LoadedRun) -> None:
    if run.config.rule.is_allreduce:
        raise ConfigError(
            f"{run.folder}: a run under all-reduce, which exchanges over no edges: its traces tell nothing of the links; "
            "record a run under any wait rule, as in --set rule.name=full"
        )
    if run.config.serves:
        raise ConfigError(
            f"{run.folder}: a run with a parameter server, which this does not simulate from traces; record a run under any wait "
            "rule, or compare server rules by `consensus sim`"
        )
    if run.config.codes:
        raise ConfigError(
            f"{run.folder}: a run with coded gradients; `consensus select` says from its traces what other tolerances would take"
        )
    if not run.traces:
        raise ConfigError(
            f"{run.folder}: {' '.join(run.notes)} Expected the traces of all ranks: record it with run.trace = true"
        )
    short = {trace.rank: len(trace.rounds) for trace in run.traces if len(trace.rounds) < FEWEST_ROUNDS}
    if short:
        rank, rounds = next(iter(short.items()))
        raise ConfigError(
            f"{run.folder}: the trace of rank {rank} has {rounds} rounds, expected {FEWEST_ROUNDS} or more of every rank: "
            "of fewer, hardly anything but the warming up is to be seen; record a longer run"
        )
