"""The gain over a horizon: against descents with fast and slow directions, whose truth is known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from consensus.errors import ConfigError
from consensus.rules.dbw import GainEstimator, HorizonGain

CURVATURES = np.array([20.0] * 5 + [0.02] * 5)
STEP, VARIANCE = 0.05, 1.0


def descent(k: int, updates: int, seed: int, start: float = 10.0, curvatures: np.ndarray = CURVATURES) -> HorizonGain:
    """SGD with k gradients on a quadratic with five directions that forget at once and five that hardly move."""
    rng = np.random.default_rng(seed)
    w = np.full(10, 0.1)
    w[5:] = start
    gain = HorizonGain()
    for _ in range(updates):
        gradients = curvatures * w + rng.standard_normal((k, 10)) * math.sqrt(VARIANCE / 10)
        mean = gradients.mean(axis=0)
        loss = float(curvatures @ w**2) / 2 + 0.01 * rng.standard_normal() / math.sqrt(k)
        gain.observe(k, float(mean @ mean), float((gradients**2).sum()), loss, STEP)
        w -= STEP * mean
    return gain


def test_the_slope_is_that_of_the_slow_directions() -> None:
    found = [descent(4, 80, seed).slope for seed in range(8)]
    # The mean over 80 updates of sum (h w)² in the slow directions.
    h, decay = 0.02, (1 - 0.02 * STEP) ** 2
    true = 5 * (h * 10.0) ** 2 * (1 - decay**80) / (80 * (1 - decay))
    assert np.mean(found) == pytest.approx(true, rel=0.05)


def test_what_the_next_update_would_lose_is_no_reason_to_wait_for_more() -> None:
    gain = descent(8, 80, seed=1)
    assert gain.bound.gain(1, STEP) < 0.1 * gain.bound.gain(8, STEP)
    assert gain.gain(1, STEP) > 0.5 * gain.gain(8, STEP) > 0


def test_at_a_standstill_more_are_wanted() -> None:
    gain = descent(2, 200, seed=1, start=0.0)
    assert gain.gain(1, STEP) < 0 < gain.gain(2, STEP) < gain.gain(8, STEP)


@pytest.mark.parametrize("turned", [0.5, 1.0, 1.5, 1.8])
def test_what_noise_holds_up_is_told_at_the_edge_of_stability_too(turned: float) -> None:
    curvature = turned / STEP
    curvatures = np.array([curvature] * 5 + [0.02] * 5)
    found = []
    for seed in range(20):
        gain = descent(4, 200, seed, start=0.0, curvatures=curvatures)
        found.append(gain.gain(8, STEP) - gain.gain(1, STEP))
    # In balance a curved direction holds η V / (2 k (2 - η h)) of the loss, and these have half of V.
    true = STEP * VARIANCE / 2 / (2 * (2 - turned)) * (1 - 1 / 8)
    # The gradients of the flat ones are noise alone, so that η L = 2 η h / (4 - η h), at which J is taken of all of V.
    assert np.mean(found) == pytest.approx(true * (4 - turned) / 2, rel=0.2)


def turning(turned: float, V: float) -> HorizonGain:
    """After updates with four gradients of variance V, true ones of norm 0, and losses that rise as with that η L, η = 0.1."""
    gain = HorizonGain(window=4, horizon=10)
    for t in range(30):
        gain.observe(4, V / 4, 4 * V, 1.0 + 0.1 * turned * V / 8 * t, 0.1)
    assert gain.bound.smoothness == pytest.approx(turned / 0.1)
    return gain


def test_a_longer_step_is_not_held_to_be_unstable_before_it_was_tried() -> None:
    V = 8.0
    for turned, counts in ((0.8, 1.0), (1.5, 1.5)):
        gain = turning(turned, V)
        carried = [0.1 * V / 8 * share(turned), 0.2 * V / 8 * share(counts)]
        trend = 10 * gain.slope
        assert gain.gain(4, 0.2) == pytest.approx(0.2 * trend - (carried[1] - carried[0]))


def share(turned: float) -> float:
    """(1 - (1 - η L)^{2M}) / (2 - η L), M = 10."""
    return (1 - (1 - turned) ** 20) / (2 - turned)


def test_few_gradients_are_dear_where_noise_is_turned_over_and_over() -> None:
    V = 8.0
    lost = {}
    for turned in (1.0, 1.9, 2.0, 3.0):
        gain = turning(turned, V)
        lost[turned] = gain.gain(4, 0.1) - gain.gain(2, 0.1)
    assert lost[1.0] == pytest.approx(0.1 * V / 2 * (1 / 2 - 1 / 4))
    assert lost[1.9] == pytest.approx(lost[1.0] * share(1.9))
    # M times what one update of that L costs: it is bounded, whatever L may be.
    assert lost[2.0] == pytest.approx(lost[1.0] * 20)
    assert lost[3.0] == pytest.approx(lost[2.0])


def test_a_gentle_curvature_makes_it_the_bound_times_the_horizon() -> None:
    gain = HorizonGain(window=4, horizon=5)
    bound = GainEstimator(window=4)
    # The loss falls by what the bound promises for N = 4, V = 2, L = 0.1.
    step, L, N, V = 1e-3, 0.1, 4.0, 2.0
    fall = (step - L * step**2 / 2) * N - L * step**2 / 2 * V / 2
    for t in range(20):
        for estimator in (gain, bound):
            estimator.observe(2, N + V / 2, 2 * N + 2 * V, 1.0 - fall * t, step)
    for k in (1, 2, 8):
        assert gain.gain(k, step) == pytest.approx(5 * bound.gain(k, step), rel=1e-5)
        assert gain.gain(k, step) - gain.gain(2, step) == pytest.approx(5 * (bound.gain(k, step) - bound.gain(2, step)), rel=1e-3)


def test_before_there_is_a_trend_the_gradient_tells() -> None:
    gain = HorizonGain()
    seen = []
    for _ in range(3):
        gain.observe(2, 4.0, 10.0, 1.0, 0.1)
        seen.append(gain.ready)
    assert seen == [False, True, True]
    assert gain.slope == gain.bound.squared_norm == 3.0
    assert HorizonGain().gain(3, 0.1) == 0.0


def test_one_gradient_at_a_time_tells_nothing_of_noise() -> None:
    gain = HorizonGain()
    for _ in range(4):
        gain.observe(1, 4.0, 4.0, 1.0, 0.1)
    assert not gain.ready
    gain.observe(2, 4.0, 10.0, 1.0, 0.1)
    assert gain.ready


def test_a_noisy_standstill_counts_as_a_standard_error() -> None:
    rng = np.random.default_rng(1)
    gain = HorizonGain()
    for _ in range(80):
        gain.observe(4, 1.0, 8.0, 1.0 + 0.1 * rng.standard_normal(), 0.1)
    along = 0.1 * np.arange(80)
    error = 0.1 / math.sqrt(float(((along - along.mean()) ** 2).sum()))
    assert 0.8 * error < gain.slope < 3 * error


@pytest.mark.parametrize(("make", "word"), [({"horizon": 0}, "horizon = 0"), ({"window": 1}, "window = 1")])
def test_what_cannot_be_is_refused(make: dict[str, int], word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        HorizonGain(**make)


@pytest.mark.parametrize(("k", "step", "word"), [(0, 0.1, "k = 0"), (1, 0.0, "step = 0.0"), (1, math.inf, "step = inf")])
def test_a_gain_of_what_cannot_be_is_refused(k: int, step: float, word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        HorizonGain().gain(k, step)
