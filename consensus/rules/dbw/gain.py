"""By how much an update is expected to lower the loss, from what the gradients and losses of the last ones told."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from itertools import pairwise, starmap
from typing import Any, NamedTuple

from consensus.errors import ConfigError, NonFiniteLoss

_RISE = 0.01
"""A loss this much above the one before, relative to its size, counts as risen, if it is also more than noise."""
_DEVIATIONS = 3.0
"""A loss that is above the one before by no more standard deviations of such differences than this may be there by noise."""
_INCONSISTENT = 0.01
"""Rounding of sums over many parameters stays below this; a mean's square that is more above its bound is another mistake."""


class _Update(NamedTuple):
    k: int
    mean_square: float
    loss: float
    step: float


class GainEstimator:
    r"""Estimates of V, N and L over the last updates, and the gain :math:`G_k` they promise.

    For an L-smooth loss, gradients that are unbiased and have variance V (one worker's, summed over the parameters), N the
    squared norm of the true gradient and η the learning rate, averaging k gradients lowers the mean loss by at least

    .. math:: G_k = (η - L η^2 / 2) N - \frac{L η^2}{2} \frac{V}{k}.

    Over a window of updates, V is the mean of the sample variances :math:`(\sum \|g_i\|^2 - k \|g\|^2) / (k - 1)` of those with
    k > 1, and N the mean of :math:`\|g\|^2 - V/k`. L is a ratio of two sums,

    .. math:: L = \frac{\sum_t 2 (F_t - F_{t-1} + η N_{t-1})}{\sum_t η^2 (N_{t-1} + V / k_{t-1})}.

    Nothing is cut off at 0 before it has been summed. Once noise dominates, one update's :math:`\|g\|^2 - V/k` is often below 0,
    and so is one update's L: cut off one by one, both would be too large on average. Too large an L makes every gain negative and
    drives the choice to all workers.

    Parameters
    ----------
    window : int
        Updates looked back on, at least 2.
    smoothness_window : int, optional
        Updates looked back on for L, not fewer than ``window``, which is the default. L changes less than V and N do, and is the
        noisiest of the three, the more so the smaller the learning rate and the noisier the losses: then look back further.

    Attributes
    ----------
    noise : float
        V, the variance of one worker's gradient; 0 while unknown.
    squared_norm : float
        N, the squared norm of the true gradient; 0 while unknown.
    smoothness : float
        L, how fast the gradient turns along the path taken; 0 while unknown.
    loss_rose : bool
        Whether the last loss is more than 1 % above the one before, and by more than noise would explain: the losses of small
        batches rise by more at every other update (that noise counts is ours).
    ready : bool
        Whether enough has been seen: half a window of updates, and one with k > 1.

    Raises
    ------
    ConfigError
        If the window is below 2, or that for L shorter.

    References
    ----------
    Xu, Neglia, Sebastianelli, *Dynamic Backup Workers for Parallel Machine Learning*, arXiv 2004.14696. The paper's body was not
    at hand: the bound and its estimators are derived here, and the smoothing of N over the window is ours.

    Examples
    --------
    The loss w²/2 from w = 1, two gradients at a time, of variance 0.02:

    >>> estimator = GainEstimator(window=4)
    >>> w = 1.0
    >>> for _ in range(5):
    ...     estimator.observe(k=2, mean_square=w**2 + 0.01, squares_sum=2 * w**2 + 0.04, loss=w**2 / 2, step=0.1)
    ...     w -= 0.1 * w
    >>> round(estimator.noise, 9), round(estimator.smoothness, 1), estimator.ready
    (0.02, 1.0, True)
    >>> estimator.gain(2, step=0.1) > estimator.gain(1, step=0.1) > 0
    True
    """

    def __init__(self, window: int = 20, smoothness_window: int | None = None) -> None:
        furthest = window if smoothness_window is None else smoothness_window
        if not 2 <= window <= furthest:
            raise ConfigError(
                f"gain: window = {window}, smoothness_window = {furthest}, expected numbers of updates, 2 or more, the second "
                "not less than the first; about 20 is usual"
            )
        # One more than the window: its first loss difference needs the update before.
        self._updates: deque[_Update] = deque(maxlen=furthest + 1)
        self._variances: deque[float] = deque(maxlen=window)
        self._differences: deque[float] = deque(maxlen=window)
        self._window = window
        self.noise = self.squared_norm = self.smoothness = 0.0
        self.loss_rose = self.ready = False

    def observe(self, k: int, mean_square: float, squares_sum: float, loss: float, step: float) -> None:
        r"""Take in what one update was made of.

        Parameters
        ----------
        k : int
            Gradients averaged, at least 1.
        mean_square : float
            :math:`\|g\|^2` of their average.
        squares_sum : float
            :math:`\sum_i \|g_i\|^2` over the k gradients.
        loss : float
            Mean of the k workers' losses, at the weights the gradients were computed at.
        step : float
            Learning rate η of the update, above 0.

        Raises
        ------
        NonFiniteLoss
            If the loss or a squared norm is NaN or infinite.
        ConfigError
            If k, the step or a squared norm is impossible.
        """
        if not (math.isfinite(loss) and math.isfinite(mean_square) and math.isfinite(squares_sum)):
            raise NonFiniteLoss(
                f"gain: loss = {loss}, mean_square = {mean_square}, squares_sum = {squares_sum}, expected finite numbers; "
                "training has diverged: lower the learning rate"
            )
        if k < 1 or not 0 < step < math.inf:
            raise ConfigError(f"gain: k = {k}, step = {step}, expected one gradient or more and a learning rate above 0")
        spread = squares_sum - k * mean_square
        if mean_square < 0 or spread < -_INCONSISTENT * squares_sum:
            raise ConfigError(
                f"gain: mean_square = {mean_square}, squares_sum = {squares_sum}, expected 0 <= mean_square <= squares_sum / k "
                f"with k = {k}; pass squared norms, that of the average first"
            )
        if k > 1:
            self._variances.append(max(spread, 0.0) / (k - 1))
        if self._updates:
            before = self._updates[-1]
            self.loss_rose = self._rises(before, k, loss)
        self._updates.append(_Update(k, mean_square, loss, step))
        self._estimate()

    def _rises(self, before: _Update, k: int, loss: float) -> bool:
        """Judge a difference of losses by those before it, and note it, each in units of what one gradient's would be."""
        difference = (loss - before.loss) / math.sqrt(1 / k + 1 / before.k)
        known = self._differences
        # One difference alone tells of the trend as much as of noise.
        noise = math.sqrt(math.fsum(each**2 for each in known) / len(known)) if len(known) > 1 else 0.0
        known.append(difference)
        return loss - before.loss > _RISE * abs(before.loss) and difference > _DEVIATIONS * noise

    def _estimate(self) -> None:
        updates = list(self._updates)
        if self._variances:
            self.noise = math.fsum(self._variances) / len(self._variances)
        last = updates[-self._window :]
        self.squared_norm = max(math.fsum(self._signal(update) for update in last) / len(last), 0.0)
        pairs = list(pairwise(updates))
        bend = math.fsum(2 * (after.loss - at.loss + at.step * self._signal(at)) for at, after in pairs)
        # N + V/k is what ‖g‖² is on average.
        length = math.fsum(at.step**2 * at.mean_square for at, _ in pairs)
        self.smoothness = max(bend / length, 0.0) if length > 0 else 0.0
        # With a constant learning rate the losses enter L by the two ends alone: over fewer updates their noise is most of it.
        self.ready = bool(self._variances) and 2 * len(pairs) >= self._window

    def gain(self, k: int, step: float) -> float:
        """G_k, by how much an update with k gradients is expected to lower the loss.

        Parameters
        ----------
        k : int
            Gradients averaged, at least 1.
        step : float
            Learning rate with which they would be applied.

        Returns
        -------
        float
            In the unit of the loss; negative where noise is expected to raise it.

        Raises
        ------
        ConfigError
            If k or the step is impossible.
        """
        if k < 1 or not 0 < step < math.inf:
            raise ConfigError(f"gain: k = {k}, step = {step}, expected one gradient or more and a learning rate above 0")
        bend = self.smoothness * step**2 / 2
        return (step - bend) * self.squared_norm - bend * self.noise / k

    def state_dict(self) -> dict[str, Any]:
        """What has been seen, as lists of numbers."""
        return {
            "updates": [tuple(update) for update in self._updates],
            "variances": list(self._variances),
            "differences": list(self._differences),
            "loss_rose": self.loss_rose,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Know what another one with the same windows knew.

        Parameters
        ----------
        state : mapping
            What :meth:`state_dict` gave.
        """
        for known, name in ((self._variances, "variances"), (self._differences, "differences")):
            known.clear()
            known.extend(state[name])
        self._updates.clear()
        self._updates.extend(starmap(_Update, state["updates"]))
        self.loss_rose = state["loss_rose"]
        if self._updates:
            self._estimate()

    def _signal(self, update: _Update) -> float:
        return update.mean_square - self.noise / update.k
