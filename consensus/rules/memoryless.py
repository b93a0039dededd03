"""What server rules that judge by the view alone have in common."""

from __future__ import annotations

from typing import Any

from consensus.protocol.service import ServerView, Update
from consensus.types import Rank, Seconds


class Memoryless:
    """A server rule that suits any number of workers and remembers nothing; its state is None.

    The hooks return the state as it came, so that a rule with a memory replaces those that it needs.
    """

    def fit(self, workers: int) -> None:
        """Accept any number of workers."""

    def start(self, view: ServerView, now: Seconds) -> Any:
        """Return no state."""
        return None

    def applied(self, view: ServerView, update: Update, state: Any, now: Seconds) -> Any:
        """Take no note: the engine keeps ``view.version``."""
        return state

    def departed(self, worker: Rank, view: ServerView, state: Any, now: Seconds) -> Any:
        """Take no note: the engine keeps ``view.workers``."""
        return state

    def learnt(self, state: Any) -> Any:
        """Return None: there is nothing to know."""
        return None

    def resume(self, learnt: Any, view: ServerView, now: Seconds) -> Any:
        """Begin as ever."""
        return self.start(view, now)
