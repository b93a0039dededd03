"""No code at all: take the first that come and drop the rest, which biases the gradient."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from consensus.coding.arrays import Floats
from consensus.coding.gradient_code import GradientCode
from consensus.coding.hierarchical import HierarchicalCode
from consensus.coding.layer import Combination, Group
from consensus.coding.load import least_load
from consensus.coding.turnout import present, too_few


class FirstArrivals:
    """A layer that is content with the first of its nodes and scales up what they sent.

    Parameters
    ----------
    counts : sequence of int, shape (size,)
        Parts that each node's vector is the plain sum of, or an estimate of that sum.
    stragglers : int
        Participants not waited for; one always is.
    name, child : str
        What messages call the layer and a node below it.

    Attributes
    ----------
    name : str
    size : int
    participants : tuple of int
    needed : int
    groups : tuple of Group
        All participants, if there are any.
    """

    kappa_exact = True

    def __init__(self, counts: Sequence[int], stragglers: int, name: str, child: str) -> None:
        self.name, self._child, self.size = name, child, len(counts)
        self._counts = tuple(counts)
        self.participants = tuple(node for node, count in enumerate(counts) if count)
        self.needed = max(min(1, len(self.participants)), len(self.participants) - stragglers)
        self.groups = (Group(self.participants, self.needed, self.needed),) * bool(self.participants)

    def sufficient(self, alive: Iterable[int]) -> bool:
        """Whether they are as many as are waited for."""
        return len(present(self.name, alive, self.size, self.participants)) >= self.needed

    def combine(self, alive: Iterable[int], *, approximate: bool = False) -> Combination:
        """The sum of what came, times all parts by those that came; its residual is 1 or more unless all came.

        Parameters
        ----------
        alive : iterable of int
            Nodes that came.
        approximate : bool
            Be content with fewer, though not with none.

        Raises
        ------
        CodingError
            If they are not enough, nobody came, or one of them is no node of this layer.
        """
        came = present(self.name, alive, self.size, self.participants)
        nothing = not came and self.needed
        if nothing or (len(came) < self.needed and not approximate):
            raise too_few(self.name, self._child, came, self.participants, self.needed)
        held = sum(self._counts[node] for node in came)
        scale = sum(self._counts) / held if held else 1.0
        weights = np.full(len(came), scale)
        weights.flags.writeable = False
        missing = 1.0 if len(came) < len(self.participants) else 0.0
        return Combination(self.name, tuple(came), weights, max(missing, scale - 1))

    def worst(self, factors: Floats | None = None) -> Floats:
        """The factor by which the parts of the smallest nodes are scaled up if only they come, shape (items,)."""
        total = sum(self._counts)
        fewest = sum(sorted(count for count in self._counts if count)[: self.needed])
        inner = np.ones(total) if factors is None else factors.max(axis=0)
        return np.asarray(inner * (total / fewest if fewest else 1.0))


class GreedyCode(GradientCode):
    """Every part at one worker; the first n - s_e edges and m_i - s_w workers are taken.

    Sums of what came are scaled up by the parts that are missing: the mean gradient of the parts that were fast. Where slow nodes
    hold other data, or are always the same, it is biased, whatever the step.

    Parameters
    ----------
    workers_per_edge : sequence of int, shape (n,)
    parts : int
    edge_stragglers, worker_stragglers : int
        Nodes not waited for.

    Raises
    ------
    ConfigError
        As by :class:`~consensus.coding.hierarchical.HierarchicalCode`.

    Examples
    --------
    >>> greedy = GreedyCode([2, 2], parts=4, edge_stragglers=0, worker_stragglers=1)
    >>> greedy.edge_weights(0, [1])
    Combination(layer='edge 0', nodes=(1,), weights=array([2.]), residual=1.0)
    """

    def __init__(self, workers_per_edge: Sequence[int], parts: int, edge_stragglers: int, worker_stragglers: int) -> None:
        least_load(workers_per_edge, parts, edge_stragglers, worker_stragglers)
        plain = HierarchicalCode(workers_per_edge, parts, 0, 0)
        held = [
            [plain.assignment(edge, worker) for worker in range(workers)] for edge, workers in enumerate(plain.workers_per_edge)
        ]
        counts = [[len(parts) for parts in row] for row in held]
        edges = [FirstArrivals(row, worker_stragglers, f"edge {edge}", "worker") for edge, row in enumerate(counts)]
        master = FirstArrivals([sum(row) for row in counts], edge_stragglers, "master", "edge")
        edge_parts = [tuple(part for parts in row for part in parts) for row in held]
        shares = [[(parts, np.ones(len(parts))) for parts in row] for row in held]
        super().__init__(workers_per_edge, parts, plain.load, master, edges, edge_parts, shares)
