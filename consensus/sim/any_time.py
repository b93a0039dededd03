"""A rule without a will of its own: exploring when it may close covers whatever a rule could do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from consensus.protocol.decision import ActiveWeights, Close, Decision, Stay, View
from consensus.rules.stateless import Stateless
from consensus.types import Seconds


@dataclass(frozen=True)
class AnyTime(Stateless):
    """Close when told to from outside; its state is whether it has been told."""

    name: ClassVar[str] = "any_time"
    active_weights: ClassVar[ActiveWeights] = ActiveWeights.REFUSED

    def decide(self, view: View, state: Any, now: Seconds) -> tuple[Decision, Any]:
        """Close if told to."""
        return (Close("told to"), None) if state else (Stay("not told to close"), None)
