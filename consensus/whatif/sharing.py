"""How swaps that go on at the same time slow each other down."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from consensus.report.columns import Floats
from consensus.whatif.swaps import Swaps

EVIDENCE = 1.92
"""How much log-likelihood a limit has to be worth for each number that it adds: half the 95 % point of chi-square with one degree
of freedom. Without that evidence swaps do not disturb each other."""

_SWAPS, _LOOKS = 20_000, 5_000_000
"""How many swaps are looked at, the first ones, and in how many (swap, interval) pairs: some hundred megabytes, and far more than
two numbers need."""

_STEPS_PER_OCTAVE = 3
_MOST = 64.0
_SHARPEST = 1e-6


@dataclass(frozen=True)
class Sharing:
    """Swaps as jobs on shared processors and links: under a limit they take turns in small slices.

    Attributes
    ----------
    per_rank : float
        How many swaps of one rank go on at full speed at the same time; a rank that is one thread on one processor: 1.
    overall : float
        The same for all ranks together: for ranks that share a machine, or a network that is narrow somewhere.
    """

    per_rank: float = math.inf
    overall: float = math.inf

    @property
    def unlimited(self) -> bool:
        """Whether swaps do not disturb each other at all."""
        return self.per_rank == math.inf and self.overall == math.inf

    def slowdown(self, going: Any, busiest: Any) -> NDArray[np.float64]:
        """How many times slower a swap is than alone.

        Parameters
        ----------
        going : array_like
            How many swaps go on.
        busiest : array_like
            How many its ends are in, at that end which is in more.
        """
        return np.asarray(np.maximum(1.0, np.maximum(np.asarray(going) / self.overall, np.asarray(busiest) / self.per_rank)))


def fit(swaps: Swaps) -> tuple[Sharing, Floats]:
    r"""Find out what swaps share, and how much work each of them was.

    The work of a swap is what it would have taken alone: the integral of one over the slowdown from its agreement to its end.
    The limits are those under which swaps are most alike in their work: they maximise the likelihood of the durations, given
    when other swaps went on, if works are log-normal,

    .. math:: -K \log \operatorname{sd}(\log w) - \sum_k \log w_k - \sum_k \log s_k,

    where s_k is the slowdown at the end of swap k. Log-normal and not exponential, since works may well be all the same.

    Returns
    -------
    Sharing
        The limits.
    ndarray of float64, shape (exchanges,)
        Works in seconds; fewer than there are swaps if there are very many.
    """
    looked = _Looks(swaps)
    unlimited = Sharing()
    best, chosen = looked.likelihood(unlimited), unlimited
    rank_limits = _limits(looked.busiest)
    overall_limits = _limits(looked.going)
    for per_rank, overall in product(rank_limits, overall_limits):
        candidate = Sharing(per_rank, overall)
        price = EVIDENCE * sum(limit < math.inf for limit in (per_rank, overall))
        likelihood = looked.likelihood(candidate) - price
        if likelihood > best:
            best, chosen = likelihood, candidate
    return chosen, looked.works(chosen)


def _limits(seen: NDArray[np.intp]) -> list[float]:
    """Limits from 1 to what was seen, none included: a limit beyond that would not have been felt."""
    most = min(float(seen.max(initial=1)), _MOST)
    finite = [2.0 ** (k / _STEPS_PER_OCTAVE) for k in range(math.ceil(_STEPS_PER_OCTAVE * math.log2(most)))] if most > 1 else []
    return [*finite, math.inf]


class _Looks:
    """For each swap the intervals, between any two beginnings and ends, in which it went on, and who else went on in them."""

    def __init__(self, swaps: Swaps) -> None:
        count = min(len(swaps), _SWAPS)
        both = swaps.ends[:count]
        moments, places = np.unique(np.concatenate([swaps.agreed[:count], swaps.done[:count]]), return_inverse=True)
        begins, over = places[:count], places[count:]
        busy = np.zeros((int(both.max(initial=0)) + 1, max(1, len(moments))), np.int32)
        for side in (0, 1):
            np.add.at(busy, (both[:, side], begins), 1)
            np.add.at(busy, (both[:, side], over), -1)
        busy.cumsum(axis=1, out=busy)
        going = busy.sum(axis=0) // 2
        lengths = over - begins
        self._count = count = int(np.searchsorted(np.cumsum(lengths), _LOOKS, side="right"))
        lengths = lengths[:count]
        first = np.cumsum(lengths) - lengths
        self._swap = swap = np.repeat(np.arange(count), lengths)
        interval = np.arange(len(swap)) - (first - begins[:count])[swap]
        self._seconds = np.diff(moments)[interval]
        self._last = (first + lengths - 1)[lengths > 0]
        self.going = going[interval]
        self.busiest = np.maximum(*(busy[both[swap, side], interval] for side in (0, 1)))

    def works(self, sharing: Sharing) -> Floats:
        slices = self._seconds / sharing.slowdown(self.going, self.busiest)
        return np.asarray(np.bincount(self._swap, slices, self._count))

    def likelihood(self, sharing: Sharing) -> float:
        works = self.works(sharing)
        logs = np.log(works[works > 0])
        if not logs.size:
            return 0.0
        slowdowns = sharing.slowdown(self.going[self._last], self.busiest[self._last])
        # A floor: works that are all the same would be worth infinitely much, however they came to be so.
        spread = max(float(logs.std()), _SHARPEST)
        return float(-logs.size * math.log(spread) - logs.sum() - np.log(slowdowns).sum())
