"""What the synchronous server rules have in common: an update of the first k gradients of the present version."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from consensus.protocol.service import Arrival, ServerView, Verdict
from consensus.rules.memoryless import Memoryless
from consensus.types import Rank, Seconds


class Quorum(Memoryless, ABC):
    """Update as soon as k living workers have brought a gradient of the present version, then let everybody go on.

    Each update takes exactly the gradients of the present version that are there. A later one of that version is late: it is
    discarded, and its worker goes on with the newest weights. A worker that has pushed and left does not count towards k, since
    k counts those still to be heard, but its gradient is as good as any and goes into the mean.
    """

    synchronous: ClassVar[bool] = True
    uses_losses: ClassVar[bool] = False

    @abstractmethod
    def quota(self, view: ServerView, state: Any) -> int:
        """Return k, the gradients to wait for.

        Parameters
        ----------
        view : ServerView
            What the server knows; at least one worker is there.
        state : object
            The rule's.

        Returns
        -------
        int
            From 1 to the number of living workers.
        """

    def decide(self, view: ServerView, arrival: Arrival | None, state: Any, now: Seconds) -> tuple[Verdict, Any]:
        """Discard what is late, and update if k gradients of the present version are there."""
        if not view.workers:
            return Verdict("no worker is left"), state
        late = late_ones(view)
        present = view.kept.keys() - late if late else view.kept.keys()
        n, quota = len(view.workers), self.quota(view, state)
        count = sum(map(present.__contains__, view.workers))
        if count >= quota:
            apply = tuple(worker for worker in view.kept if worker in present)
            return Verdict(f"{count} of {n} gradients ({n - count} backups)", apply, late, view.workers), state
        reason = f"{count} of {n} gradients, {quota} wanted"
        if late:
            reason = f"late: workers {', '.join(map(str, late))}; {reason}"
        return Verdict(reason, discard=late, release=tuple(worker for worker in late if worker in view.workers)), state


def late_ones(view: ServerView) -> tuple[Rank, ...]:
    """Whose kept gradients are of an older version; several may have come while the last update was made."""
    return tuple(worker for worker, each in view.kept.items() if each.version < view.version)
