r"""How long an iteration takes: the runtime model of coded training, sampled.

A worker's vector is at its edge after :math:`W_{ij} = D c_{ij} + X + \tau_{ij} (N' + N'')` seconds, X exponential with mean
:math:`D / \gamma_{ij}`, N' and N'' the geometric numbers of transmissions down and up. Where seconds per part were measured
(``Worker.measured``), D times one of those stands in place of :math:`D c_{ij} + X`. An edge goes on when
:math:`m_i - s_w` vectors are there, and the master has its vector :math:`U_i`, two such transfers, later. The iteration ends
when it has those of :math:`n - s_e` edges.

It is a pessimistic account of an iteration: it charges every worker the full D parts, of which some hold one fewer, and smaller
sets can often be decoded. It is an optimistic one of many, since all nodes are idle when one begins. What the engines do is in
:mod:`consensus.coding.succession`, of the same samples.

References
----------
The setting: Tang, Li, Chen, Chen, arXiv 2406.10831. The paper's body was not at hand; the model is our completion.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from consensus.coding.counts import check_count
from consensus.coding.load import check_stragglers
from consensus.coding.system import Node, System

Floats: TypeAlias = NDArray[np.float64]

Tolerance: TypeAlias = tuple[int, int]
"""How many edges may be silent, and how many workers at every other one."""

_BLOCK = 1 << 17
"""Worker times that are sampled at once: a megabyte per array stays in the processor's cache."""


@dataclass(frozen=True, eq=False)
class Sample:
    """What chance gives every node in a number of iterations, for all loads and tolerances in common.

    Attributes
    ----------
    part : ndarray of float64, shape (draws, edges, most workers of an edge)
        Seconds per part; infinite where an edge has fewer workers.
    down, up : ndarray of float64, of the same shape
        Seconds of each worker's transfers: weights to it, its vector to the edge.
    edge_down, edge_up : ndarray of float64, shape (draws, edges)
        Seconds of each edge's.
    workers : ndarray of int, shape (edges,)
        How many workers each edge has.
    """

    part: Floats
    down: Floats
    up: Floats
    edge_down: Floats
    edge_up: Floats
    workers: NDArray[np.int_]

    def times(self, load: int, tolerances: Sequence[Tolerance]) -> Floats:
        """Iteration times at one load, by counts: n - s_e edges and m_i - s_w workers are waited for, whichever they are.

        Parameters
        ----------
        load : int
            D, parts per worker.
        tolerances : sequence of (int, int)
            Pairs (s_e, s_w).

        Returns
        -------
        ndarray of float64, shape (tolerances, draws)
            Seconds.
        """
        arrivals = np.sort(load * self.part + (self.down + self.up), axis=-1)
        edge = self.edge_down + self.edge_up
        at_master: dict[int, Floats] = {}
        result = np.empty((len(tolerances), len(edge)))
        for row, (edge_stragglers, worker_stragglers) in enumerate(tolerances):
            if worker_stragglers not in at_master:
                last = (self.workers - worker_stragglers - 1)[None, :, None]
                decoded = np.take_along_axis(arrivals, last, axis=-1)[..., 0]
                at_master[worker_stragglers] = np.sort(edge + decoded, axis=-1)
            result[row] = at_master[worker_stragglers][:, len(self.workers) - edge_stragglers - 1]
        return result


def expected(system: System) -> Sample:
    """The sample of one iteration in which everything takes the time it is expected to."""
    way = _table(system, [[worker.mean_transfers / 2 for worker in edge.workers] for edge in system.edges], 0.0)[None]
    edge_way = np.array([[edge.mean_transfers / 2 for edge in system.edges]])
    return Sample(
        part=_table(system, [[worker.mean_part for worker in edge.workers] for edge in system.edges], np.inf)[None],
        down=way,
        up=way,
        edge_down=edge_way,
        edge_up=edge_way,
        workers=np.array(system.workers_per_edge),
    )


def samples(system: System, draws: int, seed: int, block: int | None = None) -> Iterator[Sample]:
    """Sample iterations, in blocks.

    Everything is made of unit exponentials, as many in each iteration as the numbers of edges and workers ask for. So two loads,
    two tolerances, or two systems of the same shape, are compared with common random numbers under one seed: their difference
    is far less noisy than either mean. That holds for measured times too: an exponential that is exceeded with probability q
    becomes the time that is. More draws go on where fewer end.

    Parameters
    ----------
    system : System
        Whose times.
    draws : int
        How many iterations in all.
    seed : int
        0 or more.
    block : int, optional
        How many at once; by default as many as the processor's cache has room for.

    Yields
    ------
    Sample
        Of the next iterations.
    """
    workers = [edge.workers for edge in system.edges]
    c = _table(system, [[worker.c for worker in row] for row in workers], np.inf)
    scale = _table(system, [[1.0 / worker.gamma for worker in row] for row in workers], 0.0)
    tau, per_loss = (_table(system, [[values[k] for values in map(_link, row)] for row in workers], 0.0) for k in (0, 1))
    measured = {
        (edge, number): np.array(worker.measured)
        for edge, row in enumerate(workers)
        for number, worker in enumerate(row)
        if worker.measured
    }
    edge_tau, edge_per_loss = np.array([_link(edge) for edge in system.edges]).T
    generator = np.random.default_rng(seed)
    block = max(1, _BLOCK // c.size) if block is None else block
    for start in range(0, draws, block):
        count = min(block, draws - start)
        drawn = generator.standard_exponential((count, 3 * c.size + 2 * len(c)))
        unit = drawn[:, : 3 * c.size].reshape(count, 3, *c.shape)
        edge_unit = drawn[:, 3 * c.size :].reshape(count, 2, len(c))
        part = c + scale * unit[:, 0]
        for (edge, number), ascending in measured.items():
            part[:, edge, number] = _drawn(ascending, unit[:, 0, edge, number])
        yield Sample(
            part=part,
            down=tau * _transmissions(unit[:, 1], per_loss),
            up=tau * _transmissions(unit[:, 2], per_loss),
            edge_down=edge_tau * _transmissions(edge_unit[:, 0], edge_per_loss),
            edge_up=edge_tau * _transmissions(edge_unit[:, 1], edge_per_loss),
            workers=np.array(system.workers_per_edge),
        )


def iteration_times(
    system: System, load: int, edge_stragglers: int, worker_stragglers: int, *, draws: int = 4000, seed: int = 0
) -> Floats:
    """Sample how long iterations take.

    Parameters
    ----------
    system : System
        The nodes and their links.
    load : int
        D, how many parts each worker computes; :func:`~consensus.coding.load.least_load` for a code, the load of no stragglers
        for a scheme that loses what is late.
    edge_stragglers, worker_stragglers : int
        s_e and s_w: how many edges, and workers at each of the others, are not waited for.
    draws : int
        How many iterations.
    seed : int
        0 or more. Under the same seed different loads and tolerances meet the same random numbers.

    Returns
    -------
    ndarray of float64, shape (draws,)
        Seconds.

    Raises
    ------
    ConfigError
        If a count is out of range.

    Examples
    --------
    Ten workers with eight parts each, of which the slowest three are not waited for; the expectation is
    8 (0.02 + (1/10 + ... + 1/4) / 60) = 0.30608 seconds:

    >>> from consensus.coding.system import Edge, Worker
    >>> system = System([Edge(workers=[Worker(c=0.02, gamma=60.0)] * 10)])
    >>> print(f"{iteration_times(system, 8, 0, 3, draws=100_000).mean():.3f}")
    0.306
    """
    check_stragglers(system.workers_per_edge, edge_stragglers, worker_stragglers)
    check_sampling(draws, seed)
    check_count("load", load, 1)
    tolerance = [(edge_stragglers, worker_stragglers)]
    return np.concatenate([sample.times(load, tolerance)[0] for sample in samples(system, draws, seed)])


def check_sampling(draws: int, seed: int) -> None:
    """Refuse numbers that nothing can be sampled with.

    Parameters
    ----------
    draws : int
        Should be 2 or more, so that the error of a mean can be told.
    seed : int
        Should be 0 or more.

    Raises
    ------
    ConfigError
        If they are not.
    """
    check_count("draws", draws, 2)
    check_count("seed", seed, 0)


def _table(system: System, rows: Sequence[Sequence[float]], filler: float) -> Floats:
    """One row per edge, those of edges with fewer workers filled up."""
    table = np.full((len(rows), max(system.workers_per_edge)), filler)
    for edge, row in enumerate(rows):
        table[edge, : len(row)] = row
    return table


def _drawn(ascending: Floats, unit: Floats) -> Floats:
    """Of times in ascending order, all as likely, those at the quantiles of unit exponentials."""
    places = (-np.expm1(-unit) * ascending.size).astype(np.intp)
    chosen: Floats = ascending[np.minimum(places, ascending.size - 1)]  # the quantile of a huge one is rounded to 1
    return chosen


def _link(node: Node) -> tuple[float, float]:
    """tau, and the factor that makes an exponential number of losses of a unit exponential: 1 / ln (1/p), 0 if p is."""
    return node.tau, -1.0 / float(np.log(node.p)) if node.p > 0.0 else 0.0


def _transmissions(unit: Floats, per_loss: Floats) -> Floats:
    """N: 1 and the whole number of losses, which reaches k with probability p^k as the exponential does."""
    losses: Floats = np.floor(unit * per_loss)
    return 1.0 + losses
