"""Wait for every living neighbour: plain synchronous consensus SGD (D-PSGD), b = 0."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from consensus.protocol.decision import ActiveWeights, Close, Decision, Stay, View
from consensus.rules.stateless import Stateless
from consensus.types import Seconds


@dataclass(frozen=True)
class Full(Stateless):
    """Close when all living neighbours have exchanged.

    References
    ----------
    Lian et al., "Can Decentralized Algorithms Outperform Centralized Algorithms?", NeurIPS 2017.
    """

    name: ClassVar[str] = "full"
    active_weights: ClassVar[ActiveWeights] = ActiveWeights.WAIT

    def decide(self, view: View, state: None, now: Seconds) -> tuple[Decision, None]:
        """Close when nobody is missing."""
        missing = view.living - view.done.keys()
        if missing:
            return Stay(f"waits for all neighbours, {len(missing)} of {len(view.living)} missing"), state
        return Close("all living neighbours have exchanged"), state
