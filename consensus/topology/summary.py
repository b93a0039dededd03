"""What there is to know about a graph before choosing it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import networkx as nx

from consensus.topology.backbone import backbone
from consensus.topology.spectrum import mixing_time, spectral_gap
from consensus.topology.weights import metropolis

if TYPE_CHECKING:
    from consensus.types import Edge


@dataclass(frozen=True)
class Summary:
    """A graph in numbers; ``spectral_gap`` and ``mixing_time`` (rounds, to 1 % of the disagreement) are of Metropolis weights."""

    nodes: int
    edges: int
    degree_min: int
    degree_mean: float
    degree_max: int
    diameter: int
    spectral_gap: float
    mixing_time: float
    backbone: str

    @property
    def degrees(self) -> str:
        """The range of degrees in short: ``"4"`` or ``"1-17"``."""
        return str(self.degree_min) if self.degree_min == self.degree_max else f"{self.degree_min}-{self.degree_max}"


def summarise(graph: nx.Graph[int]) -> Summary:
    """Compute the summary of a valid graph.

    Parameters
    ----------
    graph
        As :func:`consensus.topology.build` returns it.

    Returns
    -------
    Summary
        See its fields.

    Examples
    --------
    >>> from consensus.topology import build
    >>> summary = summarise(build("complete", 8))
    >>> summary.edges, summary.diameter, summary.spectral_gap, summary.backbone
    (28, 1, 1.0, 'Hamiltonian path')
    """
    degrees = [degree for _, degree in graph.degree]
    weights = metropolis(graph)
    return Summary(
        nodes=len(degrees),
        edges=graph.number_of_edges(),
        degree_min=min(degrees),
        degree_mean=sum(degrees) / len(degrees),
        degree_max=max(degrees),
        diameter=nx.diameter(graph),
        spectral_gap=round(spectral_gap(weights), 12),
        mixing_time=mixing_time(weights),
        backbone=_kind(backbone(graph.adj), len(degrees)),
    )


def _kind(edges: tuple[Edge, ...], n: int) -> str:
    tree: nx.Graph[int] = nx.Graph(edges)
    tree.add_nodes_from(range(n))
    if max(degree for _, degree in tree.degree) <= 2:
        return "Hamiltonian path"
    return f"breadth-first tree of height {nx.radius(tree)}"
