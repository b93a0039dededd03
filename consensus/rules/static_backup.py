"""A fixed number of backup workers: wait for all but b neighbours."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import ClassVar

from consensus.errors import ConfigError
from consensus.protocol.decision import ActiveWeights, Close, Decision, Stay, View
from consensus.rules.stateless import Stateless
from consensus.types import Seconds


@dataclass(frozen=True)
class StaticBackup(Stateless):
    """Close after max(1, living - b) exchanges, or those that can be had where more than b neighbours are silent.

    Parameters
    ----------
    b : int
        Backup workers per rank and round, at least 0.
    """

    name: ClassVar[str] = "static_backup"
    active_weights: ClassVar[ActiveWeights] = ActiveWeights.REFUSED
    b: int = 1

    def __post_init__(self) -> None:
        if self.b < 0:
            raise ConfigError(f"static_backup: b = {self.b}, expected a whole number of backup workers, 0 or more")

    def decide(self, view: View, state: None, now: Seconds) -> tuple[Decision, None]:
        """Close when enough have exchanged."""
        living = view.living
        if not living:
            return Close("no living neighbour is left"), state
        # An exchange with a neighbour that left right after it counts: the gradient it carried is in the mean.
        done, quota = len(view.done), len(living) - self.b
        if quota < 1:  # a rule is asked several times a round, and max() costs as much as all the rest
            quota = 1
        awaited = view.awaited
        if awaited is not living and awaited <= view.done.keys():
            return Close(f"{done} exchanges, {quota} wanted, the other neighbours are silent"), state
        if done >= quota or (done >= len(living) and living <= view.done.keys()):
            return _close(done, quota), state
        return _stay(done, quota), state


@cache
def _close(done: int, quota: int) -> Close:
    return Close(f"{done} exchanges, {quota} wanted")


@cache
def _stay(done: int, quota: int) -> Stay:
    return Stay(f"{done} exchanges, {quota} wanted")
