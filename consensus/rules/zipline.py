"""ZipLine: where to put the next barrier so that workers whose iterations end at predicted times wait least for one another."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from math import inf, isfinite
from operator import le
from typing import Literal, NamedTuple

from consensus.errors import ConfigError
from consensus.names import lookup
from consensus.types import Rank, Seconds

Objective = Literal["spread", "rate"]
"""What is least at the chosen barrier; see :func:`zipline`."""


class Schedule(NamedTuple):
    """When a superstep ends and how much each worker does until then.

    Parameters
    ----------
    spread
        Time from the first worker's arrival at the barrier until the last one's, seconds.
    barrier
        When the last worker arrives, in the predictions' own time, seconds.
    quotas
        Iterations of each worker until the barrier, at least 1.
    """

    spread: Seconds
    barrier: Seconds
    quotas: dict[Rank, int]


def zipline(predictions: Mapping[Rank, Sequence[Seconds]], objective: Objective = "spread", origin: Seconds = 0.0) -> Schedule:
    r"""Choose one predicted end from each worker such that the chosen ends are as near together as possible.

    With :math:`e_i^p` for the end of iteration i of worker p, choose indices :math:`q_p` that minimise

    .. math:: s = \max_p e_{q_p}^p - \min_p e_{q_p}^p

    or, under ``"rate"``, :math:`s / (\max_p e_{q_p}^p - o)` with the origin o. Of equal minima the earliest barrier is taken, and
    every worker goes as far as it gets by then: ends that coincide are taken together, so that neither the order nor the names of
    the workers matter. Costs O(R n log n) for n workers and R ends each, nearly all of it in sorting.

    Parameters
    ----------
    predictions
        For each worker the predicted ends of its coming iterations, ascending (equal ones are allowed), seconds. Workers may have
        different numbers of them, at least one each.
    objective
        ``"spread"`` (the paper's) minimises the time between the first arrival and the last. ``"rate"`` (ours, not the paper's)
        minimises that time's share of the superstep: with many workers the least spread hardly falls as more is predicted, but
        a wait of the same length costs less the longer the superstep is.
    origin
        When the superstep began, seconds; matters under ``"rate"`` alone, and every end is then after it.

    Returns
    -------
    Schedule
        Spread, barrier and quotas.

    Raises
    ------
    ConfigError
        For no workers, a worker without ends, ends that descend or are not finite, an unknown objective, and under ``"rate"`` an
        end that is not after the origin.

    References
    ----------
    Zhao, Papagelis, An, Chen, Liu, Hu: Elastic Bulk Synchronous Parallel Model for Distributed Deep Learning, ICDM 2019,
    arXiv:2001.01347; ZipLine is named in the journal version, Machine Learning 2021. The problem is theirs. How it is solved here
    is ours, as is the rule for ends that coincide: the papers' bodies were not at hand.

    Examples
    --------
    >>> zipline({0: range(10, 81, 10), 1: range(14, 113, 14), 2: range(17, 137, 17)})
    Schedule(spread=2, barrier=70, quotas={0: 7, 1: 5, 2: 4})
    >>> spread, barrier, quotas = zipline({0: [1.0, 2.0, 3.0], 1: [1.75, 3.5]}, "rate")
    >>> spread, barrier, quotas
    (0.25, 2.0, {0: 2, 1: 1})
    """
    cost = lookup("objective of ZipLine", objective, _COSTS)
    _check(predictions)
    if objective == "rate":
        _check_origin(predictions, origin)
    # The published search slides a window over all ends in time order, holding the latest end of each worker in a map ordered by
    # time. A window starts at its oldest end and only that worker's next end moves the start, so the map is not needed: knowing
    # how each end goes on is enough. An end whose worker's next comes before the barrier never is the oldest of a window.
    barrier = max(ends[0] for ends in predictions.values())
    exhausted = min(ends[-1] for ends in predictions.values())
    oldest: list[Seconds] = []
    following: list[Seconds] = []
    for ends in predictions.values():
        first, stop = bisect_right(ends, barrier) - 1, bisect_right(ends, exhausted)
        oldest += ends[first:stop]
        following += ends[first + 1 : stop + 1]
        following += [inf] * (len(oldest) - len(following))
    least, spread, chosen = inf, inf, barrier
    # Ascending runs, one a worker, are what list.sort merges best: several times faster than heapq.merge of tuples.
    for index in sorted(range(len(oldest)), key=oldest.__getitem__):
        if following[index] > barrier:
            value = cost(oldest[index], barrier, origin)
            if value < least:
                least, spread, chosen = value, barrier - oldest[index], barrier
            barrier = following[index]
    return Schedule(spread, chosen, {worker: bisect_right(ends, chosen) for worker, ends in predictions.items()})


def _spread(oldest: Seconds, barrier: Seconds, origin: Seconds) -> float:
    return barrier - oldest


def _rate(oldest: Seconds, barrier: Seconds, origin: Seconds) -> float:
    return (barrier - oldest) / (barrier - origin)


_COSTS: Mapping[str, Callable[[Seconds, Seconds, Seconds], float]] = {"spread": _spread, "rate": _rate}


def _check(predictions: Mapping[Rank, Sequence[Seconds]]) -> None:
    if not predictions:
        raise ConfigError("zipline: predictions of no workers, expected those of at least one; give worker: [ends ...]")
    for worker, ends in predictions.items():
        if not len(ends):
            raise ConfigError(
                f"zipline: worker {worker} has no predicted end, expected at least 1; predict one iteration or more"
            )
        # NaN compares as false with everything, and between finite ends that ascend nothing is infinite.
        if not (isfinite(ends[0]) and isfinite(ends[-1]) and all(map(le, ends, ends[1:]))):
            raise ConfigError(f"zipline: worker {worker}: {_fault(ends)}; predict last push + i * interval, interval >= 0")


def _fault(ends: Sequence[Seconds]) -> str:
    for number, end in enumerate(ends, 1):
        if not isfinite(end):
            return f"end {number} is {end}, expected a finite time"
    later = next(i for i in range(1, len(ends)) if ends[i] < ends[i - 1])
    return f"end {later + 1} is {ends[later]} after {ends[later - 1]}, expected ends in ascending order"


def _check_origin(predictions: Mapping[Rank, Sequence[Seconds]], origin: Seconds) -> None:
    worker, ends = min(predictions.items(), key=lambda item: item[1][0])
    if not (isfinite(origin) and ends[0] > origin):
        raise ConfigError(
            f"zipline: worker {worker} has an end at {ends[0]}, expected all ends after the origin, {origin}, under 'rate'; "
            "give the time at which the superstep began"
        )
