"""Wait for nobody: exchange with whoever is open at this moment, and go on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from consensus.protocol.decision import ActiveWeights, Close, Decision, View
from consensus.rules.stateless import Stateless
from consensus.types import Seconds


@dataclass(frozen=True)
class RunFree(Stateless):
    """Close at once; only exchanges that had been offered when the round opened take place.

    The spirit of AD-PSGD (Lian et al., ICML 2018) on this protocol, whose handshake cannot deadlock. Nothing keeps the graph
    jointly connected: with few ranks open at a time there is next to no consensus. For comparison, not for use.
    """

    name: ClassVar[str] = "run_free"
    active_weights: ClassVar[ActiveWeights] = ActiveWeights.REFUSED

    def decide(self, view: View, state: None, now: Seconds) -> tuple[Decision, None]:
        """Close."""
        return Close("waits for nobody"), state
