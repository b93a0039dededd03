"""When the i-th gradient would have come, had the server waited for it: read off the gradients that came anyway."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import NamedTuple

from consensus.errors import ProtocolError
from consensus.rules.dbw.checks import one_or_more
from consensus.types import Rank, Seconds


class WaitingSample(NamedTuple):
    """One sample for :meth:`~consensus.rules.dbw.waiting.WaitingTimes.observe`: h, i, and the time in seconds."""

    previous: int
    i: int
    duration: Seconds


@dataclass(slots=True)
class _Version:
    previous: int
    since: Seconds
    arrived: int = 0


class FirstArrivals:
    """For each version, the first gradient of every worker that was started since the update, whatever version it is of.

    While the server goes on, a worker that was still busy skips versions: what it brings next is of a newer one. Had the server
    waited, it would have started at the same moment and brought a gradient of the old version at the same time. So every version
    yields one sample for each i = 1 .. n, none of them censored. To count only gradients of that very version, the late ones
    included, is biased: they come from those workers alone that did not skip it (eight workers with exponential round trips under
    constant k = 1: the second appears to take a third longer than it does, the eighth a quarter less).

    Holds for workers that finish what they are at (``wait``, ``pull``). Where work is dropped (``interrupt``) a later gradient
    says nothing about what was dropped: log those of the current version only. This reading is ours, not the paper's.

    Parameters
    ----------
    workers : int
        n, at least 1.
    memory : int
        Versions that stay open at most, at least 1: one closes when all workers have brought a gradient, which a stalled or
        departed worker does not.

    Raises
    ------
    ConfigError
        If either is below 1.

    Examples
    --------
    Two workers; the server goes on after the first gradient, and worker 1 skips a version:

    >>> arrivals = FirstArrivals(workers=2)
    >>> arrivals.update(version=0, previous=2, now=0.0)
    >>> arrivals.gradient(worker=0, version=0, now=1.0)
    [WaitingSample(previous=2, i=1, duration=1.0)]
    >>> arrivals.update(version=1, previous=1, now=1.0)
    >>> arrivals.gradient(worker=0, version=1, now=2.0)
    [WaitingSample(previous=1, i=1, duration=1.0)]
    >>> arrivals.update(version=2, previous=1, now=2.0)
    >>> arrivals.gradient(worker=1, version=0, now=2.5)
    [WaitingSample(previous=2, i=2, duration=2.5)]
    >>> for sample in arrivals.gradient(worker=1, version=2, now=3.0):
    ...     print(sample)
    WaitingSample(previous=1, i=2, duration=2.0)
    WaitingSample(previous=1, i=1, duration=1.0)
    """

    def __init__(self, workers: int, memory: int = 1000) -> None:
        one_or_more("arrivals", workers=workers, memory=memory)
        self._workers = workers
        self._open: deque[_Version] = deque(maxlen=memory)
        self._newest: int | None = None
        self._counted: dict[Rank, int] = {}

    def update(self, version: int, previous: int, now: Seconds) -> None:
        """The server has made a new version.

        Parameters
        ----------
        version : int
            Its number, one more than the last.
        previous : int
            h: the gradients that made it, at least 1.
        now : float
            Seconds on the server's clock.

        Raises
        ------
        ProtocolError
            If a version has been passed over.
        """
        if self._newest is not None and version != self._newest + 1:
            raise ProtocolError(f"arrivals: version {version} after version {self._newest}, expected {self._newest + 1}")
        self._newest = version
        self._open.append(_Version(previous, now))

    def gradient(self, worker: Rank, version: int, now: Seconds) -> list[WaitingSample]:
        """A worker has brought a gradient.

        Parameters
        ----------
        worker : int
            Who brings it.
        version : int
            The version it was computed at, one that has been made.
        now : float
            Seconds on the server's clock.

        Returns
        -------
        list of WaitingSample
            One for every version made since the worker last started, oldest first, as far as they are still open.

        Raises
        ------
        ProtocolError
            If the version has not been made yet.
        """
        if self._newest is None or version > self._newest:
            raise ProtocolError(f"arrivals: worker {worker} brings a gradient of version {version}, the newest is {self._newest}")
        oldest = self._newest - len(self._open) + 1
        first = max(self._counted.get(worker, oldest - 1) + 1, oldest)
        self._counted[worker] = max(version, first - 1)
        samples = []
        for number in range(first, version + 1):
            record = self._open[number - oldest]
            record.arrived += 1
            if record.arrived <= self._workers:
                samples.append(WaitingSample(record.previous, record.arrived, now - record.since))
        while self._open and self._open[0].arrived >= self._workers:
            self._open.popleft()
        return samples

    def resize(self, workers: int) -> None:
        """Expect gradients of so many workers from now on.

        Parameters
        ----------
        workers : int
            The new n, at least 1.

        Raises
        ------
        ConfigError
            If it is below 1.
        """
        one_or_more("arrivals", workers=workers)
        self._workers = workers
