"""What a graph must be before ranks may average on it."""

from __future__ import annotations

import networkx as nx
import pytest

from consensus.errors import TopologyError
from consensus.topology import validate


def looped() -> nx.Graph:
    graph = nx.path_graph(3)
    graph.add_edge(1, 1)
    return graph


@pytest.mark.parametrize(
    ("graph", "n", "message"),
    [
        (nx.DiGraph([(0, 1)]), 2, "to_undirected"),
        (nx.MultiGraph([(0, 1), (0, 1)]), 2, "multigraph"),
        (looped(), 3, r"self-loops at \{1\}"),
        (nx.Graph([(0, 1), (2, 3)]), 4, r"2 components, \{0, 1\}, \{2, 3\}"),
        (nx.Graph([("a", "b")]), 2, "convert_node_labels_to_integers"),
        (nx.Graph([(1, 2)]), 2, "numbered 0 .. 1"),
        (nx.path_graph(4), 8, "4 nodes but there are 8 ranks"),
        ([(0, 1)], 2, "expected a networkx.Graph"),
    ],
)
def test_refusals(graph: object, n: int, message: str) -> None:
    with pytest.raises(TopologyError, match=message):
        validate(graph, n)


def test_normal_form_drops_attributes_and_sorts() -> None:
    graph = nx.Graph()
    graph.add_edge(2, 0, weight=3.0)
    graph.add_edge(1, 0)
    graph.add_edge(2, 1)
    result = validate(graph, 3)
    assert list(result.edges(data=True)) == [(0, 1, {}), (0, 2, {}), (1, 2, {})]
    with pytest.raises(nx.NetworkXError):
        result.remove_edge(0, 1)
