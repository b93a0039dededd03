"""DSGD-AAU's Pathsearch: any edge that joins two parts of the epoch's graph ends the round."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from consensus.protocol.decision import ActiveWeights, View
from consensus.rules.epochs import EpochRule
from consensus.topology.backbone import components
from consensus.types import Edge, Rank


@dataclass(frozen=True)
class Pathsearch(EpochRule):
    """Close when an exchange on any base-graph edge joins two components of (workers, edges used in this epoch).

    No backbone is fixed beforehand. Such an exchange is announced; all open ranks close; N - 1 iterations (more only if
    announcements cross) make the epoch's graph connected, and the next epoch begins. (Counting an edge when one of its ends is
    still unvisited is not enough: two disjoint pairs could cover all workers.)

    Progress is a tuple: for each rank the least rank of its component so far, -1 for ranks outside my component of the living
    graph.

    References
    ----------
    Xiong, Yan, Wang, Li, "Straggler-Resilient Decentralized Learning via Adaptive Asynchronous Updates", arXiv 2306.06559, for
    the idea as its abstract describes it; union-find on announcements is our completion.
    """

    name: ClassVar[str] = "pathsearch"
    active_weights: ClassVar[ActiveWeights] = ActiveWeights.REFUSED

    def begin(self, view: View) -> tuple[Rank, ...]:
        """Return every rank of my component as a part of its own."""
        mine = next(part for part in components(view.adjacency, frozenset(view.departed)) if view.rank in part)
        return tuple(rank if rank in mine else -1 for rank in range(max(view.adjacency) + 1))

    def count(self, used: tuple[Rank, ...], edge: Edge) -> tuple[Rank, ...] | None:
        """Merge the parts of the two ends, if they are two."""
        a, b = sorted((used[edge[0]], used[edge[1]]))
        if a == b or a < 0:
            return None
        return tuple(a if part == b else part for part in used)

    def complete(self, used: tuple[Rank, ...]) -> bool:
        """Return whether one part is left."""
        return len(set(used) - {-1}) == 1
