"""How a rank passes the time while nothing arrives."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass

from consensus.types import Seconds


def cpus() -> frozenset[int]:
    """Return the processors this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return frozenset(os.sched_getaffinity(0))
    return frozenset(range(os.cpu_count() or 1))


def crowded(affinities: Iterable[frozenset[int]]) -> bool:
    """Whether the ranks of one host outnumber the processors they may use.

    Parameters
    ----------
    affinities
        :func:`cpus` of every rank of the host. Launchers bind ranks to processors, so one rank's own set says little.

    Returns
    -------
    bool

    Examples
    --------
    >>> crowded([frozenset({0}), frozenset({1})]), crowded([frozenset({0, 1})] * 3)
    (False, True)
    """
    sets = list(affinities)
    return len(sets) > len(frozenset().union(*sets))


@dataclass(frozen=True)
class Idle:
    """The pauses between two looks for messages: first only yields, then growing sleeps.

    A rank that has waited for ``t`` sleeps ``fraction * t`` at a time: it adds at most that fraction to the time it waits for
    a message, and leaves the processor to ranks that compute.

    Parameters
    ----------
    patience
        How long to look without sleeping, seconds.
    longest
        Longest sleep, seconds.
    fraction
        Sleep as a fraction of the time waited so far.
    """

    patience: Seconds
    longest: Seconds
    fraction: float = 0.1

    def pause(self, waited: Seconds, moving: bool) -> None:
        """Pause once.

        Parameters
        ----------
        waited
            Time since this wait began, seconds.
        moving
            Whether a model is under way: then the other end is active as well, and a sleep would delay both.
        """
        if moving or waited < self.patience:
            os.sched_yield()
        else:
            time.sleep(min(self.longest, self.fraction * waited))
