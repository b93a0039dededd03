"""Bulk synchronous parallel: one update of all workers' gradients, then all continue."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from consensus.protocol.service import ServerView
from consensus.rules.quorum import Quorum


@dataclass(frozen=True)
class Bsp(Quorum):
    """Wait for every living worker's gradient of the present version.

    References
    ----------
    Valiant, *A Bridging Model for Parallel Computation*, CACM 1990.

    Examples
    --------
    >>> from consensus.protocol.service import Arrival
    >>> gradient = Arrival(worker=1, version=0, iteration=1, at=0.5, loss=2.0, square=1.0)
    >>> view = ServerView(workers=(1, 2), kept={1: gradient})
    >>> Bsp().decide(view, gradient, None, 0.5)[0].reason
    '1 of 2 gradients, 2 wanted'
    """

    name: ClassVar[str] = "bsp"

    def quota(self, view: ServerView, state: Any) -> int:
        """All that live."""
        return len(view.workers)
