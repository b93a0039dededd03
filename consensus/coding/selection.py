"""How many stragglers a code should tolerate: joint node and coding scheme selection (JNCSS).

A code that tolerates more stragglers waits for fewer nodes and gives each more to compute. Which tolerance is the fastest is a
question of the nodes' times, and this module answers it for a :class:`~consensus.coding.system.System`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeAlias

import numpy as np

from consensus.coding.counts import check_count
from consensus.coding.load import least_load
from consensus.coding.runtime import Tolerance, check_sampling, expected, iteration_times, samples
from consensus.coding.system import System
from consensus.types import Seconds

_Loads: TypeAlias = Mapping[int, list[Tolerance]]


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


def select(system: System, parts: int, *, refine: bool = True, draws: int = 4000, seed: int = 0) -> Selection:
    r"""Choose the numbers of silent edges and silent workers that make iterations shortest.

    *The surrogate.* For every (s_e, s_w) with its least load D: at each edge keep the :math:`m_i - s_w` workers of least
    :math:`E W`, let :math:`t_i` be :math:`E U_i` and the largest kept :math:`E W`, keep the :math:`n - s_e` edges of least
    :math:`t_i`; the largest of those is the time. For the surrogate that is the best choice of nodes, as exchanging a kept node
    for another can only raise a maximum. But it takes expectations for times, and so sees no worth in being able to lose a node
    that is slow only now and then.

    *Refined*, which is the default: the mean iteration time of every (s_e, s_w) is simulated with common random numbers, and the
    least is chosen. That is the smallest of many noisy numbers, and therefore a little smaller than it will turn out to be; with
    4,000 draws by less than the standard error, as a rule.

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
    parts : int
        K, into how many parts the data are divided. The seconds of a worker are per such part.
    refine : bool
        Whether to simulate; the surrogate alone is much faster, but its choice can be twice as slow as the best.
    draws : int
        How many iterations to simulate.
    seed : int
        Of the simulation, 0 or more.

    Returns
    -------
    Selection
        The best tolerance; of equals that of fewest silent edges, then workers.

    Raises
    ------
    ConfigError
        If there is no part, or a number of the simulation is out of range.

    References
    ----------
    The problem: Tang, Li, Chen, Chen, *Design and Optimization of Hierarchical Gradient Coding for Distributed Learning at Edge
    Devices*, arXiv 2406.10831. The paper's body was not at hand; surrogate and refinement are our completion.

    Examples
    --------
    >>> from consensus.coding.system import Edge, Worker
    >>> quick, slow = Worker(c=0.01, gamma=200.0), Worker(c=0.1, gamma=200.0)
    >>> system = System([Edge(workers=[quick, slow, quick]), Edge(workers=[quick, quick, slow, quick])])
    >>> choice = select(system, parts=14)
    >>> choice.edge_stragglers, choice.worker_stragglers, choice.load, choice.kept
    (0, 1, 4, ((0, 2), (0, 1, 3)))
    """
    check_count("parts", parts, 1)
    check_sampling(draws, seed)
    loads = _loads(system, parts)
    load_of = {tolerance: load for load, tolerances in loads.items() for tolerance in tolerances}
    by_surrogate = surrogate_times(system, parts)
    times = _simulated(system, loads, draws, seed) if refine else by_surrogate
    chosen = min(times, key=lambda tolerance: (times[tolerance], tolerance))
    load = load_of[chosen]
    error = math.nan
    if refine:
        error = float(iteration_times(system, load, *chosen, draws=draws, seed=seed).std(ddof=1)) / math.sqrt(draws)
    return Selection(
        edge_stragglers=chosen[0],
        worker_stragglers=chosen[1],
        load=load,
        kept=_kept(system, load, *chosen),
        expected=times[chosen],
        standard_error=error,
        surrogate=by_surrogate[chosen],
        times=MappingProxyType(times),
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


def _simulated(system: System, loads: _Loads, draws: int, seed: int) -> dict[Tolerance, Seconds]:
    totals = {tolerance: 0.0 for tolerances in loads.values() for tolerance in tolerances}
    for sample in samples(system, draws, seed):
        for load, tolerances in loads.items():
            for tolerance, total in zip(tolerances, sample.times(load, tolerances).sum(axis=1).tolist(), strict=True):
                totals[tolerance] += total
    return {tolerance: totals[tolerance] / draws for tolerance in sorted(totals)}


def _kept(system: System, load: int, edge_stragglers: int, worker_stragglers: int) -> tuple[tuple[int, ...], ...]:
    kept, ready = [], []
    for edge in system.edges:
        means = [worker.mean(load) for worker in edge.workers]
        first = np.argsort(means, kind="stable")[: len(means) - worker_stragglers]
        kept.append(tuple(sorted(first.tolist())))
        ready.append(edge.mean_transfers + max(means[worker] for worker in first))
    used = set(np.argsort(ready, kind="stable")[: len(ready) - edge_stragglers].tolist())
    return tuple(workers if edge in used else () for edge, workers in enumerate(kept))
