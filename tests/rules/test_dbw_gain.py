"""The gain's estimators, against simulated SGD on a quadratic whose L, V and N are known."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from consensus.errors import ConfigError, NonFiniteLoss
from consensus.rules.dbw import GainEstimator, choose

# T_{8,k}: round trips Exp(1), all workers start together.
TIMES = np.cumsum(1.0 / np.arange(8, 0, -1))
N_WORKERS = len(TIMES)


@dataclass(frozen=True)
class Moment:
    """The estimator after an update, and the truth there."""

    estimator: GainEstimator
    k: int
    mean_square: float
    loss: float
    squared_norm: float
    true_gains: list[float]


@dataclass(frozen=True)
class Descent:
    """SGD on L|w|²/2 in 100 dimensions, gradients of variance V per worker, losses off by noise of their own."""

    step: float
    L: float = 1.0
    V: float = 4.0
    start: float = 3.0
    loss_noise: float = 0.02
    k: int | None = None
    window: int = 20
    smoothness_window: int | None = None

    def run(self, updates: int, seed: int) -> Iterator[Moment]:
        """Take so many updates, waiting for ``k`` gradients or, without one, for as many as the estimates say."""
        rng = np.random.default_rng(seed)
        d = 100
        w = rng.standard_normal(d) * self.start / math.sqrt(d)
        estimator = GainEstimator(self.window, self.smoothness_window)
        k = self.k or N_WORKERS
        for _ in range(updates):
            gradients = self.L * w + rng.standard_normal((k, d)) * math.sqrt(self.V / d)
            mean = gradients.mean(axis=0)
            loss = self.L / 2 * float(w @ w) + self.loss_noise / math.sqrt(k) * rng.standard_normal()
            estimator.observe(k, float(mean @ mean), float((gradients**2).sum()), loss, self.step)
            squared_norm = float(self.L**2 * (w @ w))
            bend = self.L * self.step**2 / 2
            gains = [(self.step - bend) * squared_norm - bend * self.V / j for j in range(1, N_WORKERS + 1)]
            yield Moment(estimator, k, float(mean @ mean), loss, squared_norm, gains)
            w -= self.step * mean
            if self.k is None:
                k = chosen(estimator, self.step) if estimator.ready else N_WORKERS


def chosen(estimator: GainEstimator, step: float) -> int:
    return choose([estimator.gain(k, step) for k in range(1, N_WORKERS + 1)], TIMES)


@pytest.mark.parametrize("k", [2, 4, 8])
def test_noise_is_one_workers_variance_whatever_k(k: int) -> None:
    *_, last = Descent(step=0.1, k=k).run(60, seed=1)
    # 20 (k - 1) times 100 independent squares: a relative standard error of sqrt(2 / 2000) = 3 % at most, here four of them.
    assert last.estimator.noise == pytest.approx(4.0, rel=0.12)


def test_squared_norm_is_that_of_the_true_gradient_and_not_of_the_mean() -> None:
    found, true = [], []
    for seed in range(10):
        norms = []
        for moment in Descent(step=0.02, k=2).run(40, seed):
            norms.append(moment.squared_norm)
        found.append(moment.estimator.squared_norm)
        true.append(np.mean(norms[-20:]))
    # One window's mean of |g|² (some 4) is off by about 0.15, ten windows' by 0.05; the mean's own square is larger by V/k = 2.
    assert np.mean(true) > 1.0
    assert np.mean(found) == pytest.approx(np.mean(true), abs=0.2)


@pytest.mark.parametrize("L", [0.5, 2.0])
def test_smoothness_is_that_of_the_loss(L: float) -> None:
    found = []
    for seed in range(10):
        *_, last = Descent(step=0.3 / L, L=L, k=4).run(60, seed)
        found.append(last.estimator.smoothness)
    # One window is off by about a fifth (the gradients' noise along the true gradient), ten by 7 %.
    assert np.mean(found) == pytest.approx(L, rel=0.2)


def choices(descent: Descent, updates: int, seeds: int) -> NDArray[np.int64]:
    """Rows of k by the estimates, by the truth, and with L estimated otherwise; wherever the estimates were ready."""
    rows = []
    for seed in range(seeds):
        clipped: deque[float] = deque(maxlen=descent.window)
        for before, after in pairwise(descent.run(updates, seed)):
            estimator, step = after.estimator, descent.step
            # L of one update alone, N and L cut off at 0: to be averaged over the window.
            noise = descent.V / before.k
            signal = max(before.mean_square - noise, 0.0)
            clipped.append(max(2 * (after.loss - before.loss + step * signal) / (step**2 * (signal + noise)), 0.0))
            bend = float(np.mean(clipped)) * step**2 / 2
            other = [(step - bend) * estimator.squared_norm - bend * estimator.noise / k for k in range(1, N_WORKERS + 1)]
            if estimator.ready:
                rows.append((chosen(estimator, step), choose(after.true_gains, TIMES), choose(other, TIMES)))
    return np.array(rows)


@pytest.mark.parametrize(("smoothness_window", "distance", "correlation"), [(None, 1.5, 0.6), (100, 1.1, 0.8)])
def test_the_choice_follows_the_truth_as_it_grows(smoothness_window: int | None, distance: float, correlation: float) -> None:
    # Far from the minimum few gradients are best, near it all.
    found, true, _ = choices(Descent(step=0.1, start=8.0, smoothness_window=smoothness_window), updates=120, seeds=6).T
    assert set(true) >= {1, 3, 5, 8}
    assert np.mean(found - true) == pytest.approx(0.0, abs=0.8)
    # Near the minimum the ratios of neighbouring k differ by little, and N and L by much from window to window.
    assert np.mean(np.abs(found - true)) < distance
    assert np.corrcoef(found, true)[0, 1] > correlation


def test_the_choice_is_not_driven_to_all_workers() -> None:
    # A small learning rate and noisy losses, where few gradients are best for long and one update tells next to nothing about L.
    found, true, cut_off_one_by_one = choices(Descent(step=0.05, start=5.0, loss_noise=0.1), updates=80, seeds=6).T
    assert np.mean(true) < 1.5
    # The estimates exceed the truth by 0.1 to 0.3 from seed to seed; the clipped ones by 2 or more.
    assert np.mean(found - true) < 0.6
    assert np.mean(cut_off_one_by_one - true) > 1.5


def test_looking_back_further_steadies_smoothness() -> None:
    def spread(smoothness_window: int) -> float:
        descent = Descent(step=0.1, loss_noise=0.1, k=4, smoothness_window=smoothness_window)
        return float(np.std([list(descent.run(150, seed))[-1].estimator.smoothness for seed in range(12)]))

    assert spread(100) < 0.7 * spread(20)


def test_gain_is_the_bound() -> None:
    estimator = GainEstimator(window=2)
    # |g|² = 5 of two gradients with sum of squares 12: V = 2, N = 4; the losses fall by 0.45 and 0.35.
    for loss in (3.0, 2.55, 2.2):
        estimator.observe(2, 5.0, 12.0, loss, 0.2)
    assert (estimator.noise, estimator.squared_norm) == (2.0, 4.0)
    # 2 (-0.8 + 2 * 0.2 * 4) / (2 * 0.04 * 5)
    assert estimator.smoothness == pytest.approx(4.0)
    assert estimator.gain(4, 0.2) == pytest.approx((0.2 - 0.08) * 4.0 - 0.08 * 2.0 / 4)
    assert estimator.gain(1, 0.5) == pytest.approx((0.5 - 0.5) * 4.0 - 0.5 * 2.0)


def test_one_gradient_alone_leaves_the_noise_as_it_was() -> None:
    estimator = GainEstimator(window=2)
    estimator.observe(1, 4.0, 4.0, 1.0, 0.1)
    estimator.observe(1, 4.0, 4.0, 1.0, 0.1)
    assert (estimator.noise, estimator.ready) == (0.0, False)
    estimator.observe(2, 4.0, 9.0, 1.0, 0.1)
    estimator.observe(1, 4.0, 4.0, 1.0, 0.1)
    estimator.observe(1, 4.0, 4.0, 1.0, 0.1)
    assert (estimator.noise, estimator.ready) == (1.0, True)


def test_the_window_forgets() -> None:
    estimator = GainEstimator(window=2)
    for squares_sum in (100.0, 9.0, 11.0):
        estimator.observe(2, 4.0, squares_sum, 1.0, 0.1)
    assert estimator.noise == 2.0


def test_it_is_ready_after_half_a_window() -> None:
    estimator = GainEstimator(window=6)
    seen = []
    for _ in range(5):
        estimator.observe(2, 4.0, 9.0, 1.0, 0.1)
        seen.append(estimator.ready)
    assert seen == [False, False, False, True, True]


@pytest.mark.parametrize(
    ("before", "after", "rose"),
    [(1.0, 1.02, True), (1.0, 1.009, False), (1.0, 0.5, False), (-1.0, -0.98, True), (0.0, 0.1, True)],
)
def test_a_rise_is_more_than_a_hundredth(before: float, after: float, rose: bool) -> None:
    estimator = GainEstimator()
    for loss in (before, after):
        estimator.observe(2, 4.0, 9.0, loss, 0.1)
    assert estimator.loss_rose is rose


def test_rounding_of_equal_gradients_is_no_error() -> None:
    estimator = GainEstimator()
    estimator.observe(2, 4.0, 8.0 - 1e-6, 1.0, 0.1)
    assert estimator.noise == 0.0


@pytest.mark.parametrize("name", ["mean_square", "squares_sum", "loss"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_divergence_is_said(name: str, value: float) -> None:
    numbers = {"k": 2, "mean_square": 4.0, "squares_sum": 9.0, "loss": 1.0, "step": 0.1, name: value}
    with pytest.raises(NonFiniteLoss, match=f"{name} = {value}"):
        GainEstimator().observe(**numbers)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changed", "word"),
    [({"k": 0}, "k = 0"), ({"step": 0.0}, "step = 0.0"), ({"squares_sum": 4.0}, "sum = 4.0"), ({"mean_square": -1.0}, "= -1.0")],
)
def test_what_cannot_be_is_refused(changed: dict[str, float], word: str) -> None:
    numbers = {"k": 2, "mean_square": 4.0, "squares_sum": 9.0, "loss": 1.0, "step": 0.1, **changed}
    with pytest.raises(ConfigError, match=word):
        GainEstimator().observe(**numbers)  # type: ignore[arg-type]


def test_gain_refuses_what_cannot_be() -> None:
    with pytest.raises(ConfigError, match="k = 0"):
        GainEstimator().gain(0, 0.1)


@pytest.mark.parametrize(("window", "further"), [(1, None), (20, 10)])
def test_a_window_has_two_updates_and_that_for_smoothness_no_fewer(window: int, further: int | None) -> None:
    with pytest.raises(ConfigError, match=f"window = {window}"):
        GainEstimator(window, further)
