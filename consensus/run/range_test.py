r"""A learning rate range test: the loss while the rate grows, and the rate at which it ceases to fall.

Smith's test [1]_ trains for a short while at rates that grow from very small to too large. How to read a rate off the curve is
open: common are the steepest point and the lowest one, divided by something from 2 to 10. We take the lowest point of the
smoothed loss, the *knee*, divided by 2, and this is why. A step of length eta with the mean of k gradients lowers the expected
loss of an L-smooth objective by at least

.. math:: \eta N - \frac{L \eta^2}{2} \left(N + \frac{V}{k}\right),

N the squared norm of the gradient and V the variance of one of the k. That is 0 at some rate, where the loss ceases to fall, and
greatest at half of it. V makes the knee rise with k, which is what the table is for; the steepest point hardly tells one k from
another, since there the gradient is still large beside its noise. Those who divide by 10 make up for smoothing that lags behind;
ours is centred. The papers' bodies were not at hand: this reading is ours.

References
----------
.. [1] L. N. Smith, *Cyclical Learning Rates for Training Neural Networks*, WACV 2017, arXiv 1506.01186.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

from consensus.errors import ConfigError

SAFETY = 2.0
"""The rate to train at is the knee divided by this; see above."""

FEWEST_STEPS = 50
_DIVERGED = 2.0
_DEVIATIONS = 5.0
_FALL = 0.01


@dataclass(frozen=True)
class Plan:
    """Which rates, and how often.

    Parameters
    ----------
    start, stop : float
        The first rate and the last, in units of the optimizer's learning rate.
    steps : int
        From the one to the other, in equal ratios. More of them get further before rates are large, where noise is larger than
        what is left to descend: the knee is then lower.
    repetitions : int
        Sweeps for each k, from different weights and with different batches.

    Raises
    ------
    ConfigError
        If 0 < start < stop does not hold, there are fewer than :data:`FEWEST_STEPS` steps, or there is no repetition.

    Examples
    --------
    >>> Plan(start=0.01, stop=100, steps=51).rates[[0, 25, 50]].round(6).tolist()
    [0.01, 1.0, 100.0]
    """

    start: float = 1e-3
    stop: float = 1e3
    steps: int = 240
    repetitions: int = 5

    def __post_init__(self) -> None:
        if not 0 < self.start < self.stop < math.inf:
            raise ConfigError(
                f"rates from {self.start:g} to {self.stop:g}, expected 0 < start < stop, in units of optimizer.lr, as in "
                "--start 0.001 --stop 1000"
            )
        if self.steps < FEWEST_STEPS:
            raise ConfigError(f"{self.steps} steps, expected {FEWEST_STEPS} or more: fewer cannot be smoothed; --steps 240")
        if self.repetitions < 1:
            raise ConfigError(f"{self.repetitions} repetitions, expected 1 or more; --repetitions 5")

    @property
    def rates(self) -> NDArray[np.float64]:
        """Shape (steps,), in units of the optimizer's learning rate."""
        return np.geomspace(self.start, self.stop, self.steps)

    @property
    def width(self) -> int:
        """How many losses are averaged into one: about a 25th of the steps, and odd."""
        return max(3, self.steps // 25 | 1)


def sweep(step: Callable[[float], float], plan: Plan) -> NDArray[np.float64]:
    """Train while the rate grows, until the last rate or until training has diverged.

    Parameters
    ----------
    step : callable
        Takes a step at the rate given and returns the loss *before* it.
    plan : Plan
        Which rates.

    Returns
    -------
    ndarray, shape (steps - 1,)
        The loss after the step at each rate but the last, for which none comes after; inf from where the mean of the last
        ``plan.width`` losses was above twice that of the first, or a loss was not finite.

    Examples
    --------
    >>> x = [1.0]
    >>> def step(rate):
    ...     loss = x[0] ** 2 / 2
    ...     x[0] -= rate * x[0]
    ...     return loss
    >>> losses = sweep(step, Plan(steps=60))
    >>> bool(losses[32] < losses[0]), float(losses[-1])
    (True, inf)
    """
    losses: list[float] = []
    for rate in plan.rates:
        loss = step(float(rate))
        if not math.isfinite(loss):
            break
        losses.append(loss)
        if np.mean(losses[-plan.width :]) > _DIVERGED * np.mean(losses[: plan.width]):
            break
    after = losses[1:]
    return np.array(after + [math.inf] * (plan.steps - 1 - len(after)))


@dataclass(frozen=True, eq=False)
class Curve:
    """The losses of all repetitions with one k.

    Parameters
    ----------
    gradients : int
        k, how many gradients a step averages.
    losses : ndarray, shape (repetitions, steps - 1)
        As :func:`sweep` returns them.
    plan : Plan
        By which they were made.
    """

    gradients: int
    losses: NDArray[np.float64]
    plan: Plan

    @property
    def rates(self) -> NDArray[np.float64]:
        """Those of :attr:`smoothed`, shape (steps - width,)."""
        half = self.plan.width // 2
        return self.plan.rates[half : self.plan.steps - 1 - half]

    @cached_property
    def level(self) -> float:
        """The mean loss at the first ``width`` rates; not finite if training diverged there."""
        return float(self.losses[:, : self.plan.width].mean())

    @cached_property
    def smoothed(self) -> NDArray[np.float64]:
        """Centred means of ``width`` losses, shape (repetitions, steps - width).

        No loss counts for more than :attr:`level`: how far training has diverged is not to move the point at which it began to.
        """
        clipped = np.minimum(self.losses, self.level)
        return np.asarray(sliding_window_view(clipped, self.plan.width, axis=1).mean(axis=-1))

    @property
    def knees(self) -> NDArray[np.float64]:
        """The rate of the lowest smoothed loss of each repetition, shape (repetitions,)."""
        return self.rates[self.smoothed.argmin(axis=1)]

    @property
    def knee(self) -> float:
        """Their median, in units of the optimizer's learning rate.

        Raises
        ------
        ConfigError
            If the loss does not fall by more than its own noise, or still falls at the highest rate.
        """
        mean = self.smoothed.mean(axis=0)
        if not (math.isfinite(self.level) and mean[0] - mean.min() > self._least_fall()):
            raise ConfigError(
                f"range test of k = {self.gradients}: the loss never falls: it is {self.level:.4g} at first and never below "
                f"{mean.min():.4g}, expected a fall that stands out from its noise. If it diverges at once start lower, as in "
                f"--start {self.plan.start / 1000:.3g}; otherwise take --steps {2 * self.plan.steps}, or another model"
            )
        knee = float(np.median(self.knees))
        if knee >= self.rates[-1]:
            raise ConfigError(
                f"range test of k = {self.gradients}: the loss still falls at the highest rate, {self.plan.stop:g} times "
                f"optimizer.lr, expected it to cease before; go further: --stop {1000 * self.plan.stop:g}"
            )
        return knee

    def _least_fall(self) -> float:
        # The lowest of many means is low by chance alone, by three standard deviations of one of them or so.
        noise = float(self.losses[:, : self.plan.width].std()) / math.sqrt(self.plan.width * len(self.losses))
        return max(_FALL * self.level, _DEVIATIONS * noise)


def knee_table(curves: Sequence[Curve]) -> dict[int, float]:
    """The table of the knee rule: for each k its knee, divided by :data:`SAFETY`.

    The mean of more gradients is never noisier, so that a rate which falls with k is chance: where one does rates are pooled, by
    isotonic regression of their logarithms.

    Parameters
    ----------
    curves
        One for each k.

    Returns
    -------
    dict of int to float
        Rates by k, ascending, in units of the optimizer's learning rate.

    Raises
    ------
    ConfigError
        If a curve has no knee.
    """
    ordered = sorted(curves, key=lambda curve: curve.gradients)
    fitted = isotonic_regression(np.log([curve.knee / SAFETY for curve in ordered])).x
    return {curve.gradients: math.exp(rate) for curve, rate in zip(ordered, fitted, strict=True)}
