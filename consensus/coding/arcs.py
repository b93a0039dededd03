"""Placement: which node of a layer holds which items, as arcs on rings.

A layer has q nodes of which s may be silent, so each item must be at s + 1 nodes. Nodes walk round a ring of items, each taking
the next arc, until s + 1 laps are full: every item is then at exactly s + 1 nodes, whatever the lengths of the arcs.

One ring for all nodes would do. Several small ones, each walked s + 1 times by nodes of its own, cost no load and are far better
conditioned: a ring of s + 1 nodes is plain repetition, and only the ring with the nodes left over needs a code of any subtlety.
Splitting into rings is ours, as is everything in this module.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate


@dataclass(frozen=True)
class Ring:
    """Items that some nodes walk round s + 1 times.

    Parameters
    ----------
    nodes : tuple of int
        In the order of their walk.
    counts : tuple of int
        How many items each of them takes, 1 or more.
    first : int
        The layer's index of the ring's first item.
    size : int
        Items on the ring; ``counts`` sum to s + 1 times as many.
    """

    nodes: tuple[int, ...]
    counts: tuple[int, ...]
    first: int
    size: int

    @property
    def starts(self) -> tuple[int, ...]:
        """Where each node's arc begins, counted along the whole walk: the first is 0, the last below ``sum(counts)``."""
        return tuple(accumulate(self.counts[:-1], initial=0))

    @property
    def arcs(self) -> tuple[tuple[int, ...], ...]:
        """The items of each node as offsets on the ring, in walking order."""
        return tuple(
            tuple((start + step) % self.size for step in range(count))
            for start, count in zip(self.starts, self.counts, strict=True)
        )

    @property
    def tiled(self) -> bool:
        """Whether the walk falls into whole laps, each of which tiles the ring by itself.

        Examples
        --------
        >>> Ring((0, 1, 2), (3, 1, 2), first=0, size=3).tiled, Ring((0, 1, 2), (2, 2, 2), first=0, size=3).tiled
        (True, False)
        """
        walk = sum(self.counts)
        ends = set(self.starts)
        return any(all((lap + start) % walk in ends for lap in range(0, walk, self.size)) for start in ends)


def rings(counts: Sequence[int], stragglers: int) -> tuple[Ring, ...]:
    """Cut a layer into rings, as small as the counts allow.

    Parameters
    ----------
    counts : sequence of int, shape (q,)
        Items each node takes; their sum is s + 1 times the number of items and none exceeds that number.
    stragglers : int
        s, nodes of the layer that may be silent.

    Returns
    -------
    tuple of Ring
        Nodes that take nothing are on none.

    Examples
    --------
    >>> [ring.nodes for ring in rings([6, 6, 6, 6, 6, 6, 6, 6, 6, 6], stragglers=2)]
    [(0, 1, 2), (3, 4, 5), (6, 7, 8, 9)]
    """
    # Nodes of equal counts side by side make short rings. Two passes of a stable sort: the nodes' own order decides ties.
    waiting = sorted((node for node, count in enumerate(counts) if count), key=lambda node: -counts[node])
    found: list[Ring] = []
    first = 0
    while waiting:
        length = _shortest([counts[node] for node in waiting], stragglers + 1)
        nodes, waiting = tuple(waiting[:length]), waiting[length:]
        held = tuple(counts[node] for node in nodes)
        found.append(Ring(nodes, held, first, sum(held) // (stragglers + 1)))
        first += found[-1].size
    return tuple(found)


def _shortest(counts: Sequence[int], copies: int) -> int:
    """Nodes of the shortest ring at the head of ``counts``, which fall, that leaves the rest able to form rings too."""
    total = sum(counts)
    for length, taken in enumerate(accumulate(counts), start=1):
        rest = total - taken
        closes = taken % copies == 0 and counts[0] <= taken // copies
        if closes and (not rest or counts[length] <= rest // copies):
            return length
    return len(counts)


def even_counts(items: int, nodes: int, stragglers: int) -> tuple[int, ...]:
    r"""Nearly equal counts that :func:`rings` can cut into rings of s + 1 nodes and one of the nodes left over.

    None exceeds :math:`\lceil n (s + 1) / q \rceil`, the least maximum that any counts have. The ring of left-over nodes gets its
    share of the items rounded down: what that leaves for the others is at most what they can take.

    Parameters
    ----------
    items : int
        n, 0 or more.
    nodes : int
        q.
    stragglers : int
        s, below q.

    Returns
    -------
    tuple of int, shape (q,)
        Summing to n (s + 1).

    Examples
    --------
    >>> even_counts(20, nodes=10, stragglers=2)
    (6, 6, 6, 6, 6, 6, 6, 6, 6, 6)
    >>> even_counts(7, nodes=5, stragglers=1)
    (3, 3, 3, 3, 2)
    """
    copies = stragglers + 1
    groups, over = nodes // copies - 1, copies + nodes % copies
    left = items if not groups else items * over // nodes
    counts = [share for share in _split(items - left, groups) for _ in range(copies)]
    return (*counts, *_split(left * copies, over))


def _split(total: int, ways: int) -> tuple[int, ...]:
    """Parts that differ by one at most, the larger first."""
    return tuple((total + ways - 1 - way) // ways for way in range(ways))


def proportional_counts(total: int, weights: Sequence[int], caps: Sequence[int]) -> tuple[int, ...]:
    """Whole numbers proportional to weights, by largest remainder, none above its cap.

    Parameters
    ----------
    total : int
        What they sum to, at most ``sum(caps)``.
    weights, caps : sequence of int, shape (q,)
        One or more; 0 or more.

    Returns
    -------
    tuple of int, shape (q,)
        Of equal remainders the earlier is rounded up.

    Examples
    --------
    >>> proportional_counts(120, weights=[3, 3, 12], caps=[30, 30, 60])
    (30, 30, 60)
    >>> proportional_counts(10, weights=[2, 3, 4], caps=[10, 10, 10])
    (2, 3, 5)
    """
    counts = [0] * len(weights)
    free = list(range(len(weights)))
    rest = total
    while True:
        heavy = sum(weights[node] for node in free)
        full = [node for node in free if rest * weights[node] >= caps[node] * heavy]
        if not full:
            break
        for node in full:
            counts[node] = caps[node]
            rest -= caps[node]
        free = [node for node in free if node not in full]
    for node in free:
        counts[node] = rest * weights[node] // heavy
    # A share below its cap, rounded up, is at most its cap.
    by_remainder = sorted(free, key=lambda node: -(rest * weights[node] % heavy))
    for node in by_remainder[: rest - sum(counts[node] for node in free)]:
        counts[node] += 1
    return tuple(counts)
