"""The numbers of a :class:`~consensus.coding.system.System` from times that were measured.

Both fits are ours. Both keep the mean that was measured, the quantity that the surrogate of
:func:`~consensus.coding.selection.select` looks at; what they estimate is how it divides into what is always there and what
scatters. How computing scatters is kept besides, as quantiles: the refined choice draws from those.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from consensus.coding.counts import check_count
from consensus.coding.system import Worker
from consensus.errors import ConfigError
from consensus.types import Seconds

MOST_LOST = 0.99
"""The largest p that is fitted: there a transfer time is exponential to within a hundredth of its mean."""

ROUNDING = 1e-12
"""Times that scatter by no more of their mean are equal: sums of equal ones differ by as much."""

QUANTILES = 200
"""As many measured times of a worker are kept, at most."""


class FittedLink(NamedTuple):
    """What :func:`fit_link` found, by the names of :class:`~consensus.coding.system.Node`."""

    tau: Seconds
    p: float


class FittedCompute(NamedTuple):
    """What :func:`fit_compute` found, by the names of :class:`~consensus.coding.system.Worker`."""

    c: Seconds
    gamma: float
    measured: tuple[Seconds, ...]


def fit_link(transfer_seconds: ArrayLike) -> FittedLink:
    r"""Fit transfer times as :math:`\tau N` with N geometric, by moments.

    The mean is :math:`\tau / (1 - p)` and the variance :math:`\tau^2 p / (1 - p)^2`, so p is the variance over the squared mean.
    Times that scatter by more than their mean, more than the model can, are fitted with p = 0.99.

    Parameters
    ----------
    transfer_seconds : array_like of float, shape (transfers,)
        What single transfers of a gradient took, one way, at least two.

    Returns
    -------
    FittedLink
        (tau, p).

    Raises
    ------
    ConfigError
        If there are fewer than two times, or one is negative or not finite.

    Examples
    --------
    >>> fit_link([0.02, 0.02, 0.02])
    FittedLink(tau=0.02, p=0.0)
    """
    times = _times("transfer_seconds", transfer_seconds)
    mean = float(times.mean())
    p = min(float(times.var(ddof=1)) / mean**2, MOST_LOST) if mean > 0 else 0.0
    return FittedLink(tau=mean * (1.0 - p), p=p)


def fit_compute(compute_seconds: Mapping[int, ArrayLike]) -> FittedCompute:
    r"""Fit computing times as :math:`D c + X`, X exponential with mean :math:`D / \gamma`: a shifted exponential.

    Divided by its D, every time has the same distribution, so times of different loads are pooled. Of n such times with mean x
    and least y, :math:`1 / \gamma = n (x - y) / (n - 1)` and :math:`c = y - 1 / (n \gamma)`, which are unbiased: the least of n
    is above c by :math:`1 / (n \gamma)` in the mean. Where that makes c negative it is 0, and :math:`1 / \gamma` the mean.

    Parameters
    ----------
    compute_seconds : mapping of int to array_like of float
        For each load D, in parts, what its computation took; at least two times in all. Leave out the first steps of a run.

    Returns
    -------
    FittedCompute
        (c, gamma, measured); gamma is infinite and nothing measured if the times do not scatter, as c then says it all.

    Raises
    ------
    ConfigError
        If there are fewer than two times, a time is negative or not finite, or a load is not a whole number above 0.

    Examples
    --------
    >>> fit_compute({1: [2.0, 4.0], 2: [4.0, 8.0, 6.0]})
    FittedCompute(c=1.75, gamma=0.8, measured=(2.0, 2.0, 3.0, 4.0, 4.0))
    """
    for load in compute_seconds:
        check_count("compute_seconds: load", load, 1)
    pooled = [np.asarray(times, np.float64).ravel() / load for load, times in compute_seconds.items()]
    times = _times("compute_seconds", np.concatenate([*pooled, np.empty(0)]))
    mean, least = float(times.mean()), float(times.min())
    scale = times.size * (mean - least) / (times.size - 1)
    c = least - scale / times.size
    if c < 0.0:
        c, scale = 0.0, mean
    if scale <= ROUNDING * mean:
        return FittedCompute(c=mean, gamma=math.inf, measured=())
    return FittedCompute(c=c, gamma=1.0 / scale, measured=tuple(thinned(times).tolist()))


def thinned(times: ArrayLike, most: int = QUANTILES) -> NDArray[np.float64]:
    """Times in ascending order, thinned to equally likely ones: each is the mean of its share of the sorted times.

    So the mean is kept, which that of plain quantiles is not if few times are very long.

    Parameters
    ----------
    times : array_like of float, shape (times,)
        Seconds.
    most : int
        How many to keep at most.

    Returns
    -------
    ndarray of float64, shape (min(times, most),)
        Seconds.

    Examples
    --------
    >>> thinned([3.0, 1.0, 9.0, 2.0], most=2)
    array([1.5, 6. ])
    """
    ascending = np.sort(np.asarray(times, np.float64), axis=None)
    count = ascending.size
    if count <= most:
        return ascending
    sums = np.concatenate([[0.0], np.cumsum(ascending)])
    shares: NDArray[np.float64] = np.diff(np.interp(np.linspace(0, count, most + 1), np.arange(count + 1), sums))
    return shares * (most / count)


def fit_worker(compute_seconds: Mapping[int, ArrayLike], transfer_seconds: ArrayLike) -> Worker:
    """Fit a worker: its computing by :func:`fit_compute`, its link by :func:`fit_link`.

    Parameters
    ----------
    compute_seconds : mapping of int to array_like of float
        Seconds of computing for each load, in parts.
    transfer_seconds : array_like of float, shape (transfers,)
        Seconds of single transfers of a gradient between the worker and its edge.

    Returns
    -------
    Worker
        The worker as it was measured.

    Raises
    ------
    ConfigError
        As the two fits do.

    Examples
    --------
    >>> fit_worker({4: [0.08, 0.08]}, [0.01, 0.01])
    Worker(tau=0.01, p=0.0, c=0.02, gamma=inf)
    """
    compute, link = fit_compute(compute_seconds), fit_link(transfer_seconds)
    return Worker(**compute._asdict(), **link._asdict())


def _times(name: str, values: ArrayLike) -> NDArray[np.float64]:
    times = np.asarray(values, np.float64).ravel()
    if times.size < 2:
        raise ConfigError(f"{name}: {times.size} times, expected at least 2 to see how they scatter; measure longer")
    bad = times[~(np.isfinite(times) & (times >= 0.0))]
    if bad.size:
        raise ConfigError(f"{name}: {bad[0]!r} among the times, expected finite seconds, 0 or more; leave out what is no time")
    return times
