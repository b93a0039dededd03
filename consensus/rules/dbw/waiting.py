"""How long the server waits for the k-th gradient, given how many it waited for the time before."""

from __future__ import annotations

import math
from collections import deque

import numpy as np
from numpy.typing import NDArray

from consensus.errors import ConfigError
from consensus.rules.dbw.checks import one_or_more
from consensus.rules.dbw.isotonic import diagonal_isotonic
from consensus.types import Seconds


class WaitingTimes:
    """The expected times T_{h,k} from an update to the k-th gradient of the new version, h gradients having made that update.

    Where a busy worker finishes its batch before it takes the new version up (``wait`` and ``pull``), the times depend on h:
    after a small h many workers are still busy. Where workers drop what they are at (``interrupt``), they do not, and the caller
    may log all under one h. Samples of one cell are kept up to a bounded number, the newest; the fit weighs each cell with its
    number and runs when somebody asks and something has changed. A cell never seen gets the lowest time that the order leaves it,
    so that it looks good and is tried (ours, not the paper's).

    Parameters
    ----------
    workers : int
        n, at least 1.
    history : int
        Samples kept of each cell, at least 1. More are steadier; fewer forget sooner how fast the workers once were.

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
    >>> times.expected(2)
    array([0., 0., 0.])
    """

    def __init__(self, workers: int, history: int = 50) -> None:
        one_or_more("waiting times", workers=workers, history=history)
        self._workers = workers
        self._history = history
        self._samples: dict[tuple[int, int], deque[Seconds]] = {}
        self._means = np.zeros((workers, workers))
        self._changed: set[tuple[int, int]] = set()
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
        cell = (previous, i)
        self._samples.setdefault(cell, deque(maxlen=self._history)).append(duration)
        self._changed.add(cell)

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
        if self._fitted is None or self._changed:
            self._fitted = self._fit()
        row: NDArray[np.float64] = self._fitted[previous - 1]
        return row.copy()

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
        self._workers = workers
        self._samples = {cell: samples for cell, samples in self._samples.items() if max(cell) <= workers}
        self._means = np.zeros((workers, workers))
        self._changed = set(self._samples)
        self._fitted = None

    def _fit(self) -> NDArray[np.float64]:
        for h, i in self._changed:
            samples = self._samples[h, i]
            self._means[h - 1, i - 1] = math.fsum(samples) / len(samples)
        self._changed.clear()
        counts = np.zeros_like(self._means)
        for (h, i), samples in self._samples.items():
            counts[h - 1, i - 1] = len(samples)
        return diagonal_isotonic(self._means, counts)

    def _check(self, name: str, number: int) -> None:
        if not 1 <= number <= self._workers:
            raise ConfigError(
                f"waiting times: {name} = {number}, expected 1 .. {self._workers}, the number of workers; "
                "after one has left, count with at most those that are there"
            )
