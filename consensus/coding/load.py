"""How many data parts a worker must compute so that a given number of silent edges and workers can be lost."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

from consensus.coding.counts import check_count
from consensus.errors import ConfigError


def least_load(workers_per_edge: Sequence[int], parts: int, edge_stragglers: int, worker_stragglers: int) -> int:
    r"""The least number D of parts per worker with which the stragglers can be lost: the exact integer optimum.

    Every part must be at :math:`s_e + 1` edges, and there at :math:`s_w + 1` workers. An edge of :math:`m_i` workers that hold
    at most D parts each covers :math:`\min(K, \lfloor D m_i / (s_w + 1) \rfloor)` of the K parts, so that D suffices if and
    only if

    .. math:: \sum_i \min(K, \lfloor D m_i / (s_w + 1) \rfloor) \ge K (s_e + 1).

    The left side grows with D, and at D = K it is :math:`n K`: the least D is found by bisection.

    Parameters
    ----------
    workers_per_edge : sequence of int
        m_i, how many workers each of the n edges has.
    parts : int
        K, into how many parts the data are divided.
    edge_stragglers : int
        s_e, how many edges may be silent, 0 to n - 1.
    worker_stragglers : int
        s_w, how many workers may be silent at every other edge, 0 to min m_i - 1.

    Returns
    -------
    int
        D, from 1 to K. It is at least the paper's bound :math:`K (s_e + 1)(s_w + 1) / \sum_i m_i`, and equal to it if that is an
        integer, no floor rounds and no edge is saturated (holds all parts).

    Raises
    ------
    ConfigError
        If an edge has no worker, there is no part, or one straggler too many is to be lost.

    References
    ----------
    The bound: Tang, Li, Chen, Chen, *Design and Optimization of Hierarchical Gradient Coding for Distributed Learning at Edge
    Devices*, arXiv 2406.10831. The integer optimum is ours.

    Examples
    --------
    >>> least_load((10, 10, 10, 10), parts=40, edge_stragglers=1, worker_stragglers=2)
    6

    The bound is 20 parts here, but the two small edges cannot hold their share:

    >>> least_load((3, 3, 12), parts=60, edge_stragglers=1, worker_stragglers=2)
    30
    """
    check_stragglers(workers_per_edge, edge_stragglers, worker_stragglers)
    check_count("parts", parts, 1)

    def held(load: int) -> int:
        return sum(min(parts, load * workers // (worker_stragglers + 1)) for workers in workers_per_edge)

    return 1 + bisect_left(range(1, parts + 1), parts * (edge_stragglers + 1), key=held)


def check_stragglers(workers_per_edge: Sequence[int], edge_stragglers: int, worker_stragglers: int) -> None:
    """Refuse edges and stragglers of which no code can be made.

    Parameters
    ----------
    workers_per_edge : sequence of int
        How many workers each edge has, 1 or more each.
    edge_stragglers : int
        Should leave an edge that answers.
    worker_stragglers : int
        Should leave a worker that answers at every edge.

    Raises
    ------
    ConfigError
        If they do not.
    """
    if not workers_per_edge:
        raise ConfigError("workers_per_edge is empty: expected the number of workers of at least one edge, like [3, 4, 5]")
    for edge, workers in enumerate(workers_per_edge):
        check_count(f"workers_per_edge[{edge}]", workers, 1)
    check_count("edge_stragglers", edge_stragglers, 0)
    check_count("worker_stragglers", worker_stragglers, 0)
    edges, fewest = len(workers_per_edge), min(workers_per_edge)
    if edge_stragglers >= edges:
        raise ConfigError(
            f"edge_stragglers = {edge_stragglers}: expected 0 to {edges - 1}, as there are {edges} edges and one must answer; "
            f"lower it or add edges"
        )
    if worker_stragglers >= fewest:
        raise ConfigError(
            f"worker_stragglers = {worker_stragglers}: expected 0 to {fewest - 1}, as edge "
            f"{list(workers_per_edge).index(fewest)} has {fewest} workers and one must answer; lower it or give that edge more"
        )
