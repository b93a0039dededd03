"""The network of the simulator, with links that are shared as in the recorded run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from consensus.sim.kernel import Kernel
from consensus.sim.network import Network
from consensus.types import Edge, Seconds
from consensus.whatif.sharing import Sharing

Works = Mapping[Edge, Iterator[Seconds]]
"""For each edge, how much work its swaps are, one after the other and without end, seconds."""


class SharedNetwork(Network):
    """A network whose swaps take work of their own, done on what all of them share.

    The link given to :class:`~consensus.sim.network.Network` times control messages alone; to it, models take no time.

    Parameters
    ----------
    *arguments, **keywords
        Of :class:`~consensus.sim.network.Network`.
    works : Mapping
        See :data:`Works`.
    sharing : Sharing
        How swaps disturb each other.
    """

    def __init__(self, *arguments: Any, works: Works, sharing: Sharing, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self._works = works
        self._server = None if sharing.unlimited else Server(self.kernel, sorted(works), self.size, sharing)

    def swapped(self, argument: tuple[Any, Any, float | None]) -> None:
        """Begin the work of a swap on which both ends have agreed; when it is done, the swap ends at both."""
        one, other, _ = argument
        edge = (min(one.rank, other.rank), max(one.rank, other.rank))
        work = next(self._works[edge])
        if self._server is None:
            self.kernel.at(self.kernel.now + work, super().swapped, argument)
        else:
            self._server.start(edge, work, super().swapped, argument)


class Server:
    """Jobs that slow each other down, at most one an edge at a time.

    Parameters
    ----------
    kernel : Kernel
        The clock.
    edges : sequence of (int, int)
        Who may have jobs.
    size : int
        Number of ranks.
    sharing : Sharing
        By how much.
    """

    def __init__(self, kernel: Kernel, edges: list[Edge], size: int, sharing: Sharing) -> None:
        self._kernel, self._sharing = kernel, sharing
        self._place = {edge: place for place, edge in enumerate(edges)}
        self._ends = np.array(edges, np.intp).reshape(-1, 2)
        self._left = np.full(len(edges), np.inf)
        self._slowdown = np.ones(len(edges))
        self._busy = np.zeros(size, np.intp)
        self._jobs: dict[int, tuple[Callable[[Any], None], Any]] = {}
        self._since = kernel.now
        self._turn = 0

    def start(self, edge: Edge, work: Seconds, callback: Callable[[Any], None], argument: Any) -> None:
        """Let ``callback(argument)`` happen when ``work`` seconds of work are done."""
        self._work_off()
        place = self._place[edge]
        self._left[place] = work
        self._jobs[place] = (callback, argument)
        self._busy[self._ends[place]] += 1
        self._go_on()

    def _work_off(self) -> None:
        now = self._kernel.now
        self._left -= (now - self._since) / self._slowdown
        self._since = now

    def _go_on(self) -> None:
        """Every job's speed and the first job's end, from who is at work now."""
        self._turn += 1
        if self._jobs:
            self._slowdown = self._sharing.slowdown(len(self._jobs), self._busy[self._ends].max(axis=1))
            following = max(0.0, float((self._left * self._slowdown).min()))
            self._kernel.at(self._kernel.now + following, self._end, self._turn)

    def _end(self, turn: int) -> None:
        if turn != self._turn:
            return
        # The one that this moment was reckoned for is over, whatever rounding leaves of it.
        place = int((self._left * self._slowdown).argmin())
        self._work_off()
        self._left[place] = np.inf
        self._busy[self._ends[place]] -= 1
        callback, argument = self._jobs.pop(place)
        self._go_on()
        callback(argument)
