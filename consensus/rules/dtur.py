"""cb-DyBW's distributed threshold-based update rule (DTUR): the default. Nothing to tune."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from consensus.protocol.decision import ActiveWeights, View
from consensus.rules.epochs import EpochRule
from consensus.topology.backbone import backbone
from consensus.types import Edge, Rank


class Open(NamedTuple):
    """The backbone edges that an epoch has not used yet: the k-th of ``edges``, ascending, if bit k of ``left`` is set.

    Every rank hears of every use, so striking an edge off must not take time in proportion to the number of ranks.
    """

    edges: tuple[Edge, ...]
    left: int

    def remaining(self) -> frozenset[Edge]:
        """The open edges themselves."""
        return frozenset(edge for k, edge in enumerate(self.edges) if self.left >> k & 1)


@dataclass(frozen=True)
class Dtur(EpochRule):
    r"""Close at the first instant at which some backbone edge not yet used in this epoch has both ends ready.

    With backbone P' (the same spanning forest at every rank, computed from the graph) and P the edges of it established in the
    epoch, round k's threshold is

    .. math:: \theta(k) = \min_{(i,j) \in P' \setminus P} \max(T_i(k), T_j(k)),

    at which every open rank closes with whomever it has exchanged by then, over all base-graph edges. The edge that attains the
    minimum joins P; so an epoch has d = |P'| iterations (more only if announcements cross), and the union of its exchanges
    contains P': joint connectivity, as the convergence theorem needs. A rank that computes when the threshold passes is not
    disturbed ("late: carry").

    Progress is the backbone edges still open in the epoch.

    References
    ----------
    Yan, Xiong, Li, Singh, "Straggler-Resilient Distributed Machine Learning with Dynamic Backup Workers", arXiv 2102.06280, for
    the threshold rule as its abstract describes it. The event form, epochs on departure and the early close of a rank that has
    exchanged with everybody are ours.
    """

    name: ClassVar[str] = "dtur"
    active_weights: ClassVar[ActiveWeights] = ActiveWeights.CASCADE

    def begin(self, view: View) -> Open:
        """Return the whole backbone of my component: nothing of it is used yet."""
        edges = component_backbone(view)
        return Open(edges, (1 << len(edges)) - 1)

    def count(self, used: Open, edge: Edge) -> Open | None:
        """Strike ``edge`` off the open backbone edges."""
        edges, left = used
        k = bisect_left(edges, edge)
        return Open(edges, left ^ 1 << k) if left >> k & 1 and edges[k] == edge else None

    def complete(self, used: Open) -> bool:
        """Return whether no backbone edge is open."""
        return not used.left


def component_backbone(view: View) -> tuple[Edge, ...]:
    """Return the backbone edges of the living graph's component that contains ``view.rank``, ascending.

    When departures split the graph, each component goes on alone, with an epoch of its own.
    """
    edges = backbone(view.adjacency, frozenset(view.departed))
    adjacent: dict[Rank, list[Edge]] = {}
    for edge in edges:
        for end in edge:
            adjacent.setdefault(end, []).append(edge)
    mine: set[Edge] = set()
    frontier = [view.rank]
    while frontier:
        rank = frontier.pop()
        for edge in adjacent.get(rank, ()):
            if edge not in mine:
                mine.add(edge)
                frontier.append(edge[0] + edge[1] - rank)
    return edges if len(mine) == len(edges) else tuple(edge for edge in edges if edge in mine)
