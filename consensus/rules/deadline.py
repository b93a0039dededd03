"""Wait for a fixed time."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from consensus.errors import ConfigError
from consensus.protocol.decision import ActiveWeights, Close, Decision, Stay, View
from consensus.rules.stateless import Stateless, closed_with_all
from consensus.types import Seconds


@dataclass(frozen=True)
class Deadline(Stateless):
    """Close ``seconds`` after opening with whoever has exchanged by then, earlier if everybody has.

    Parameters
    ----------
    seconds : float
        The deadline, above 0.
    """

    name: ClassVar[str] = "deadline"
    active_weights: ClassVar[ActiveWeights] = ActiveWeights.REFUSED
    seconds: float = 0.05

    def __post_init__(self) -> None:
        if not (math.isfinite(self.seconds) and self.seconds > 0):
            raise ConfigError(f"deadline: seconds = {self.seconds}, expected a finite time above 0")

    def decide(self, view: View, state: None, now: Seconds) -> tuple[Decision, None]:
        """Close when time is up or nobody is missing."""
        if view.awaited <= view.done.keys():
            return closed_with_all(view), state
        end = view.opened_at + self.seconds
        if now >= end:
            return Close(f"the deadline of {self.seconds:g} s has passed"), state
        return Stay(f"waits until {self.seconds:g} s after opening", wake_at=end), state
