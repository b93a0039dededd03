"""The backbone: edges that join all ranks, chosen by every rank alone and by all alike.

Law: the result depends on the node numbers and the set of edges only, never on the order in which a mapping or a set happens
to list them. Ranks compute it separately and must agree, so every choice below has a tie-break by number, and no step looks
at a clock or a random generator.

Standard library only: the rules import this module.

References
----------
The papers (see docs) ask for a set of edges that joins all workers. A path where one is found cheaply, else a breadth-first
tree of least height, and all of the search below, are ours.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from typing import TypeAlias

from consensus.types import Edge, Rank

_Neighbours: TypeAlias = dict[Rank, list[Rank]]

_STARTS = 4
_STEPS_PER_NODE = 8
_EXACT_CENTRE_WORK = 2_000_000
"""Up to this many edge visits (a second or less) every node is tried as the centre; beyond, two sweeps find a near one."""


def components(adjacency: Mapping[Rank, Collection[Rank]], departed: Set[Rank] = frozenset()) -> tuple[tuple[Rank, ...], ...]:
    """Connected components of the graph without ``departed``.

    Parameters
    ----------
    adjacency
        Neighbours of every node, symmetric.
    departed
        Nodes to leave out.

    Returns
    -------
    tuple of tuple of int
        Each ascending, ordered by their lowest number.

    Examples
    --------
    >>> components({0: [1], 1: [0, 2], 2: [1, 3], 3: [2]}, frozenset({1}))
    ((0,), (2, 3))
    """
    return tuple(_components(_alive(adjacency, departed)))


def backbone(adjacency: Mapping[Rank, Collection[Rank]], departed: Set[Rank] = frozenset()) -> tuple[Edge, ...]:
    """Spanning forest of the graph without ``departed``: per component a Hamiltonian path if found cheaply, else a flat tree.

    Parameters
    ----------
    adjacency
        Neighbours of every node, symmetric, without self-loops; ``graph.adj`` of a networkx graph will do.
    departed
        Nodes to leave out.

    Returns
    -------
    tuple of (int, int)
        Edges, smaller node first, ascending; one fewer than nodes in each component.

    Notes
    -----
    A path, because no rank then has more than two backbone edges, so no rank is what all others wait for. Whether one exists is
    NP-complete; the search has a budget proportional to the size of the graph. It tries the nodes in order of their numbers
    (ring, path, complete, exponential ...), then depth-first searches with Warnsdorff's heuristic (next the node with the
    fewest unvisited neighbours). Otherwise: a breadth-first tree from a centre, the lowest-numbered one; on trees and where
    nodes x edges is small the centre is exact, elsewhere it is the best of those that two sweeps propose.

    Examples
    --------
    >>> ring = {i: {(i - 1) % 5, (i + 1) % 5} for i in range(5)}
    >>> backbone(ring)
    ((0, 1), (1, 2), (2, 3), (3, 4))
    >>> backbone(ring, frozenset({2}))
    ((0, 1), (0, 4), (3, 4))
    >>> backbone({0: [3], 1: [3], 2: [3], 3: [0, 1, 2]})
    ((0, 3), (1, 3), (2, 3))
    """
    if isinstance(adjacency, SharedGraph):
        key = frozenset(departed)
        if key not in adjacency.backbones:
            adjacency.backbones[key] = _backbone(adjacency, key)
        return adjacency.backbones[key]
    return _backbone(adjacency, departed)


class SharedGraph(dict[Rank, tuple[Rank, ...]]):
    """Neighbours of every node, and the backbones that have been found: for the many engines of one simulated network.

    Every rank of a real network finds the backbone by itself. In one process that would be the same search for each of them.

    Attributes
    ----------
    backbones : dict of frozenset of int to tuple of (int, int)
        By the nodes left out.
    """

    def __init__(self, adjacency: Mapping[Rank, Collection[Rank]]) -> None:
        super().__init__((rank, tuple(neighbours)) for rank, neighbours in adjacency.items())
        self.backbones: dict[frozenset[Rank], tuple[Edge, ...]] = {}


def _backbone(adjacency: Mapping[Rank, Collection[Rank]], departed: Set[Rank]) -> tuple[Edge, ...]:
    neighbours = _alive(adjacency, departed)
    edges: list[Edge] = []
    for nodes in _components(neighbours):
        path = _hamiltonian_path(neighbours, nodes)
        pairs = itertools.pairwise(path) if path else _flattest_tree(neighbours, nodes)
        edges.extend((min(pair), max(pair)) for pair in pairs)
    return tuple(sorted(edges))


def _alive(adjacency: Mapping[Rank, Collection[Rank]], departed: Set[Rank]) -> _Neighbours:
    return {i: sorted(j for j in adjacency[i] if j not in departed) for i in sorted(adjacency) if i not in departed}


def _components(neighbours: _Neighbours) -> list[tuple[Rank, ...]]:
    parts: list[tuple[Rank, ...]] = []
    seen: set[Rank] = set()
    for start in neighbours:
        if start not in seen:
            part = _levels(neighbours, start)
            seen.update(part)
            parts.append(tuple(sorted(part)))
    return parts


def _hamiltonian_path(neighbours: _Neighbours, nodes: Sequence[Rank]) -> Sequence[Rank]:
    """A path through all ``nodes``, or an empty one if the budget did not find any."""
    if all(b in neighbours[a] for a, b in itertools.pairwise(nodes)):
        return nodes
    by_degree = heapq.nsmallest(_STARTS, nodes, key=lambda i: (len(neighbours[i]), i))
    if len(by_degree) > 2 and len(neighbours[by_degree[2]]) == 1:
        return ()  # three ends
    for start in by_degree:
        path = _depth_first(neighbours, start, len(nodes))
        if path:
            return path
    return ()


def _depth_first(neighbours: _Neighbours, start: Rank, size: int) -> Sequence[Rank]:
    free = {i: len(near) for i, near in neighbours.items()}  # unvisited neighbours
    path: list[Rank] = []
    visited: set[Rank] = set()
    choices: list[list[Rank]] = [[start]]  # what is left to try at each depth, the best last
    for _ in range(_STEPS_PER_NODE * size):
        while choices and not choices[-1]:
            choices.pop()
            if path:
                last = path.pop()
                visited.remove(last)
                for near in neighbours[last]:
                    free[near] += 1
        if not choices:
            return ()
        node = choices[-1].pop()
        path.append(node)
        visited.add(node)
        if len(path) == size:
            return path
        for near in neighbours[node]:
            free[near] -= 1
        open_ = [near for near in neighbours[node] if near not in visited]
        choices.append(sorted(open_, key=lambda i: (-free[i], -i)))
    return ()


def _flattest_tree(neighbours: _Neighbours, nodes: Sequence[Rank]) -> Iterable[Edge]:
    parents = _levels(neighbours, _centre(neighbours, nodes))
    return ((parent, node) for node, (parent, _) in parents.items() if node != parent)


def _centre(neighbours: _Neighbours, nodes: Sequence[Rank]) -> Rank:
    visits = sum(len(neighbours[i]) for i in nodes)
    is_tree = visits == 2 * (len(nodes) - 1)
    candidates: Iterable[Rank] = nodes
    if is_tree or len(nodes) * visits > _EXACT_CENTRE_WORK:
        # The middle of a longest path. From anywhere, the farthest node is an end of one: always on a tree, often elsewhere.
        end = _farthest(_levels(neighbours, nodes[0]))
        sweep = _levels(neighbours, end)
        node = _farthest(sweep)
        length = sweep[node][1]
        for _ in range(length // 2):
            node = sweep[node][0]
        candidates = sorted({node, sweep[node][0]} if length % 2 else {node})
    return min(candidates, key=lambda i: (_height(neighbours, i), i))


def _farthest(levels: Mapping[Rank, tuple[Rank, int]]) -> Rank:
    return min(levels, key=lambda i: (-levels[i][1], i))


def _height(neighbours: _Neighbours, root: Rank) -> int:
    return max(depth for _, depth in _levels(neighbours, root).values())


def _levels(neighbours: _Neighbours, root: Rank) -> dict[Rank, tuple[Rank, int]]:
    """Breadth-first search: node -> (parent, depth), in order of discovery; the root is its own parent."""
    found = {root: (root, 0)}
    frontier = [root]
    depth = 0
    while frontier:
        depth += 1
        following: list[Rank] = []
        for node in frontier:
            for near in neighbours[node]:
                if near not in found:
                    found[near] = (node, depth)
                    following.append(near)
        frontier = following
    return found
