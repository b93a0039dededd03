"""The backbone spans, is the same at every rank, and is a path where one is found cheaply."""

from __future__ import annotations

import random

import networkx as nx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from consensus.topology import build
from consensus.topology.backbone import SharedGraph, backbone, components


def adjacency(graph: nx.Graph) -> dict[int, tuple[int, ...]]:
    return {node: tuple(graph[node]) for node in graph}


@st.composite
def graphs(draw: st.DrawFn) -> nx.Graph:
    n = draw(st.integers(1, 14))
    pairs = st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)).filter(lambda pair: pair[0] != pair[1])
    graph = nx.empty_graph(n)
    graph.add_edges_from(draw(st.lists(pairs, max_size=30)) if n > 1 else [])
    return graph


@given(graphs(), st.data())
def test_spanning_forest_of_what_is_left(graph: nx.Graph, data: st.DataObject) -> None:
    departed = data.draw(st.frozensets(st.sampled_from(sorted(graph)), max_size=len(graph) - 1))
    edges = backbone(adjacency(graph), departed)
    left = graph.subgraph(set(graph) - departed)
    tree = nx.Graph(edges)
    tree.add_nodes_from(left)
    assert edges == tuple(sorted(edges))
    assert all(i < j and left.has_edge(i, j) for i, j in edges)
    assert len(edges) == len(left) - nx.number_connected_components(left)
    assert {frozenset(part) for part in nx.connected_components(tree)} == {frozenset(p) for p in nx.connected_components(left)}
    assert {frozenset(part) for part in components(adjacency(graph), departed)} == {
        frozenset(part) for part in nx.connected_components(left)
    }


@given(graphs(), st.randoms(use_true_random=False))
def test_order_of_nodes_and_neighbours_does_not_matter(graph: nx.Graph, rng: random.Random) -> None:
    shuffled = {}
    for node in rng.sample(sorted(graph), len(graph)):
        shuffled[node] = rng.sample(sorted(graph[node]), len(graph[node]))
    assert backbone(shuffled) == backbone(adjacency(graph))
    assert backbone({node: set(peers) for node, peers in shuffled.items()}) == backbone(adjacency(graph))


@pytest.mark.parametrize("name", ["ring", "path", "complete", "grid", "torus", "hypercube", "exponential", "random_regular"])
def test_hamiltonian_path_where_there_is_a_cheap_one(name: str) -> None:
    tree = nx.Graph(backbone(adjacency(build(name, 16, seed=1))))
    assert sorted(degree for _, degree in tree.degree) == [1, 1] + [2] * 14


@pytest.mark.parametrize(("name", "n", "height"), [("star", 9, 1), ("tree", 15, 3)])
def test_else_a_tree_of_least_height(name: str, n: int, height: int) -> None:
    assert nx.radius(nx.Graph(backbone(adjacency(build(name, n))))) == height


def test_large_graphs_take_near_linear_work() -> None:
    tree = nx.Graph(backbone(adjacency(build("random_regular", 3000, seed=2))))
    assert tree.number_of_nodes() == 3000
    assert nx.is_tree(tree)


def test_a_shared_graph_remembers_each_backbone() -> None:
    graph = {rank: [(rank - 1) % 6, (rank + 1) % 6] for rank in range(6)}
    shared = SharedGraph(graph)
    for departed in (frozenset[int](), frozenset({2})):
        assert backbone(shared, departed) == backbone(graph, departed)
        assert backbone(shared, set(departed)) is backbone(shared, departed)
