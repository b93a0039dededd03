"""A quorum of neighbours, and no backbone edge unused for long. Ours; fully local, no rule messages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from consensus.errors import ConfigError
from consensus.protocol.decision import ActiveWeights, Close, Decision, Stay, View
from consensus.protocol.messages import Established
from consensus.rules.stateless import closed_with_all
from consensus.topology.backbone import backbone
from consensus.types import Rank, Seconds


class GapState(NamedTuple):
    """My neighbours along the backbone of the living graph."""

    spine: frozenset[Rank]


@dataclass(frozen=True)
class Gap:
    """Close after ``quorum`` exchanges, unless a backbone edge has gone unused for ``window`` of my rounds: then wait for it.

    So every edge of a spanning tree is used at least once in ``window`` + 1 rounds of either end: staleness per edge is bounded
    and the graph is jointly connected in every such window, without a message to anybody but neighbours. This rule is ours, not
    a paper's.

    Parameters
    ----------
    quorum : int or None
        Exchanges wanted per round; None (default): half of the neighbours, rounded up. A rank with fewer living neighbours waits
        for all of them.
    window : int
        Rounds a backbone edge may go unused, at least 1.
    """

    name: ClassVar[str] = "gap"
    active_weights: ClassVar[ActiveWeights] = ActiveWeights.REFUSED
    quorum: int | None = None
    window: int = 20

    def __post_init__(self) -> None:
        if self.quorum is not None and self.quorum < 1:
            raise ConfigError(f"gap: quorum = {self.quorum}, expected 1 or more, or none for half of the neighbours")
        if self.window < 1:
            raise ConfigError(f"gap: window = {self.window}, expected at least 1 round")

    def start(self, view: View) -> GapState:
        """Find my backbone neighbours."""
        edges = backbone(view.adjacency, frozenset(view.departed))
        return GapState(frozenset(i + j - view.rank for i, j in edges if view.rank in (i, j)))

    def hear(self, news: Established, view: View, state: GapState) -> GapState:
        """Ignore news: this rule never announces any."""
        return state

    def departure(self, rank: Rank, view: View, state: GapState) -> GapState:
        """Find them anew on what is left of the graph."""
        return self.start(view)

    def decide(self, view: View, state: GapState, now: Seconds) -> tuple[Decision, GapState]:
        """Close on a quorum that leaves no backbone edge overdue."""
        living, awaited, done = view.living, view.awaited, view.done
        if awaited <= done.keys():
            return closed_with_all(view), state
        quota = min(len(awaited), self.quorum if self.quorum is not None else (len(living) + 1) // 2)
        if len(done) < quota:
            return Stay(f"{len(done)} exchanges, {quota} wanted"), state
        for peer in state.spine:
            if peer not in done and peer in awaited and view.round - view.last_used[peer] > self.window:
                return Stay(f"backbone edge to {peer} unused for {view.round - view.last_used[peer] - 1} rounds"), state
        return Close(f"{len(done)} exchanges, {quota} wanted, no backbone edge overdue"), state
