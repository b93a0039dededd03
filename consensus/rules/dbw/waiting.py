"""How long the server waits for the k-th gradient, given how many it waited for the time before."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from consensus.errors import ConfigError
from consensus.rules.dbw.checks import one_or_more
from consensus.rules.dbw.isotonic import diagonal_isotonic
from consensus.types import Seconds

_LEAST = 1e-12
"""No weight of a cell that has been seen is less: one of 0 would say that it has not."""


class WaitingTimes:
    """The expected times T_{h,k} from an update to the k-th gradient of the new version, h gradients having made that update.

    Where a busy worker finishes its batch before it takes the new version up (``wait`` and ``pull``), the times depend on h:
    after a small h many workers are still busy. Where workers drop what they are at (``interrupt``), they do not, and the caller
    may log all under one h. A cell's value is the mean of its samples, weighted by exp(-age / history), age in updates: one new
    sample of a cell not seen for long says more than all its old ones, which may date from other times. The fit weighs each cell
    with the sum of its weights and runs when somebody asks and something has been observed. A cell never seen gets the lowest
    time that the order leaves it, so that it looks good and is tried; not lower than the same k after a larger h, where no fewer
    workers were idle (all ours, not the paper's).

    Parameters
    ----------
    workers : int
        n, at least 1.
    history : int
        Updates in which a sample's weight falls by a factor of e, at least 1. More are steadier; fewer forget sooner how fast the
        workers once were.

    Raises
    ------
    ConfigError
        If either is below 1.

    References
    ----------
    Xu, Neglia, Sebastianelli, *Dynamic Backup Workers for Parallel Machine Learning*, arXiv 2004.14696; the paper's body was not
    at hand, details are ours.

    Examples
    --------
    >>> times = WaitingTimes(workers=3)
    >>> for i, seconds in enumerate([1.0, 3.0, 2.0], start=1):
    ...     times.observe(3, i, seconds)
    >>> times.expected(3)
    array([1. , 2.5, 2.5])
    >>> times.expected(2)  # not seen yet: no shorter than after a larger choice
    array([1. , 2.5, 2.5])
    """

    def __init__(self, workers: int, history: int = 15) -> None:
        one_or_more("waiting times", workers=workers, history=history)
        self._workers = workers
        self._history = history
        self._now = 0
        self._weights, self._sums = np.zeros((workers, workers)), np.zeros((workers, workers))
        self._last = np.zeros((workers, workers), dtype=np.int64)
        self._fitted: NDArray[np.float64] | None = None

    @property
    def workers(self) -> int:
        """n, the number of workers now."""
        return self._workers

    def observe(self, previous: int, i: int, duration: Seconds) -> None:
        """Log when a gradient of the current version came; a late one, after the next update, as well.

        Parameters
        ----------
        previous : int
            h: the gradients that the update before waited for, 1 .. n.
        i : int
            Its place among the gradients of this version, 1 .. n.
        duration : float
            Seconds from the update to this gradient, 0 or more.

        Raises
        ------
        ConfigError
            If a number is outside its range or the duration is not finite.
        """
        self._check("previous", previous)
        self._check("i", i)
        if not 0 <= duration < math.inf:
            raise ConfigError(f"waiting times: duration = {duration}, expected seconds since the update, finite and 0 or more")
        cell = (previous - 1, i - 1)
        kept = math.exp((int(self._last[cell]) - self._now) / self._history)
        self._weights[cell] = kept * self._weights[cell] + 1.0
        self._sums[cell] = kept * self._sums[cell] + duration
        self._last[cell] = self._now
        self._fitted = None

    def expected(self, previous: int) -> NDArray[np.float64]:
        """T_{h,k} for k = 1 .. n.

        Parameters
        ----------
        previous : int
            h, 1 .. n.

        Returns
        -------
        ndarray, shape (n,), float64
            Seconds, nondecreasing; 0 where nothing at all is known.

        Raises
        ------
        ConfigError
            If ``previous`` is outside its range.
        """
        self._check("previous", previous)
        row: NDArray[np.float64] = self._present()[previous - 1]
        return row.copy()

    def sustained(self) -> NDArray[np.float64]:
        """T_{k,k} for k = 1 .. n: how long an update takes if every one waits for k.

        Returns
        -------
        ndarray, shape (n,), float64
            Seconds, nondecreasing; 0 where nothing at all is known.
        """
        return np.diagonal(self._present()).copy()

    def age(self) -> None:
        """An update has been made: what has been observed until now is older by one."""
        self._now += 1

    def resize(self, workers: int) -> None:
        """Forget the cells that no longer exist, keep the others.

        Parameters
        ----------
        workers : int
            The new n, at least 1; more than before adds empty cells.

        Raises
        ------
        ConfigError
            If it is below 1.
        """
        one_or_more("waiting times", workers=workers)
        fewer = min(workers, self._workers)
        for name in ("_weights", "_sums", "_last"):
            old = getattr(self, name)
            new = np.zeros((workers, workers), dtype=old.dtype)
            new[:fewer, :fewer] = old[:fewer, :fewer]
            setattr(self, name, new)
        self._workers = workers
        self._fitted = None

    def state_dict(self) -> dict[str, Any]:
        """What has been seen, as arrays and numbers."""
        return {"now": self._now, "weights": self._weights.copy(), "sums": self._sums.copy(), "last": self._last.copy()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Know what another one knew, and count with as many workers; the history stays this one's.

        Parameters
        ----------
        state : mapping
            What :meth:`state_dict` gave.
        """
        self._now = state["now"]
        self._weights, self._sums, self._last = (state[name].copy() for name in ("weights", "sums", "last"))
        self._workers = len(self._weights)
        self._fitted = None

    def _present(self) -> NDArray[np.float64]:
        if self._fitted is None:
            seen = self._weights > 0
            means = np.divide(self._sums, self._weights, out=np.zeros_like(self._sums), where=seen)
            kept = np.exp((self._last - self._now) / self._history)
            weights = np.where(seen, np.maximum(self._weights * kept, _LEAST), 0.0)
            self._fitted = _never_sooner(diagonal_isotonic(means, weights), seen)
        return self._fitted

    def _check(self, name: str, number: int) -> None:
        if not 1 <= number <= self._workers:
            raise ConfigError(
                f"waiting times: {name} = {number}, expected 1 .. {self._workers}, the number of workers; "
                "after one has left, count with at most those that are there"
            )


def _never_sooner(fitted: NDArray[np.float64], seen: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Raise the cells never seen to what has been seen of the same k after a larger h, when no fewer workers were idle."""
    known = np.where(seen, fitted, 0.0)
    bound = np.maximum.accumulate(known[::-1], axis=0)[::-1]
    return np.maximum.accumulate(np.where(seen, fitted, np.maximum(fitted, bound)), axis=1)
