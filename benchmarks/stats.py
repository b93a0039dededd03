"""The few statistics that are reported. The machine is noisy, so everything is a median of many short blocks."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple


class Spread(NamedTuple):
    """A median between its quartiles."""

    low: float
    middle: float
    high: float


def spread(values: Sequence[float]) -> Spread:
    """Median and quartiles.

    Examples
    --------
    >>> spread([3.0, 1.0, 2.0])
    Spread(low=1.5, middle=2.0, high=2.5)
    """
    if len(values) == 1:
        return Spread(values[0], values[0], values[0])
    return Spread(*statistics.quantiles(values, n=4, method="inclusive"))


def ratios(above: Sequence[float], below: Sequence[float]) -> Spread:
    """Median and quartiles of the ratio of blocks that were measured next to each other.

    Examples
    --------
    >>> ratios([2.0, 40.0, 6.0], [1.0, 20.0, 2.0]).middle
    2.0
    """
    return spread([a / b for a, b in zip(above, below, strict=True)])


def added(with_it: Sequence[float], without: Sequence[float]) -> float:
    """Median of the differences of neighbouring blocks.

    Examples
    --------
    >>> added([5.0, 9.0, 7.0], [4.0, 5.0, 5.0])
    2.0
    """
    return statistics.median(a - b for a, b in zip(with_it, without, strict=True))


def median_time(times: Sequence[float | None]) -> float | None:
    """Median of times of which some are None: not reached, later than all others.

    Examples
    --------
    >>> median_time([3.0, None, 4.0]), median_time([None, 2.0, None])
    (4.0, None)
    """
    middle = statistics.median_high([math.inf if time is None else time for time in times])
    return middle if math.isfinite(middle) else None


class Bound(NamedTuple):
    """A ratio of times, or an upper bound of it where the denominator was not reached in time."""

    value: float
    exact: bool

    def __str__(self) -> str:
        return f"{self.value:.2f}" if self.exact else f"< {self.value:.2f}"


def time_ratio(time: float | None, other: float | None, limit: float) -> Bound | None:
    """How long ``time`` is in units of ``other``, in a run of ``limit`` seconds; None where ``time`` was not reached.

    Examples
    --------
    >>> str(time_ratio(4.0, 8.0, 16.0)), str(time_ratio(4.0, None, 16.0)), time_ratio(None, 8.0, 16.0)
    ('0.50', '< 0.25', None)
    """
    if time is None:
        return None
    return Bound(time / (limit if other is None else other), other is not None)


def median_ratio(times: Sequence[float | None], others: Sequence[float | None], limit: float) -> Bound | None:
    """Median over runs of :func:`time_ratio`, each run with the one of the same seed; a bound if any in the middle is one.

    Examples
    --------
    >>> str(median_ratio([4.0, 5.0, 6.0], [8.0, 8.0, 8.0], 16.0))
    '0.62'
    """
    pairs = [time_ratio(time, other, limit) for time, other in zip(times, others, strict=True)]
    ordered = sorted(pairs, key=lambda bound: math.inf if bound is None else bound.value)
    middle = ordered[len(ordered) // 2]
    if middle is None:
        return None
    # Bounds below the middle stay below it whatever their true value; one above it might in truth belong below.
    return Bound(middle.value, all(bound is None or bound.exact for bound in ordered[len(ordered) // 2 :]))
