"""Weights are symmetric and doubly stochastic on every graph, and those of the formula."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from consensus.errors import TopologyError
from consensus.topology import build, lazy, max_degree, metropolis_round
from consensus.topology.metropolis import edge_weight
from consensus.topology.weights import metropolis


@st.composite
def connected_graphs(draw: st.DrawFn) -> nx.Graph:
    n = draw(st.integers(1, 12))
    graph = nx.random_labeled_tree(n, seed=draw(st.integers(0, 99))) if n > 1 else nx.empty_graph(1)
    extra = st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)).filter(lambda pair: pair[0] != pair[1])
    graph.add_edges_from(draw(st.lists(extra, max_size=15)) if n > 1 else [])
    return graph


def assert_averages(P: np.ndarray) -> None:
    np.testing.assert_array_equal(P, P.T)
    np.testing.assert_allclose(P.sum(0), 1, atol=1e-14)
    assert (P >= 0).all()


@given(connected_graphs())
def test_doubly_stochastic_on_any_graph(graph: nx.Graph) -> None:
    n = graph.number_of_nodes()
    graph = build(nx.Graph(graph), n)
    for P in (metropolis(graph), max_degree(graph), lazy(metropolis(graph))):
        assert P.shape == (n, n)
        assert P.dtype == np.float64
        assert_averages(P.toarray())
    assert (metropolis(graph).diagonal() > 0).all()
    assert (lazy(max_degree(graph)).diagonal() >= 0.5).all()


@given(connected_graphs(), st.data())
def test_any_subset_of_exchanges_is_doubly_stochastic(graph: nx.Graph, data: st.DataObject) -> None:
    edges = [edge for edge in graph.edges if data.draw(st.booleans())]
    P = metropolis_round(edges, graph.number_of_nodes()).toarray()
    assert_averages(P)
    counts = np.zeros(len(P), int)
    for i, j in edges:
        counts[[i, j]] += 1
    for i, j in edges:
        assert P[i, j] == edge_weight(counts[i], counts[j])


def test_static_weights_are_those_each_end_computes_alone() -> None:
    graph = build("star", 5)
    P = metropolis(graph).toarray()
    assert all(P[i, j] == edge_weight(graph.degree[i], graph.degree[j]) for i, j in graph.edges)


def test_mappings_and_edges_are_the_same_exchanges() -> None:
    mapping = {0: [1], 1: [0, 2], 2: [1]}
    np.testing.assert_array_equal(metropolis_round(mapping, 3).toarray(), metropolis_round([(0, 1), (1, 2)], 3).toarray())


def test_exchanges_that_are_none_are_refused() -> None:
    with pytest.raises(TopologyError):
        metropolis_round([(0, 5)], 3)
    with pytest.raises(TopologyError):
        metropolis_round([(1, 1)], 3)
