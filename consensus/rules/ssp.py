"""Stale synchronous parallel: asynchronous, but nobody runs too far ahead of the slowest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from consensus.errors import ConfigError
from consensus.protocol.service import Arrival, ServerView, Verdict
from consensus.rules.memoryless import Memoryless
from consensus.types import Seconds


@dataclass(frozen=True)
class Ssp(Memoryless):
    r"""Apply each gradient as it comes; a worker more than ``s`` iterations ahead of the slowest waits.

    With :math:`c_p` the gradients that worker p has pushed, p may begin its next iteration if

    .. math:: c_p - \min_q c_q \le s,

    the minimum over the workers that have not left. So nobody ever has pushed more than s + 1 gradients more than anybody else,
    and while it computes a worker is at most s ahead. With s = 0 the workers go in lockstep, yet each gradient still is an update
    of its own. A gradient that was rejected is no iteration.

    Parameters
    ----------
    s : int
        Iterations of lead with which one may begin another, 0 or more.

    References
    ----------
    Ho et al., *More Effective Distributed ML via a Stale Synchronous Parallel Parameter Server*, NIPS 2013.
    """

    name: ClassVar[str] = "ssp"
    synchronous: ClassVar[bool] = False
    uses_losses: ClassVar[bool] = False
    s: int = 3

    def __post_init__(self) -> None:
        if self.s < 0:
            raise ConfigError(f"ssp: s = {self.s}, expected a whole number of iterations, 0 or more; 0 is lockstep")

    def decide(self, view: ServerView, arrival: Arrival | None, state: Any, now: Seconds) -> tuple[Verdict, Any]:
        """Apply what came first, and release all that are near enough to the slowest."""
        apply = next(iter(view.kept), None)
        slowest = min((view.iterations.get(worker, 0) for worker in view.workers), default=0)
        # One whose gradient is yet to be applied goes on when it has been: the engine asks again.
        waiting = [worker for worker in view.workers if worker in view.held and (worker == apply or worker not in view.kept)]
        release = tuple(worker for worker in waiting if view.iterations.get(worker, 0) - slowest <= self.s)
        held = len(waiting) - len(release)
        reason = f"{held} held, more than {self.s} iterations ahead of {slowest}" if held else "nobody is too far ahead"
        return Verdict(reason, () if apply is None else (apply,), release=release), state
