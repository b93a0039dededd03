"""The two-layer code: any s_e edges, and at every other edge any s_w workers, may be silent."""

from __future__ import annotations

from collections.abc import Sequence

from consensus.coding.arcs import even_counts, proportional_counts
from consensus.coding.arrays import Floats
from consensus.coding.gradient_code import GradientCode
from consensus.coding.layer_code import LayerCode
from consensus.coding.load import least_load


class HierarchicalCode(GradientCode):
    r"""Hierarchical gradient coding: exact gradients in spite of silent edges and workers.

    The parts are the items of a code over the edges, and the parts at an edge, :math:`E_i`, those of a code over its workers.
    Worker (i, j) sends

    .. math:: z_{ij} = \sum_{p} b_{ijp} \, b_{i E_i[p]} \, g_{E_i[p]},

    edge i sums what came to :math:`y_i`, which is its own vector of the code above, and the master sums these to the gradient.
    Both use all that came, with weights of minimum norm.

    Parameters
    ----------
    workers_per_edge : sequence of int, shape (n,)
        m_i.
    parts : int
        K.
    edge_stragglers : int
        s_e, 0 to n - 1.
    worker_stragglers : int
        s_w, 0 to min m_i - 1.
    kind : {"auto", "ones", "trig", "gaussian"}
        Of coefficients, see :func:`consensus.coding.coefficients.coefficients`.
    seed : int
        Of what is drawn for them; every rank must pass the same.

    Attributes
    ----------
    edge_stragglers, worker_stragglers : int

    Raises
    ------
    ConfigError
        If one straggler too many is to be lost, an edge has no worker, there is no part, or the kind is not to be had.

    References
    ----------
    Setting and trade-off: Tang, Li, Chen, Chen, *Design and Optimization of Hierarchical Gradient Coding for Distributed Learning
    at Edge Devices*, arXiv 2406.10831, whose body was not at hand. Placement and coefficients are ours.

    Examples
    --------
    >>> import numpy as np
    >>> code = HierarchicalCode([2, 2, 2], parts=6, edge_stragglers=1, worker_stragglers=1)
    >>> code.load, code.assignment(0, 1)
    (4, (0, 1, 2, 3))
    >>> gradients = np.arange(12.0).reshape(6, 2)
    >>> def sent(edge, worker):
    ...     return code.encode(edge, worker, gradients[list(code.assignment(edge, worker))])
    >>> upward = {edge: code.decode_edge(edge, {1: sent(edge, 1)}) for edge in (0, 2)}
    >>> np.allclose(code.decode_master(upward), gradients.sum(axis=0))
    True
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
        load = least_load(workers_per_edge, parts, edge_stragglers, worker_stragglers)
        self.edge_stragglers, self.worker_stragglers = edge_stragglers, worker_stragglers
        counts = _edge_counts(workers_per_edge, parts, edge_stragglers, worker_stragglers, load)
        master = LayerCode(counts, edge_stragglers, kind=kind, seed=seed, name="master", child="edge")
        codes: dict[tuple[int, int], LayerCode] = {}
        edges = []
        for edge, shape in enumerate(zip(workers_per_edge, counts, strict=True)):
            workers, items = shape
            if shape not in codes:
                split = even_counts(items, workers, worker_stragglers)
                codes[shape] = LayerCode(split, worker_stragglers, kind=kind, seed=seed, child="worker")
            edges.append(codes[shape].renamed(f"edge {edge}"))
        held = [master.held(edge) for edge in range(master.size)]
        shares = [[_share(master, edge, layer, worker) for worker in range(layer.size)] for edge, layer in enumerate(edges)]
        super().__init__(workers_per_edge, parts, load, master, edges, held, shares)


def _share(master: LayerCode, edge: int, layer: LayerCode, worker: int) -> tuple[tuple[int, ...], Floats]:
    """Parts of a worker, and the product of both layers' coefficients of each."""
    positions = layer.held(worker)
    held = master.held(edge)
    parts = tuple(held[position] for position in positions)
    return parts, layer.matrix[worker, list(positions)] * master.matrix[edge, list(parts)]


def _edge_counts(
    workers_per_edge: Sequence[int], parts: int, edge_stragglers: int, worker_stragglers: int, load: int
) -> tuple[int, ...]:
    """n_i, parts at each edge: as its workers are many, unless it is full."""
    if len(set(workers_per_edge)) == 1:
        return even_counts(parts, len(workers_per_edge), edge_stragglers)
    caps = [min(parts, load * workers // (worker_stragglers + 1)) for workers in workers_per_edge]
    return proportional_counts(parts * (edge_stragglers + 1), workers_per_edge, caps)
