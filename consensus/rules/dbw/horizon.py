"""By how much the updates to come are expected to lower the loss, the noise of few gradients paid once and not at each."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from consensus.errors import ConfigError
from consensus.rules.dbw.gain import GainEstimator

_ENOUGH = 5
"""Losses that a straight line is fitted to at least: through fewer, their noise is all that it shows."""

_TURNED_OVER = 2.0
"""η L at which an update turns a deviation into its opposite, no smaller than it was."""


class _Made(NamedTuple):
    k: int
    step: float


class _Look(NamedTuple):
    """A loss, what of it is noise that the update before left behind, and the sum of all steps until then."""

    k: int
    loss: float
    along: float
    before: _Made | None


class HorizonGain:
    r"""The gain of k gradients over the next M updates, from the trend of the losses and the variance of the gradients.

    The bound of :class:`~consensus.rules.dbw.gain.GainEstimator` looks one update ahead, and charges its noise in full. Where
    learning rates are as large as training bears, η L near 1, that misleads: the directions of high curvature hold a gradient
    that noise itself has put there and the next updates take away again, so nearly all of η N is the return of what was lost by
    noise, and the fall that is left over is the small difference of large numbers. From the present k any smaller one looks like
    a great loss, and k only ever rises. In truth noise of variance V/k carries the loss up by

    .. math:: J_k = \frac{η_k V}{2 k (2 - η_k L)} \left(1 - (1 - η_k L)^{2M}\right)

    within M updates, that is once, while what the loss falls by goes on with every update. So

    .. math:: G_k = M η_k s - (J_k - J_{k'})

    with k' the gradients of the last update and s the fall of the loss along a unit of learning rate. Small L makes :math:`J_k`
    M times the noise of one update, and G M times the bound. The sum is that of :math:`(1 - η L)^{2m}`, the noise left after m
    updates in a direction of curvature L. At η L = 1 it is forgotten at once. Beyond, towards the edge of stability, each update
    turns it over, and at 2 takes nothing of it away: :math:`J_k` is M times the noise of one update again, and few gradients are
    dear. A larger η L counts as 2, since training that goes on has none in the long run. A step longer than the last counts as no
    further beyond 1 than that one: networks adapt their curvature to the step (Cohen et al. 2021), so what has not been tried is
    not held to be unstable.

    s is the slope of a straight line fitted to the losses of the last 2 M updates against the sum of their learning rates, each
    loss less the :math:`J_k` of the update before it and weighted with its k. What cannot be told from noise counts as one
    standard error: a noisy standstill is no reason to wait for all. Before five losses have been seen, s is N.

    Parameters
    ----------
    window : int
        Updates that V, N and L are estimated from, at least 2.
    smoothness_window : int, optional
        See :class:`~consensus.rules.dbw.gain.GainEstimator`.
    horizon : int
        M, at least 1. Longer: fewer gradients for longer. The losses of M updates must show a trend.

    Attributes
    ----------
    bound : GainEstimator
        V, N and L.
    slope : float
        s, in units of the loss by learning rate.
    ready : bool
        Whether enough has been seen: two updates, and one with k > 1.

    Raises
    ------
    ConfigError
        If a window is too short, or the horizon.

    References
    ----------
    Ours; the one-update gain it replaces is derived from Xu, Neglia, Sebastianelli, arXiv 2004.14696. On curvature near 2 / η:
    Cohen, Kaur, Li, Kolter, Talwalkar, *Gradient Descent on Neural Networks Typically Occurs at the Edge of Stability*, ICLR
    2021, arXiv 2103.00065.

    Examples
    --------
    Two gradients an update, of variance 2, and a loss that falls by 0.01 at learning rate 0.1. It would have fallen by more, had
    the first update not brought its noise in:

    >>> gain = HorizonGain(window=4, horizon=10)
    >>> for t in range(8):
    ...     gain.observe(k=2, mean_square=1.5, squares_sum=5.0, loss=1.0 - 0.01 * t, step=0.1)
    >>> round(gain.slope, 6), round(gain.gain(2, step=0.1), 6)
    (0.128409, 0.128409)
    >>> gain.gain(1, step=0.1) < gain.gain(2, step=0.1) < gain.gain(4, step=0.1) < gain.gain(1, step=0.4)
    True
    """

    def __init__(self, window: int = 20, smoothness_window: int | None = None, horizon: int = 40) -> None:
        if horizon < 1:
            raise ConfigError(f"gain: horizon = {horizon}, expected a number of updates, 1 or more; about 40 is usual")
        self.bound = GainEstimator(window, smoothness_window)
        self._horizon = horizon
        self._looks: deque[_Look] = deque(maxlen=max(2 * horizon, _ENOUGH))
        self._last: _Made | None = None
        self._along = 0.0
        self.slope = 0.0
        self.ready = False

    @property
    def loss_rose(self) -> bool:
        """See :class:`~consensus.rules.dbw.gain.GainEstimator`."""
        return self.bound.loss_rose

    def observe(self, k: int, mean_square: float, squares_sum: float, loss: float, step: float) -> None:
        """Take in what one update was made of; see :meth:`consensus.rules.dbw.gain.GainEstimator.observe`."""
        self.bound.observe(k, mean_square, squares_sum, loss, step)
        self._looks.append(_Look(k, loss, self._along, self._last))
        self.ready = self._last is not None and (self.ready or self.bound.noise > 0.0 or k > 1)
        self._last = _Made(k, step)
        self._along += step
        self.slope = self._slope()

    def state_dict(self) -> dict[str, Any]:
        """What has been seen, as lists of numbers."""
        looks = [(*look[:-1], None if look.before is None else tuple(look.before)) for look in self._looks]
        last = None if self._last is None else tuple(self._last)
        return {"bound": self.bound.state_dict(), "looks": looks, "last": last, "along": self._along, "ready": self.ready}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Know what another one with the same windows and horizon knew.

        Parameters
        ----------
        state : mapping
            What :meth:`state_dict` gave.
        """
        self.bound.load_state_dict(state["bound"])
        self._looks.clear()
        self._looks.extend(_Look(k, loss, along, before and _Made(*before)) for k, loss, along, before in state["looks"])
        self._last = state["last"] and _Made(*state["last"])
        self._along, self.ready = state["along"], state["ready"]
        self.slope = self._slope()

    def gain(self, k: int, step: float) -> float:
        """G_k, by how much the next M updates with k gradients each are expected to lower the loss.

        Parameters
        ----------
        k : int
            Gradients averaged, at least 1.
        step : float
            Learning rate with which they would be applied.

        Returns
        -------
        float
            In the unit of the loss; negative where the noise of fewer gradients outweighs the fall. 0 before the first update.

        Raises
        ------
        ConfigError
            If k or the step is impossible.
        """
        if k < 1 or not 0 < step < math.inf:
            raise ConfigError(f"gain: k = {k}, step = {step}, expected one gradient or more and a learning rate above 0")
        return self._horizon * step * self.slope - (self._carried(_Made(k, step)) - self._carried(self._last))

    def _carried(self, made: _Made | None) -> float:
        """J_k."""
        if made is None:
            return 0.0
        turned = min(made.step * self.bound.smoothness, self._edge)
        twice = 2 * self._horizon
        # The limit of the quotient is finite, though both its terms are 0 there.
        lasting = (1.0 - (1.0 - turned) ** twice) / (_TURNED_OVER - turned) if turned < _TURNED_OVER else twice
        return made.step * self.bound.noise / (2 * made.k) * lasting

    @property
    def _edge(self) -> float:
        """The largest η L that is believed."""
        return min(max(self._last.step * self.bound.smoothness, 1.0), _TURNED_OVER) if self._last is not None else 1.0

    def _slope(self) -> float:
        return self._trend() if len(self._looks) >= _ENOUGH else self.bound.squared_norm

    def _trend(self) -> float:
        weights = np.array([look.k for look in self._looks], dtype=np.float64)
        along = np.array([look.along for look in self._looks])
        losses = np.array([look.loss - self._carried(look.before) for look in self._looks])
        along -= np.average(along, weights=weights)
        losses -= np.average(losses, weights=weights)
        lever = float(weights @ along**2)
        slope = float(weights @ (along * losses)) / lever
        variance = float(weights @ (losses - slope * along) ** 2) / (len(weights) - 2)
        return max(-slope, math.sqrt(variance / lever))
