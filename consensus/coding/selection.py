"""How many stragglers a code should tolerate: joint node and coding scheme selection (JNCSS).

A code that tolerates more stragglers waits for fewer nodes and gives each more to compute. Which tolerance is the fastest is a
question of the nodes' times, and this module answers it for a :class:`~consensus.coding.system.System`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from types import MappingProxyType
from typing import Literal, NamedTuple, TypeAlias

import numpy as np

from consensus.coding.counts import check_count
from consensus.coding.hierarchical import HierarchicalCode
from consensus.coding.load import least_load
from consensus.coding.runtime import Tolerance, check_sampling, expected, samples
from consensus.coding.succession import Push, Succession, check_push, course
from consensus.coding.system import System
from consensus.errors import ConfigError
from consensus.types import Seconds

Model = Literal["codes", "counts"]

NEAR, LONGER = 1.25, 4
"""Tolerances that take less than so many times the least are simulated so many times as long."""

TOGETHER = 16
"""So many are simulated beside each other, by the same draws: for 200 workers each takes a megabyte or two."""

_Loads: TypeAlias = Mapping[int, list[Tolerance]]


class _Estimate(NamedTuple):
    """Mean seconds, and the standard error of it."""

    mean: Seconds
    error: Seconds


@dataclass(frozen=True)
class Selection:
    """The tolerance that was chosen, and what it is expected to cost.

    Attributes
    ----------
    edge_stragglers : int
        s_e, how many edges may be silent.
    worker_stragglers : int
        s_w, how many workers may be silent at every other edge.
    load : int
        D, parts per worker.
    kept : tuple of tuple of int
        For each edge the workers whose vectors are expected to be used, ascending; none at an edge that is not expected to be.
        That is a forecast, not an order: see :func:`select`.
    expected : float
        Seconds of an iteration: the mean of the simulated ones, or the surrogate's if nothing was simulated.
    standard_error : float
        Of that mean, seconds; NaN if nothing was simulated.
    surrogate : float
        Seconds of an iteration at this tolerance if everything took its expected time.
    times : mapping of (int, int) to float
        For every tolerance (s_e, s_w) what ``expected`` is for the chosen one.
    """

    edge_stragglers: int
    worker_stragglers: int
    load: int
    kept: tuple[tuple[int, ...], ...]
    expected: Seconds
    standard_error: Seconds
    surrogate: Seconds
    times: Mapping[Tolerance, Seconds]


def select(
    system: System,
    parts: int | None = None,
    *,
    refine: bool = True,
    model: Model = "codes",
    push: Push = "wait",
    draws: int = 4000,
    seed: int = 0,
) -> Selection:
    r"""Choose the numbers of silent edges and silent workers that make updates quickest.

    *The surrogate.* For every (s_e, s_w) with its least load D: at each edge keep the :math:`m_i - s_w` workers of least
    :math:`E W`, let :math:`t_i` be :math:`E U_i` and the largest kept :math:`E W`, keep the :math:`n - s_e` edges of least
    :math:`t_i`; the largest of those is the time. For the surrogate that is the best choice of nodes, as exchanging a kept node
    for another can only raise a maximum. But it takes expectations for times, and so sees no worth in being able to lose a node
    that is slow only now and then.

    *Refined*, which is the default: the mean time of every (s_e, s_w) is simulated with common random numbers, and the least is
    chosen. That is the smallest of many noisy numbers, and therefore a little smaller than it will turn out to be. Of two models:

    - ``"codes"``: what the engines do. Each code is made, nodes go on as soon as what has come can be decoded, and updates follow
      one another (:mod:`consensus.coding.succession`). Ours. Those that come within a quarter of the least are simulated four
      times as long.
    - ``"counts"``: each iteration by itself, from nodes that are idle, and :math:`n - s_e` edges and :math:`m_i - s_w` workers
      are waited for, whichever they are (:mod:`consensus.coding.runtime`): the model that the surrogate simplifies. It overrates
      times by up to a third where fewer nodes do, and then chooses too large a tolerance.

    *Nodes that are not kept* take part all the same. They hold parts, compute and send, since in a given iteration they may well
    be among the first, and whoever comes first is used; ``kept`` tells which ones the surrogate expects to be used. So nobody
    need be told, and the code depends on the two numbers alone. But a node so slow that its vectors are never used is not free:
    it takes up one silent node of the tolerance, at every edge if it is a worker, since s_w is one number for all edges. Where
    slow workers are unevenly spread, leaving them out can be worth more than any code. To do so take them out of the system and
    select again: ``expected`` of the two tells.

    Parameters
    ----------
    system : System
        Edges and workers with their compute and link parameters.
    parts : int, optional
        K, into how many parts the data are divided; by default one for each worker. The seconds of a worker are per such part.
    refine : bool
        Whether to simulate; the surrogate alone is much faster, but its choice can be twice as slow as the best.
    model : {"codes", "counts"}
        What is simulated.
    push : {"wait", "interrupt"}
        Of ``"codes"``: what a worker does that is busy when newer weights come.
    draws : int
        How many iterations of each tolerance to simulate.
    seed : int
        Of the simulation, 0 or more.

    Returns
    -------
    Selection
        The best tolerance; of equals that of fewest silent edges, then workers.

    Raises
    ------
    ConfigError
        If there is no part, a number of the simulation is out of range, or there is no such model or push.

    References
    ----------
    The problem: Tang, Li, Chen, Chen, *Design and Optimization of Hierarchical Gradient Coding for Distributed Learning at Edge
    Devices*, arXiv 2406.10831. The paper's body was not at hand; surrogate and refinements are our completion.

    Examples
    --------
    >>> from consensus.coding.system import Edge, Worker
    >>> quick, slow = Worker(c=0.01, gamma=200.0), Worker(c=0.1, gamma=200.0)
    >>> system = System([Edge(workers=[quick, slow, quick]), Edge(workers=[quick, quick, slow, quick])])
    >>> choice = select(system, parts=14)
    >>> choice.edge_stragglers, choice.worker_stragglers, choice.load, choice.kept
    (0, 1, 4, ((0, 2), (0, 1, 3)))
    """
    parts = sum(system.workers_per_edge) if parts is None else parts
    check_count("parts", parts, 1)
    check_sampling(draws, seed)
    check_push(push)
    if model not in ("codes", "counts"):
        raise ConfigError(f"model = {model!r}: expected 'codes', what the engines do, or 'counts'")
    loads = _loads(system, parts)
    load_of = {tolerance: load for load, tolerances in loads.items() for tolerance in tolerances}
    by_surrogate = surrogate_times(system, parts)
    if not refine:
        found = {tolerance: _Estimate(seconds, math.nan) for tolerance, seconds in by_surrogate.items()}
    elif model == "counts":
        found = _by_counts(system, loads, draws, seed)
    else:
        found = _by_codes(system, parts, sorted(load_of), push, draws, seed)
    chosen = min(found, key=lambda tolerance: (found[tolerance].mean, tolerance))
    load = load_of[chosen]
    return Selection(
        edge_stragglers=chosen[0],
        worker_stragglers=chosen[1],
        load=load,
        kept=_kept(system, load, *chosen),
        expected=found[chosen].mean,
        standard_error=found[chosen].error,
        surrogate=by_surrogate[chosen],
        times=MappingProxyType({tolerance: estimate.mean for tolerance, estimate in found.items()}),
    )


def surrogate_times(system: System, parts: int) -> dict[Tolerance, Seconds]:
    """The iteration time of every (s_e, s_w) if everything took its expected time: the surrogate of :func:`select`.

    Parameters
    ----------
    system : System
        Edges and workers.
    parts : int
        K, how many data parts there are.

    Returns
    -------
    dict of (int, int) to float
        Seconds, in ascending order of (s_e, s_w).
    """
    # Keeping the nodes that are expected first, and waiting for the last of them, is an iteration without chance.
    sample = expected(system)
    found: dict[Tolerance, Seconds] = {}
    for load, tolerances in _loads(system, parts).items():
        found |= dict(zip(tolerances, sample.times(load, tolerances)[:, 0].tolist(), strict=True))
    return dict(sorted(found.items()))


def _loads(system: System, parts: int) -> _Loads:
    """All tolerances by their load: many have the same, and a worker's times depend on nothing else."""
    workers = system.workers_per_edge
    found: dict[int, list[Tolerance]] = {}
    for edge_stragglers in range(len(workers)):
        for worker_stragglers in range(min(workers)):
            load = least_load(workers, parts, edge_stragglers, worker_stragglers)
            found.setdefault(load, []).append((edge_stragglers, worker_stragglers))
    return found


def _by_counts(system: System, loads: _Loads, draws: int, seed: int) -> dict[Tolerance, _Estimate]:
    sums = {tolerance: np.zeros(2) for tolerances in loads.values() for tolerance in tolerances}
    for sample in samples(system, draws, seed):
        for load, tolerances in loads.items():
            for tolerance, times in zip(tolerances, sample.times(load, tolerances), strict=True):
                sums[tolerance] += times.sum(), np.square(times).sum()
    found = {}
    for tolerance in sorted(sums):
        mean, square = sums[tolerance] / draws
        found[tolerance] = _Estimate(float(mean), math.sqrt(max(0.0, square - mean * mean) / (draws - 1)))
    return found


def _by_codes(
    system: System, parts: int, tolerances: Sequence[Tolerance], push: Push, draws: int, seed: int
) -> dict[Tolerance, _Estimate]:
    rows, updates, settled = course(draws)
    workers = system.workers_per_edge
    found: dict[Tolerance, _Estimate] = {}
    near: dict[Tolerance, Succession] = {}
    since = {tolerance: np.zeros(rows) for tolerance in tolerances}

    def go_on(successions: Mapping[Tolerance, Succession], first: int, last: int) -> None:
        blocks = islice(samples(system, last * rows, seed, rows), first, last)
        for number, sample in enumerate(blocks, first + 1):
            for tolerance, succession in successions.items():
                now = succession.advance(sample)
                if number == settled:
                    since[tolerance] = now
        for tolerance, succession in successions.items():
            each = (succession.now - since[tolerance]) / (last - settled)
            found[tolerance] = _Estimate(float(each.mean()), float(each.std(ddof=1)) / math.sqrt(rows))

    for start in range(0, len(tolerances), TOGETHER):
        some = tolerances[start : start + TOGETHER]
        made = {tolerance: Succession(HierarchicalCode(workers, parts, *tolerance), push, rows) for tolerance in some}
        go_on(made, 0, updates)
        limit = NEAR * min(estimate.mean for estimate in found.values())
        near = {tolerance: one for tolerance, one in (near | made).items() if found[tolerance].mean <= limit}
    go_on(near, updates, LONGER * updates)
    return found


def _kept(system: System, load: int, edge_stragglers: int, worker_stragglers: int) -> tuple[tuple[int, ...], ...]:
    kept, ready = [], []
    for edge in system.edges:
        means = [worker.mean(load) for worker in edge.workers]
        first = np.argsort(means, kind="stable")[: len(means) - worker_stragglers]
        kept.append(tuple(sorted(first.tolist())))
        ready.append(edge.mean_transfers + max(means[worker] for worker in first))
    used = set(np.argsort(ready, kind="stable")[: len(ready) - edge_stragglers].tolist())
    return tuple(workers if edge in used else () for edge, workers in enumerate(kept))
