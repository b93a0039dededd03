"""A quorum of neighbours, and a little patience for more where more are about to come. Ours; fully local, no rule messages."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from consensus.errors import ConfigError
from consensus.protocol.decision import Decision, Stay, View
from consensus.rules.gap import Gap, GapState
from consensus.types import Rank, Round, Seconds

_ADAPTS = 1.1
"""By what the typical step moves towards each new one: it settles where half are longer, whatever a rare stall takes."""


class PatienceState(NamedTuple):
    """What :class:`~consensus.rules.gap.Gap` knows, and how long my steps take.

    ``closed_at`` is when my last round closed, None before the first; ``step`` the typical time from there to the next opening, 0
    while unknown; ``seen`` the last round whose step has been counted.
    """

    spine: frozenset[Rank]
    closed_at: Seconds | None
    step: Seconds
    seen: Round


@dataclass(frozen=True)
class Patience(Gap):
    """As gap; but a quorum is enough only once nobody has come for a while, unless most are there.

    After the quorum the round stays open until ``share`` of the living neighbours have exchanged, or ``patience`` typical steps
    of this rank have passed since the last of them did. Where steps vary a little most come within that time, and models mix
    nearly as well as under ``full``; a neighbour that is stalled for many steps costs no more than the patience. The time a step
    takes is measured, so nothing depends on the machine. This rule is ours, not a paper's.

    Parameters
    ----------
    quorum, window
        As for gap.
    patience : float
        Typical steps to wait after the last exchange, 0 or more.
    share : float
        Part of the living neighbours that is enough at once, from 0 to 1; rounded down, but never below the quorum.
    """

    name: ClassVar[str] = "patience"
    patience: float = 2.0
    share: float = 0.75

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.patience < math.inf:
            raise ConfigError(f"patience: patience = {self.patience}, expected a number of steps, 0 or more")
        if not 0 <= self.share <= 1:
            raise ConfigError(f"patience: share = {self.share}, expected a part of the neighbours, from 0 to 1")

    def start(self, view: View) -> PatienceState:  # type: ignore[override]
        """Know nothing about times yet."""
        return PatienceState(super().start(view).spine, None, 0.0, 0)

    def departure(self, rank: Rank, view: View, state: PatienceState) -> PatienceState:  # type: ignore[override]
        """Find the backbone anew on what is left of the graph."""
        return state._replace(spine=super().start(view).spine)

    def decide(self, view: View, state: PatienceState, now: Seconds) -> tuple[Decision, PatienceState]:  # type: ignore[override]
        """Close when gap would, if most have come or nobody has for a while."""
        if state.seen != view.round:
            state = state._replace(step=self._typical(view, state), seen=view.round)
        decision, _ = super().decide(view, GapState(state.spine), now)
        if isinstance(decision, Stay):
            return decision, state
        done = len(view.done)
        enough = min(len(view.awaited), math.floor(self.share * len(view.living) + 1e-9))
        if view.done and done < enough:
            until = max(view.done.values()) + self.patience * state.step
            if now < until:
                return Stay(f"{done} exchanges, {enough} wanted until patience is over", wake_at=until), state
        return decision, state._replace(closed_at=now)

    @staticmethod
    def _typical(view: View, state: PatienceState) -> Seconds:
        if state.closed_at is None:
            return 0.0
        took = view.opened_at - state.closed_at
        if not state.step:
            return took
        return state.step * (_ADAPTS if took > state.step else 1 / _ADAPTS)
