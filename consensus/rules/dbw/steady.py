"""How long an update takes if every one waits for k gradients: for all k at once, without waiting for any of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from consensus.rules.dbw.trips import RoundTrips
from consensus.types import Rank, Seconds

_AHEAD = 4
"""Updates that the imagined servers make for one of the real one's: more make the mean steadier, and cost more."""


class SteadyTimes:
    r"""T_{k,k} by resampling: n imagined servers, the k-th of which always waits for k, and workers like the real ones.

    To learn by waiting that 8 gradients take long now and then, one has to wait that long, for 8, then for 7, for 6 and so on.
    But what makes them take long has been seen of each worker before. So the round trips measured so far
    (:class:`~consensus.rules.dbw.trips.RoundTrips`) are drawn again, the same for all k, and each imagined server goes by the
    protocol: with f the moment at which a worker is done with what it is at, u that of the server's last update and d the round
    trip drawn, the next update is at the k-th smallest of :math:`\max(f, u) + d`, and whoever begins before that, begins. T is a
    mean over imagined updates, with weights that fade as those of the samples do.

    Holds where workers finish what they are at (``wait``, ``pull``) and one worker's time says nothing of another's at that
    moment. Ours, not the paper's, whose way :class:`~consensus.rules.dbw.fitted.FittedTimes` is.

    Parameters
    ----------
    history : int
        Updates of the real server in which a sample loses nearly two thirds of its weight, at least 1.

    Raises
    ------
    ConfigError
        If it is below 1.

    Examples
    --------
    Two workers, one three times as fast as the other, that have both made two round trips:

    >>> times = SteadyTimes()
    >>> for version in (0, 1):
    ...     times.update(version, used=2, workers=[1, 2], now=3.0 * version)
    ...     times.gradient(1, version, late=False, now=3.0 * version + 1.0)
    ...     times.gradient(2, version, late=False, now=3.0 * version + 3.0)
    >>> times.expected([1, 2])
    array([1., 3.])
    """

    def __init__(self, history: int = 15) -> None:
        self._trips = RoundTrips(history)
        self._history = history
        self._generator = np.random.default_rng(0)
        self._begin(0)

    def _begin(self, n: int) -> None:
        self._updated, self._done = np.zeros(n), np.zeros((n, n))
        self._sums, self._weight, self._looks = np.zeros(n), 0.0, 0

    def update(self, version: int, used: int, workers: Sequence[Rank], now: Seconds) -> None:
        """The server has made ``version`` of so many gradients; these workers are there."""
        self._trips.update(workers, now)

    def gradient(self, worker: Rank, version: int, late: bool, now: Seconds) -> None:
        """A worker has brought a gradient of ``version``, of which there are newer ones if it is late."""
        self._trips.gradient(worker, late, now)

    def leave(self, worker: Rank, workers: Sequence[Rank]) -> None:
        """``worker`` has left, these are there: what the imagined servers did with it is forgotten."""
        self._trips.leave(worker)
        self._begin(0)

    def state_dict(self) -> dict[str, Any]:
        """What has been seen, as lists of numbers."""
        return self._trips.state_dict()

    def load_state_dict(self, state: Mapping[str, Any], workers: Sequence[Rank]) -> None:
        """Know what another one with the same history knew of these workers; its servers are imagined anew.

        Parameters
        ----------
        state : mapping
            What :meth:`state_dict` gave.
        workers : sequence of int
            Those that are there.
        """
        self._trips.load_state_dict(state, workers)
        self._begin(0)

    def expected(self, workers: Sequence[Rank]) -> NDArray[np.float64]:
        """Imagine some updates more, and return what all of them tell.

        Parameters
        ----------
        workers : sequence of int
            The n that are there.

        Returns
        -------
        ndarray, shape (n,), float64
            T_{k,k} in seconds for k = 1 .. n, nondecreasing; 0 until each of them has made a round trip.
        """
        n = len(workers)
        if not self._trips.known(workers):
            return np.zeros(n)
        if n != len(self._updated):
            self._begin(n)
            # With small k it takes the slow workers some updates to fall behind.
            self._imagine(self._trips.draw(workers, n, self._generator))
        self._looks += 1
        count, kept = _AHEAD, math.exp(-1 / self._history)
        if self._looks <= self._history and self._looks & (self._looks - 1) == 0:
            # In the beginning little was known: with twice as many samples all is imagined anew.
            count, kept = _AHEAD * self._history, 0.0
        before = self._updated
        self._imagine(self._trips.draw(workers, count, self._generator))
        self._sums = kept * self._sums + self._updated - before
        self._weight = kept * self._weight + count
        means: NDArray[np.float64] = np.maximum.accumulate(self._sums / self._weight)
        return means

    def _imagine(self, drawn: NDArray[np.float64]) -> None:
        order = np.arange(len(self._updated))
        for durations in drawn:
            ends = np.maximum(self._done, self._updated[:, None]) + durations
            self._updated = np.sort(ends, axis=1)[order, order]
            self._done = np.where(self._done < self._updated[:, None], ends, self._done)
