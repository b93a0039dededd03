"""Deterministic families: each function yields the edges of its graph on nodes 0 .. n-1, n >= 2.

Keyword parameters are what a user may set; their annotations are what :func:`consensus.topology.build` checks values against.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

from consensus.errors import TopologyError
from consensus.types import Edge


def ring(n: int) -> Iterator[Edge]:
    """Cycle: rank i has the neighbours i-1 and i+1 (mod n)."""
    return (_edge(i, (i + 1) % n) for i in range(n))


def path(n: int) -> Iterator[Edge]:
    """Line 0 - 1 - ... - n-1; among connected graphs the slowest to mix, up to a constant, of degree at most 2."""
    return ((i, i + 1) for i in range(n - 1))


def star(n: int) -> Iterator[Edge]:
    """Rank 0 joined to every other one."""
    return ((0, i) for i in range(1, n))


def complete(n: int) -> Iterator[Edge]:
    """Every rank joined to every other one."""
    return itertools.combinations(range(n), 2)


def grid(n: int, *, rows: int | None = None, columns: int | None = None) -> Iterator[Edge]:
    """Rectangle, row by row; by default as near to a square as the divisors of n allow (a prime n gives a path)."""
    height, width = _rectangle("grid", n, rows, columns)
    for node in range(n):
        row, column = divmod(node, width)
        if column + 1 < width:
            yield node, node + 1
        if row + 1 < height:
            yield node, node + width


def torus(n: int, *, rows: int | None = None, columns: int | None = None) -> Iterator[Edge]:
    """Grid with wrapped rows and columns; by default near-square as for grid (a prime n gives a ring)."""
    height, width = _rectangle("torus", n, rows, columns)
    for node in range(n):
        row, column = divmod(node, width)
        if width > 1:
            yield _edge(node, row * width + (column + 1) % width)
        if height > 1:
            yield _edge(node, (row + 1) % height * width + column)


def hypercube(n: int) -> Iterator[Edge]:
    """Ranks whose binary numbers differ in one digit; n must be a power of two."""
    if n & (n - 1):
        below = 1 << (n.bit_length() - 1)
        raise TopologyError(
            f"hypercube needs a power of two, got n = {n}; take {below} or {2 * below} ranks, or the family 'exponential'"
        )
    for node in range(n):
        for digit in range(n.bit_length() - 1):
            if not node >> digit & 1:
                yield node, node | 1 << digit


def exponential(n: int) -> Iterator[Edge]:
    """Rank i joined to i + 1, i + 2, i + 4, ... (mod n), both ways: degree about 2 log2(n), gap of order 1 / log(n).

    The literature's exponential graph sends one way; exchanges here go both ways, hence about twice its degree.
    """
    for node in range(n):
        for k in range((n - 1).bit_length()):
            yield _edge(node, (node + (1 << k)) % n)


def tree(n: int, *, branching: int = 2) -> Iterator[Edge]:
    """Balanced tree filled level by level: the parent of i is (i - 1) // branching."""
    if branching < 1:
        raise TopologyError(f"tree: branching must be at least 1, got {branching}")
    return (((i - 1) // branching, i) for i in range(1, n))


def barbell(n: int, *, clique: int | None = None) -> Iterator[Edge]:
    """Two cliques of ``clique`` ranks (default n // 2) at the ends of a path of the others: a bottleneck to test rules on."""
    size = n // 2 if clique is None else clique
    if not 1 <= size <= n // 2:
        raise TopologyError(f"barbell: clique must be between 1 and n // 2 = {n // 2}, got {size}")
    yield from itertools.combinations(range(size), 2)
    yield from ((i, i + 1) for i in range(size - 1, n - size))
    yield from itertools.combinations(range(n - size, n), 2)


def _edge(i: int, j: int) -> Edge:
    return (i, j) if i < j else (j, i)


def _rectangle(family: str, n: int, rows: int | None, columns: int | None) -> tuple[int, int]:
    for name, value in (("rows", rows), ("columns", columns)):
        if value is not None and value < 1:
            raise TopologyError(f"{family}: {name} must be at least 1, got {value}")
    if rows is None:
        rows = n // columns if columns else max(d for d in range(1, math.isqrt(n) + 1) if n % d == 0)
    if columns is None:
        columns = n // rows
    if rows * columns != n:
        divisors = [d for d in range(1, n + 1) if n % d == 0]
        raise TopologyError(f"{family}: rows x columns must be n = {n}, got {rows} x {columns}; n has the divisors {divisors}")
    return rows, columns
