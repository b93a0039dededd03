"""A one-layer code over all workers, which send to the master past the edges."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise

from consensus.coding.arcs import even_counts
from consensus.coding.gradient_code import GradientCode
from consensus.coding.layer_code import LayerCode
from consensus.coding.load import least_load


def silent_workers(workers_per_edge: Sequence[int], edge_stragglers: int, worker_stragglers: int) -> int:
    """The most workers that are silent if s_e edges and, at every other edge, s_w workers are.

    Examples
    --------
    >>> silent_workers([10, 10, 10, 10], edge_stragglers=1, worker_stragglers=2)
    16
    """
    falling = sorted(workers_per_edge, reverse=True)
    return sum(falling[:edge_stragglers]) + worker_stragglers * (len(falling) - edge_stragglers)


class FlatCode(GradientCode):
    """A flat gradient code that survives the losses of a :class:`~consensus.coding.hierarchical.HierarchicalCode`.

    It cannot tell a lost edge from as many lost workers anywhere, and pays for that with parts, with vectors at the master, and
    with a large ``kappa``. Worker (i, j) is node ``code.node(i, j)`` of the master's.

    Parameters
    ----------
    workers_per_edge : sequence of int, shape (n,)
    parts : int
    edge_stragglers, worker_stragglers : int
        The losses to survive.
    kind, seed
        As for the hierarchical code.

    Attributes
    ----------
    stragglers : int
        Silent workers that it survives, wherever they are.

    Raises
    ------
    ConfigError
        As by the hierarchical code.

    References
    ----------
    Tandon, Lei, Dimakis, Karampatziakis, *Gradient Coding: Avoiding Stragglers in Distributed Learning*, ICML 2017.

    Examples
    --------
    >>> flat = FlatCode([10, 10, 10, 10], parts=40, edge_stragglers=1, worker_stragglers=2)
    >>> flat.load / flat.parts, flat.master.needed
    (0.425, 24)
    """

    def __init__(
        self,
        workers_per_edge: Sequence[int],
        parts: int,
        edge_stragglers: int,
        worker_stragglers: int,
        *,
        kind: str = "auto",
        seed: int = 0,
    ) -> None:
        least_load(workers_per_edge, parts, edge_stragglers, worker_stragglers)
        workers = sum(workers_per_edge)
        self.stragglers = silent_workers(workers_per_edge, edge_stragglers, worker_stragglers)
        counts = even_counts(parts, workers, self.stragglers)
        master = LayerCode(counts, self.stragglers, kind=kind, seed=seed, name="master", child="worker")
        every = [(master.held(node), master.matrix[node, list(master.held(node))]) for node in range(workers)]
        ends = list(accumulate(workers_per_edge, initial=0))
        shares = [every[start:end] for start, end in pairwise(ends)]
        super().__init__(workers_per_edge, parts, max(counts), master, (), (), shares)
