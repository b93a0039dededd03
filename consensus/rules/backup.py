"""A fixed number of backup workers: the fastest n - b gradients make the update."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from consensus.errors import ConfigError
from consensus.protocol.service import ServerView
from consensus.rules.quorum import Quorum


@dataclass(frozen=True)
class Backup(Quorum):
    """Wait for n - b gradients of the present version.

    After departures k = max(1, living - b): b stays, as the slowest are no fewer for somebody's having left.

    Parameters
    ----------
    b : int
        Backup workers, 0 or more and fewer than there are workers.

    References
    ----------
    Chen, Monga, Bengio, Jozefowicz, *Revisiting Distributed Synchronous SGD*, arXiv 1604.00981.
    """

    name: ClassVar[str] = "backup"
    b: int = 1

    def __post_init__(self) -> None:
        if self.b < 0:
            raise ConfigError(f"backup: b = {self.b}, expected a whole number of backup workers, 0 or more")

    def fit(self, workers: int) -> None:
        """Refuse as many backup workers as there are workers."""
        if self.b >= workers:
            raise ConfigError(
                f"backup: b = {self.b} with {workers} workers, expected at most {workers - 1}: somebody's gradient must count; "
                "lower b or start more workers"
            )

    def quota(self, view: ServerView, state: Any) -> int:
        """All but b, at least one."""
        return max(1, len(view.workers) - self.b)
