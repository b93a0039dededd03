"""Workers, edges and a master that compute one gradient together: the interface of every scheme."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from consensus.coding.arrays import Floats, Vector
from consensus.coding.layer import Combination, Layer
from consensus.coding.precision import check_precision
from consensus.coding.vectors import weighted_sum
from consensus.errors import CodingError, ConfigError


class GradientCode:
    """Who computes which parts, and how what is sent is summed.

    The sum of the gradients of all K parts is what comes out; divide it once, at the end. Edges, workers of an edge and parts are
    numbered from 0.

    Parameters
    ----------
    workers_per_edge : sequence of int, shape (n,)
    parts : int
        K.
    load : int
        Most parts at any worker.
    master : Layer
        The nodes that send to the master: edges, or all workers if there are no edge layers.
    edges : sequence of Layer
        The workers that send to each edge; empty if workers send to the master.
    edge_parts : sequence of tuple of int, shape (n,)
        The parts that each edge's items are; empty if there are no edge layers.
    shares : sequence, shape (n, m_i)
        By edge and worker, the parts held and their coefficients.

    Attributes
    ----------
    workers_per_edge : tuple of int
    parts, load : int
    master : Layer
    edges : tuple of Layer
    """

    def __init__(
        self,
        workers_per_edge: Sequence[int],
        parts: int,
        load: int,
        master: Layer,
        edges: Sequence[Layer],
        edge_parts: Sequence[tuple[int, ...]],
        shares: Sequence[Sequence[tuple[tuple[int, ...], Floats]]],
    ) -> None:
        self.workers_per_edge = tuple(workers_per_edge)
        self.parts = parts
        self.load = load
        self.master = master
        self.edges = tuple(edges)
        self._edge_parts = tuple(edge_parts)
        self._shares = tuple(tuple(row) for row in shares)
        for row in self._shares:
            for _, numbers in row:
                numbers.flags.writeable = False

    @property
    def direct(self) -> bool:
        """Whether workers send to the master, past the edges."""
        return not self.edges

    @property
    def loads(self) -> tuple[int, ...]:
        """How many parts each worker computes, edge by edge."""
        return tuple(len(parts) for row in self._shares for parts, _ in row)

    def node(self, edge: int, worker: int) -> int:
        """A worker's number in the layer that it sends to: its own at its edge, that among all workers at a direct master."""
        self._share(edge, worker)
        return worker + sum(self.workers_per_edge[:edge]) * self.direct

    def assignment(self, edge: int, worker: int) -> tuple[int, ...]:
        """The parts whose gradients a worker computes, in the order of :meth:`coefficients`; none if it takes no part."""
        return self._share(edge, worker)[0]

    def coefficients(self, edge: int, worker: int) -> Floats:
        """What a worker multiplies its parts' gradients by before it sums them, both layers' coefficients in one.

        Returns
        -------
        ndarray, shape (len(assignment),), float64
            Read-only.
        """
        return self._share(edge, worker)[1]

    def encode(self, edge: int, worker: int, gradients: Sequence[Vector] | Vector) -> Vector:
        """The vector that a worker sends.

        Parameters
        ----------
        edge, worker : int
        gradients : ndarray, shape (parts held, size), or sequence of ndarray, shape (size,)
            In the order of :meth:`assignment`, of one floating dtype.

        Returns
        -------
        ndarray, shape (size,)
            Of that dtype.

        Raises
        ------
        CodingError
            If there is not one gradient for each part, or they do not fit together.
        """
        parts, numbers = self._share(edge, worker)
        where = f"worker {worker} of edge {edge}"
        if len(gradients) != len(parts):
            raise CodingError(
                f"{where}: {len(gradients)} gradients came, expected {len(parts)}: one of each part it holds, {list(parts)}, in "
                f"this order"
            )
        return weighted_sum(numbers, gradients, where)

    def edge_weights(self, edge: int, alive: Iterable[int], *, approximate: bool = False) -> Combination:
        """How an edge sums its workers' vectors, see :meth:`~consensus.coding.layer.Layer.combine`."""
        return self._edge(edge).combine(alive, approximate=approximate)

    def decode_edge(self, edge: int, received: Mapping[int, Vector], *, approximate: bool = False) -> Vector:
        """The vector that an edge sends.

        Parameters
        ----------
        edge : int
        received : mapping of int to ndarray, shape (size,)
            What its workers sent, by worker; all that came, however many.
        approximate : bool
            If too few came, sum what there is as well as it can be; ask :meth:`edge_weights` for the residual.

        Returns
        -------
        ndarray, shape (size,)

        Raises
        ------
        CodingError
            If too few came, or vectors do not fit together.
        """
        return self.edge_weights(edge, received, approximate=approximate).sum(received)

    def master_weights(self, alive: Iterable[int], *, approximate: bool = False) -> Combination:
        """How the master sums what it gets, see :meth:`~consensus.coding.layer.Layer.combine`."""
        return self.master.combine(alive, approximate=approximate)

    def decode_master(self, received: Mapping[int, Vector], *, approximate: bool = False) -> Vector:
        """The sum of the gradients of all parts.

        Parameters
        ----------
        received : mapping of int to ndarray, shape (size,)
            What came, by edge, or by :meth:`node` if workers send to the master.
        approximate : bool
            If too few came, sum what there is as well as it can be; ask :meth:`master_weights` for the residual.

        Returns
        -------
        ndarray, shape (size,)

        Raises
        ------
        CodingError
            If too few came, or vectors do not fit together.
        """
        return self.master_weights(received, approximate=approximate).sum(received)

    @property
    def kappa(self) -> float:
        r"""The amplification of rounding errors by both layers together.

        Part k comes to the master along every edge i that has it, and there along every worker j:
        :math:`\sum_i |A_i| |b_{ik}| \sum_j |a_{ij}| |b_{ijk}|`. As each edge may lose whichever workers it will, the worst inner
        sum of every edge enters the worst outer sum: their maximum is exact, and at most the product of the layers' own.
        """
        if self.direct:
            return float(self.master.worst().max())
        factors = np.zeros((len(self.edges), self.parts))
        for row, layer, parts in zip(factors, self.edges, self._edge_parts, strict=True):
            row[list(parts)] = layer.worst()
        return float(self.master.worst(factors).max())

    @property
    def kappa_exact(self) -> bool:
        """Whether all patterns were gone through for ``kappa``; if not it is an estimate from below."""
        return all(layer.kappa_exact for layer in (self.master, *self.edges))

    def check_dtype(self, dtype: str, *, allow: bool = False) -> None:
        """Refuse a payload that ``kappa`` is too large for, see :func:`~consensus.coding.precision.check_precision`.

        Parameters
        ----------
        dtype : {"float64", "float32", "bfloat16"}
        allow : bool
            Let it pass all the same.

        Raises
        ------
        ConfigError
            If the dtype is unknown, or kappa is above its limit and ``allow`` is false.
        """
        check_precision(self.kappa, dtype, estimated=not self.kappa_exact, allow=allow)

    def _edge(self, edge: int) -> Layer:
        if self.direct:
            raise CodingError(f"edge {edge}: workers send to the master in this scheme; call decode_master with all that came")
        if not 0 <= edge < len(self.edges):
            raise ConfigError(f"edge = {edge}: expected 0 to {len(self.edges) - 1}")
        return self.edges[edge]

    def _share(self, edge: int, worker: int) -> tuple[tuple[int, ...], Floats]:
        if not 0 <= edge < len(self._shares):
            raise ConfigError(f"edge = {edge}: expected 0 to {len(self._shares) - 1}")
        if not 0 <= worker < len(self._shares[edge]):
            raise ConfigError(f"worker = {worker}: edge {edge} has workers 0 to {len(self._shares[edge]) - 1}")
        return self._shares[edge][worker]
