"""Which rank is what: the master first, then the edges, then the workers, edge by edge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise
from typing import NamedTuple

from consensus.coding.counts import check_count
from consensus.errors import ConfigError
from consensus.types import Rank

MASTER: Rank = 0
"""The rank that has the model that counts."""


class Seat(NamedTuple):
    """A worker's place: the ``worker``-th of the ``edge``-th edge, both from 0."""

    edge: int
    worker: int


@dataclass(frozen=True)
class Layout:
    """The ranks of a system with coded gradients.

    Parameters
    ----------
    workers_per_edge : sequence of int
        How many workers each edge has.
    relayed : bool
        Whether there are ranks for the edges; without them all workers send to the master.

    Examples
    --------
    >>> layout = Layout((2, 3))
    >>> layout.size, list(layout.edges), [list(ranks) for ranks in layout.workers]
    (8, [1, 2], [[3, 4], [5, 6, 7]])
    >>> layout.seat(6), layout.above(6), layout.above(2)
    (Seat(edge=1, worker=1), 2, 0)
    """

    workers_per_edge: tuple[int, ...]
    relayed: bool = True

    def __post_init__(self) -> None:
        if not self.workers_per_edge:
            raise ConfigError("workers_per_edge is empty: expected the number of workers of at least one edge, like [3, 4, 5]")
        for edge, workers in enumerate(self.workers_per_edge):
            check_count(f"workers_per_edge[{edge}]", workers, 1)
        object.__setattr__(self, "workers_per_edge", tuple(self.workers_per_edge))

    @property
    def edges(self) -> range:
        """The ranks of the edges."""
        return range(1, 1 + len(self.workers_per_edge) * self.relayed)

    @cached_property
    def workers(self) -> Sequence[range]:
        """The ranks of each edge's workers."""
        bounds = accumulate(self.workers_per_edge, initial=self.edges.stop)
        return [range(*pair) for pair in pairwise(bounds)]

    @property
    def size(self) -> int:
        """Number of ranks."""
        return self.edges.stop + sum(self.workers_per_edge)

    @property
    def below(self) -> range:
        """Who sends to the master."""
        return self.edges if self.relayed else range(1, self.size)

    def seat(self, rank: Rank) -> Seat | None:
        """Where ``rank`` works; None if it does not."""
        for edge, ranks in enumerate(self.workers):
            if rank in ranks:
                return Seat(edge, rank - ranks.start)
        return None

    def above(self, rank: Rank) -> Rank:
        """Whom ``rank``, which is not the master, sends to."""
        seat = self.seat(rank)
        return MASTER if seat is None or not self.relayed else self.edges[seat.edge]
