"""How long an update takes if every one waits for k gradients: from how long they were waited for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from consensus.rules.dbw.arrivals import FirstArrivals
from consensus.rules.dbw.waiting import WaitingTimes
from consensus.types import Rank, Seconds


class FittedTimes:
    """T_{k,k} by the fit of :class:`~consensus.rules.dbw.waiting.WaitingTimes` to what was waited for.

    Where work is dropped (``interrupt``), each update is followed by a start of all, and only gradients of the present version
    are samples; where it is finished, see :class:`~consensus.rules.dbw.arrivals.FirstArrivals`. A k that was not tried for long
    looks good, and is tried: at the price of the wait.

    Parameters
    ----------
    workers : int
        n, at least 1.
    history : int
        Updates in which a sample loses nearly two thirds of its weight, at least 1.
    dropped : bool
        Whether workers drop what they are at.

    Attributes
    ----------
    waiting : WaitingTimes
        The fit.

    Raises
    ------
    ConfigError
        If a number is below 1.

    Examples
    --------
    >>> times = FittedTimes(workers=2)
    >>> times.update(version=0, used=2, workers=[1, 2], now=0.0)
    >>> times.gradient(1, version=0, late=False, now=1.0)
    >>> times.gradient(2, version=0, late=False, now=3.0)
    >>> times.expected([1, 2])
    array([1., 3.])
    """

    def __init__(self, workers: int, history: int = 15, dropped: bool = False) -> None:
        # Dropped work yields no sample: then a version is open until the next one is made, no longer.
        self._arrivals = FirstArrivals(workers, memory=1) if dropped else FirstArrivals(workers)
        self._dropped = dropped
        self.waiting = WaitingTimes(workers, history)

    def update(self, version: int, used: int, workers: Sequence[Rank], now: Seconds) -> None:
        """The server has made ``version`` of so many gradients, at most as many as there are workers."""
        # Where work is dropped, it does not matter how many were busy: all start together.
        self._arrivals.update(version, len(workers) if self._dropped else used, now)
        self.waiting.age()

    def gradient(self, worker: Rank, version: int, late: bool, now: Seconds) -> None:
        """A worker has brought a gradient of ``version``."""
        for sample in self._arrivals.gradient(worker, version, now):
            self.waiting.observe(min(sample.previous, self.waiting.workers), sample.i, sample.duration)

    def leave(self, worker: Rank, workers: Sequence[Rank]) -> None:
        """``worker`` has left, these are there."""
        self._arrivals.resize(len(workers))
        self.waiting.resize(len(workers))

    def state_dict(self) -> dict[str, Any]:
        """What has been seen, as arrays and numbers."""
        return self.waiting.state_dict()

    def load_state_dict(self, state: Mapping[str, Any], workers: Sequence[Rank]) -> None:
        """Know what another one with the same history knew, and count with these workers.

        Parameters
        ----------
        state : mapping
            What :meth:`state_dict` gave.
        workers : sequence of int
            Those that are there.
        """
        self.waiting.load_state_dict(state)
        self.waiting.resize(len(workers))

    def expected(self, workers: Sequence[Rank]) -> NDArray[np.float64]:
        """T_{k,k} in seconds for k = 1 .. n, shape (n,), nondecreasing; 0 where nothing at all is known."""
        return self.waiting.expected(len(workers)) if self._dropped else self.waiting.sustained()
