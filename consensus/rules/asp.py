"""Asynchronous parallel: every gradient is an update of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from consensus.protocol.service import Arrival, ServerView, Verdict
from consensus.rules.memoryless import Memoryless
from consensus.types import Seconds


@dataclass(frozen=True)
class Asp(Memoryless):
    """Apply each gradient as it comes, whatever its version; its worker goes on at once.

    Nobody waits for anybody, and a gradient's staleness has no bound.

    References
    ----------
    Recht, Re, Wright, Niu, *Hogwild!: A Lock-Free Approach to Parallelizing Stochastic Gradient Descent*, NIPS 2011;
    Dean et al., *Large Scale Distributed Deep Networks*, NIPS 2012.
    """

    name: ClassVar[str] = "asp"
    synchronous: ClassVar[bool] = False
    uses_losses: ClassVar[bool] = False

    def decide(self, view: ServerView, arrival: Arrival | None, state: Any, now: Seconds) -> tuple[Verdict, Any]:
        """Apply what came first; the engine asks again for the rest, so that each gradient makes a whole step."""
        for worker, gradient in view.kept.items():
            released = (worker,) if worker in view.workers else ()
            return Verdict(f"{view.version - gradient.version} updates late", apply=(worker,), release=released), state
        return Verdict("no gradient is here"), state
