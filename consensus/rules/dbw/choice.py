"""How many gradients to wait for, from what each number gains and how long it takes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from consensus.errors import ConfigError

Numbers = Sequence[float] | NDArray[np.float64]
"""One number for each k = 1 .. n."""


def choose(gains: Numbers, times: Numbers, at_least: int = 1) -> int:
    r"""The k of greatest gain per time, :math:`\arg\max_k G_k / T_k` among the k with :math:`G_k > 0`.

    Where no k gains anything, all n are waited for: only less noise can help. Of equal ratios the larger k wins; an expected time
    of 0 is a time unknown, and the ratio infinite.

    Parameters
    ----------
    gains : sequence of float, length n
        G_1 .. G_n, by how much the loss is expected to fall.
    times : sequence of float, length n
        T_1 .. T_n in seconds, 0 or more.
    at_least : int
        Lower bound on the choice, 1 .. n; see :func:`bound_after_rise`.

    Returns
    -------
    int
        k, from ``at_least`` to n.

    Raises
    ------
    ConfigError
        If the lengths differ or are 0, a gain is not finite, a time is negative or not a number, or the bound is outside 1 .. n.

    References
    ----------
    Xu, Neglia, Sebastianelli, *Dynamic Backup Workers for Parallel Machine Learning*, arXiv 2004.14696; the paper's body was not
    at hand, ties and unknown times are ours.

    Examples
    --------
    >>> choose(gains=[1.0, 1.8, 2.0], times=[1.0, 1.5, 3.0])
    2
    >>> choose(gains=[-1.0, -0.5, 0.0], times=[1.0, 1.5, 3.0])
    3
    >>> choose(gains=[1.0, 1.8, 2.0], times=[1.0, 1.5, 3.0], at_least=3)
    3
    """
    gain, time = np.asarray(gains, dtype=np.float64), np.asarray(times, dtype=np.float64)
    if gain.ndim != 1 or gain.shape != time.shape or not gain.size:
        raise ConfigError(f"dbw: gains of shape {gain.shape} and times {time.shape}, expected one of each per k, 1 .. n")
    if not np.isfinite(gain).all() or not (time >= 0).all():
        raise ConfigError(f"dbw: gains {gain.tolist()} and times {time.tolist()}, expected finite gains and times of 0 or more")
    n = gain.size
    if not 1 <= at_least <= n:
        raise ConfigError(f"dbw: at_least = {at_least}, expected 1 .. {n}, the number of workers")
    if not (gain > 0).any():
        return n
    rate = np.full(n, -np.inf)
    np.divide(gain, time, out=rate, where=(gain > 0) & (time > 0))
    rate[(gain > 0) & (time == 0)] = np.inf
    best = n - int(np.argmax(rate[::-1]))
    return max(best, at_least)


def choose_blindly(times: Numbers) -> int:
    """The k of most gradients per time, argmax k / T_k: what one would choose who looks at the times alone.

    Parameters
    ----------
    times : sequence of float, length n
        T_1 .. T_n in seconds, 0 or more.

    Returns
    -------
    int
        k, 1 .. n.

    Raises
    ------
    ConfigError
        As for :func:`choose`.

    Examples
    --------
    >>> choose_blindly([1.0, 1.5, 3.0])
    2
    """
    return choose(np.arange(1.0, len(times) + 1.0), times)


def bound_after_rise(previous: int, workers: int, loss_rose: bool) -> int:
    """The least k to wait for next: one more than before if the loss rose, as far as there are workers; 1 if it did not.

    Parameters
    ----------
    previous : int
        k of the update before, at least 1.
    workers : int
        n, at least 1.
    loss_rose : bool
        Whether the loss rose over that update; see :attr:`~consensus.rules.dbw.gain.GainEstimator.loss_rose`.

    Returns
    -------
    int
        A bound for :func:`choose`.

    Examples
    --------
    >>> bound_after_rise(previous=3, workers=8, loss_rose=True), bound_after_rise(8, 8, True), bound_after_rise(3, 8, False)
    (4, 8, 1)
    """
    return min(previous + 1, workers) if loss_rose else 1


def bound_on_fall(previous: int) -> int:
    """The least k to wait for next, however many were waited for before: half as many.

    What k gradients do is judged by what ``previous`` of them did. How far that is to be trusted shows on the way down: where the
    learning rate is as large as training bears, a single gradient early on may undo what all the updates before have gained
    (ours, not the paper's).

    Parameters
    ----------
    previous : int
        k of the update before, at least 1.

    Returns
    -------
    int
        A bound for :func:`choose`.

    Examples
    --------
    >>> [bound_on_fall(k) for k in (8, 4, 3, 2, 1)]
    [4, 2, 2, 1, 1]
    """
    return -(-previous // 2)
