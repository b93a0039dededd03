"""How long each worker takes from new weights to its gradient: measured by the server, and drawn once more."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from consensus.errors import ConfigError
from consensus.rules.dbw.checks import one_or_more
from consensus.types import Rank, Seconds

_REMEMBERED = 2
"""Samples of a worker that are kept, in units of the history: older ones would weigh next to nothing."""


class RoundTrips:
    """The round trips of the workers, each from the moment it could begin until its gradient is here.

    A worker can begin when there are weights that it has not worked on: with the update that makes them or, if it is busy then,
    when it has brought what it is at. Unlike waiting times, round trips do not depend on how many gradients the server waits
    for: those made under one k tell what any other would take (:class:`~consensus.rules.dbw.steady.SteadyTimes`).

    A sample's weight is exp(-age / history), age in updates and counted from the worker's last sample: what a worker was that
    has not come back for long is the best guess of what it is. As far as the workers differ by no more than chance, each counts
    as any of them: what has been seen of one may happen to all. Holds for workers that finish what they are at (``wait``,
    ``pull``); where work is dropped (``interrupt``) the long ones are not seen. All ours, not the paper's.

    Parameters
    ----------
    history : int
        Updates in which a sample's weight falls by a factor of e, at least 1.

    Raises
    ------
    ConfigError
        If it is below 1.

    Examples
    --------
    Worker 2 is busy at the first update, and begins with the newer weights a second later:

    >>> trips = RoundTrips()
    >>> trips.update([1, 2], now=0.0)
    >>> trips.gradient(1, late=False, now=1.0)
    >>> trips.update([1, 2], now=1.0)
    >>> trips.gradient(2, late=True, now=2.0)
    >>> trips.gradient(2, late=False, now=5.0)
    >>> trips.seconds(1), trips.seconds(2)
    ([1.0], [2.0, 3.0])
    """

    def __init__(self, history: int = 15) -> None:
        one_or_more("round trips", history=history)
        self._history = history
        self._updates, self._updated_at = 0, 0.0
        self._began: dict[Rank, Seconds] = {}
        self._samples: dict[Rank, deque[tuple[Seconds, int]]] = {}

    def update(self, workers: Sequence[Rank], now: Seconds) -> None:
        """New weights are there: whoever is not busy begins.

        Parameters
        ----------
        workers : sequence of int
            Those that have not left.
        now : float
            Seconds on the server's clock.
        """
        self._updates, self._updated_at = self._updates + 1, now
        for worker in workers:
            self._began.setdefault(worker, now)

    def gradient(self, worker: Rank, late: bool, now: Seconds) -> None:
        """A worker has brought a gradient. Told of it again, nothing happens.

        Parameters
        ----------
        worker : int
            Who brings it.
        late : bool
            Whether there are newer weights than it was computed with, so that the worker goes on at once.
        now : float
            When it came, seconds on the server's clock.
        """
        if worker not in self._began:
            return
        seconds = max(now - self._began.pop(worker), 0.0)
        self._samples.setdefault(worker, deque(maxlen=_REMEMBERED * self._history)).append((seconds, self._updates))
        if late:
            self._began[worker] = max(now, self._updated_at)

    def leave(self, worker: Rank) -> None:
        """Forget a worker that has left."""
        self._began.pop(worker, None)
        self._samples.pop(worker, None)

    def known(self, workers: Sequence[Rank]) -> bool:
        """Whether there is a sample of each of them."""
        return all(worker in self._samples for worker in workers)

    def seconds(self, worker: Rank) -> list[Seconds]:
        """A worker's round trips that are remembered, oldest first."""
        return [seconds for seconds, _ in self._samples.get(worker, ())]

    def state_dict(self) -> dict[str, Any]:
        """What has been seen, as lists of numbers; not who is at what, which is the session's affair."""
        samples = [[worker, [list(sample) for sample in seen]] for worker, seen in self._samples.items()]
        return {"updates": self._updates, "samples": samples}

    def load_state_dict(self, state: Mapping[str, Any], workers: Sequence[Rank]) -> None:
        """Know what another one with the same history knew of these workers.

        Parameters
        ----------
        state : mapping
            What :meth:`state_dict` gave.
        workers : sequence of int
            Those that are there; others' samples are left out.
        """
        self._updates = state["updates"]
        self._began.clear()
        self._samples = {
            worker: deque(((seconds, update) for seconds, update in seen), maxlen=_REMEMBERED * self._history)
            for worker, seen in state["samples"]
            if worker in workers
        }

    def draw(self, workers: Sequence[Rank], count: int, generator: np.random.Generator) -> NDArray[np.float64]:
        r"""Draw from the samples, by their weights, with replacement.

        With the probability :math:`\min(1, S/B)` the sample is one of any of the workers, otherwise of the worker itself. B is
        the mean square between workers and S the one within them, so that this is much like James and Stein's shrinkage: after
        a few round trips one that has stalled is not thought to stall always, nor the others never. One that has been out for
        longer than any of them ever was counts as that slow, for as long as it is out: it may be stuck.

        Parameters
        ----------
        workers : sequence of int
            Whose.
        count : int
            How many of each.
        generator : numpy.random.Generator
            Chance.

        Returns
        -------
        ndarray, shape (count, number of workers), float64
            Seconds.

        Raises
        ------
        ConfigError
            If there is no sample of one of them.
        """
        if not self.known(workers):
            missing = ", ".join(str(worker) for worker in workers if worker not in self._samples)
            raise ConfigError(f"round trips: none of worker {missing} is known, expected one or more; wait for its gradient")
        seconds, weights = self._table(workers)
        n = len(workers)
        alike = _likeness(seconds, weights)
        others = generator.integers(n, size=(count, n))
        whose = np.where(generator.random((count, n)) < alike, others, np.arange(n))
        heaps = np.cumsum(weights, axis=1)
        below = heaps[whose] <= generator.random((count, n, 1)) * heaps[whose, -1:]
        drawn: NDArray[np.float64] = seconds[whose, below.sum(axis=2)]
        out = np.array([self._updated_at - self._began.get(worker, self._updated_at) for worker in workers])
        return np.where(out > seconds.max(), out, drawn)

    def _table(self, workers: Sequence[Rank]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Samples and their weights, a row each worker, oldest first and filled up with those of weight 0."""
        size = max(len(self._samples[worker]) for worker in workers)
        seconds, at = np.zeros((len(workers), size)), np.full((len(workers), size), -np.inf)
        for row, worker in enumerate(workers):
            samples = self._samples[worker]
            seconds[row, : len(samples)], at[row, : len(samples)] = zip(*samples, strict=True)
        return seconds, np.exp((at - at.max(axis=1, keepdims=True)) / self._history)


def _likeness(seconds: NDArray[np.float64], weights: NDArray[np.float64]) -> float:
    """min(1, S/B) of an analysis of variance, a group each worker; 1 where each has one sample."""
    counts = weights.sum(axis=1)
    means = (weights * seconds).sum(axis=1) / counts
    within = float((weights * (seconds - means[:, None]) ** 2).sum())
    between = float(counts @ (means - np.average(means, weights=counts)) ** 2)
    groups, freedom = len(counts) - 1, float(counts.sum()) - len(counts)
    if within * groups >= between * freedom:
        return 1.0
    return within * groups / (between * freedom)
