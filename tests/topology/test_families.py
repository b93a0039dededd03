"""Families give the graphs of the textbooks, and say clearly what they cannot do."""

from __future__ import annotations

import networkx as nx
import pytest

from consensus.errors import TopologyError
from consensus.topology import FAMILIES, build

TEXTBOOK = {
    "ring": nx.cycle_graph(12),
    "path": nx.path_graph(12),
    "star": nx.star_graph(11),
    "complete": nx.complete_graph(12),
    "grid": nx.grid_2d_graph(3, 4),
    "torus": nx.grid_2d_graph(3, 4, periodic=True),
    "tree": nx.full_rary_tree(2, 12),
    "barbell": nx.barbell_graph(6, 0),
}


@pytest.mark.parametrize("name", TEXTBOOK)
def test_matches_the_textbook_graph(name: str) -> None:
    assert nx.is_isomorphic(build(name, 12), TEXTBOOK[name])


def test_hypercube_is_that_of_networkx() -> None:
    assert nx.is_isomorphic(build("hypercube", 16), nx.hypercube_graph(4))


def test_exponential_joins_powers_of_two() -> None:
    assert sorted(build("exponential", 16)[0]) == [1, 2, 4, 8, 12, 14, 15]


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("n", [1, 2, 8, 16])
def test_every_family_is_connected_simple_sorted_and_frozen(name: str, n: int) -> None:
    if name in ("random_regular", "watts_strogatz") and n == 2:
        with pytest.raises(TopologyError, match="between"):
            build(name, n)
        return
    graph = build(name, n, seed=3)
    assert list(graph) == list(range(n))
    assert nx.is_connected(graph)
    assert nx.number_of_selfloops(graph) == 0
    assert all(list(graph[node]) == sorted(graph[node]) for node in graph)
    assert nx.is_frozen(graph)


@pytest.mark.parametrize("name", ["random_regular", "erdos_renyi", "watts_strogatz"])
def test_random_families_depend_on_the_seed_alone(name: str) -> None:
    first, again, other = (build(name, 16, seed=seed) for seed in (5, 5, 6))
    assert set(first.edges) == set(again.edges)
    assert set(first.edges) != set(other.edges)


def test_parameters_reach_the_family() -> None:
    assert {degree for _, degree in build("random_regular", 10, degree=3).degree} == {3}
    assert nx.is_isomorphic(build("torus", 12, rows=2), nx.grid_2d_graph(2, 6, periodic=True))
    assert build("tree", 13, branching=3).degree[0] == 3


@pytest.mark.parametrize(
    ("name", "n", "parameters", "message"),
    [
        ("tours", 8, {}, "did you mean 'torus'"),
        ("hypercube", 12, {}, "take 8 or 16 ranks"),
        ("grid", 12, {"rows": 5}, "divisors"),
        ("grid", 12, {"rows": 0}, "at least 1"),
        ("random_regular", 7, {"degree": 3}, "even"),
        ("random_regular", 4, {"degree": 4}, "between 1 and n - 1 = 3"),
        ("random_regular", 6, {"degree": 1}, "pairs"),
        ("erdos_renyi", 40, {"probability": 0.001}, "no connected graph in 200 draws"),
        ("erdos_renyi", 8, {"probability": 0.0}, r"\(0, 1\]"),
        ("erdos_renyi", 8, {"probability": 1.5}, r"\(0, 1\]"),
        ("watts_strogatz", 8, {"neighbours": 3}, "even"),
        ("tree", 8, {"branching": 0}, "at least 1"),
        ("barbell", 8, {"clique": 5}, "between 1 and n // 2 = 4"),
        ("random_regular", 8, {"degre": 4}, "did you mean 'degree'"),
        ("random_regular", 8, {"degree": 2.5}, "must be int, got 2.5"),
        ("random_regular", 8, {"degree": True}, "must be int, got True"),
        ("ring", 8, {"degree": 2}, "takes none"),
        ("ring", 0, {}, "positive integer"),
    ],
)
def test_bad_requests_are_named(name: str, n: int, parameters: dict[str, object], message: str) -> None:
    with pytest.raises(TopologyError, match=message):
        build(name, n, **parameters)


def test_bundled_and_given_graphs() -> None:
    assert nx.is_isomorphic(build("petersen-10", 10), nx.petersen_graph())
    given = nx.Graph([(2, 1), (1, 0)])
    built = build(given, 3)
    assert set(built.edges) == {(0, 1), (1, 2)}
    assert not nx.is_frozen(given)
    with pytest.raises(TopologyError, match="10 nodes but there are 8 ranks"):
        build("petersen-10", 8)
    with pytest.raises(TopologyError, match="takes no parameters"):
        build("petersen-10", 10, degree=3)
    with pytest.raises(TopologyError, match="takes no parameters"):
        build(given, 3, degree=3)
