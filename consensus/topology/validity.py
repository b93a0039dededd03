"""What a graph must be before ranks may average on it."""

from __future__ import annotations

import numbers
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Any

import networkx as nx

from consensus.errors import TopologyError

if TYPE_CHECKING:
    from consensus.types import Edge

_RELABEL = "relabel it with nx.convert_node_labels_to_integers(graph)"


def from_edges(n: int, edges: Iterable[Edge]) -> nx.Graph[int]:
    """Frozen graph on nodes 0 .. n-1 whose adjacency lists are sorted, whatever the order of ``edges``.

    Parameters
    ----------
    n
        Number of nodes.
    edges
        Pairs of nodes, in either direction, repetitions allowed.

    Returns
    -------
    networkx.Graph
        Without attributes; `networkx.freeze` makes any change an error.
    """
    graph: nx.Graph[int] = nx.Graph()
    graph.add_nodes_from(range(n))
    # Lexicographic order of (small, large) gives every node its smaller neighbours first, ascending, then its larger ones.
    graph.add_edges_from(sorted({(min(edge), max(edge)) for edge in edges}))
    nx.freeze(graph)
    return graph


def validate(graph: nx.Graph[Any], n: int) -> nx.Graph[int]:
    """Check that ``n`` ranks can average on ``graph``, and return it in normal form.

    Parameters
    ----------
    graph
        Any networkx graph. Attributes of nodes and edges (weights included) play no part.
    n
        Number of ranks.

    Returns
    -------
    networkx.Graph
        A frozen copy on nodes 0 .. n-1 with sorted adjacency and no attributes.

    Raises
    ------
    TopologyError
        If the graph is directed, a multigraph, has a self-loop, other nodes than 0 .. n-1, or falls into several components.

    Examples
    --------
    >>> import networkx as nx
    >>> list(validate(nx.Graph([(2, 1), (1, 0)]), 3).edges)
    [(0, 1), (1, 2)]
    >>> validate(nx.Graph([(0, 1), (2, 3)]), 4)
    Traceback (most recent call last):
    ...
    consensus.errors.TopologyError: the topology is not connected: it has 2 components, {0, 1}, {2, 3}; add an edge between them
    """
    if not isinstance(graph, nx.Graph):
        raise TopologyError(f"expected a networkx.Graph, got {type(graph).__name__}: {graph!r:.80}")
    if graph.is_directed():
        raise TopologyError(
            "the topology is directed, but an exchange goes both ways; pass graph.to_undirected() if every edge may be so used"
        )
    if graph.is_multigraph():
        raise TopologyError(
            "the topology is a multigraph, but ranks exchange at most once an edge; pass nx.Graph(graph) to merge parallel edges"
        )
    _check_nodes(graph, n)
    loops = sorted(int(node) for node in nx.nodes_with_selfloops(graph))
    if loops:
        raise TopologyError(
            f"self-loops at {_listed(loops)}: a rank does not exchange with itself; "
            "remove them with graph.remove_edges_from(list(nx.selfloop_edges(graph)))"
        )
    result = from_edges(n, ((int(u), int(v)) for u, v in graph.edges()))
    parts = sorted(sorted(part) for part in nx.connected_components(result))
    if len(parts) > 1:
        shown = ", ".join(_listed(part) for part in parts[:4]) + (", ..." if len(parts) > 4 else "")
        raise TopologyError(f"the topology is not connected: it has {len(parts)} components, {shown}; add an edge between them")
    return result


def _check_nodes(graph: nx.Graph[Any], n: int) -> None:
    odd = [node for node in graph.nodes if not isinstance(node, numbers.Integral)]
    if odd:
        raise TopologyError(f"nodes must be the rank numbers 0 .. {n - 1}, got {_listed(odd)}; {_RELABEL}")
    size = graph.number_of_nodes()
    if set(graph.nodes) != set(range(size)):
        strange = sorted(int(node) for node in graph.nodes if not 0 <= node < size)
        raise TopologyError(f"the {size} nodes must be numbered 0 .. {size - 1}, got {_listed(strange)}; {_RELABEL}")
    if size != n:
        raise TopologyError(
            f"the topology has {size} nodes but there are {n} ranks; start {size} ranks or take a graph of {n} nodes"
        )


def _listed(nodes: Collection[Any], limit: int = 8) -> str:
    shown = ", ".join(repr(node) for node in list(nodes)[:limit])
    return "{" + shown + (f", ... {len(nodes) - limit} more" if len(nodes) > limit else "") + "}"
