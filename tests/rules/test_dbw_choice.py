"""How many gradients to wait for."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from consensus.errors import ConfigError
from consensus.rules.dbw import bound_after_rise, choose, choose_blindly

POSITIVE = st.integers(1, 1000).map(float)


@given(st.lists(st.tuples(st.integers(-1000, 1000).map(float), POSITIVE), min_size=1, max_size=12))
def test_no_k_that_gains_has_a_greater_ratio(pairs: list[tuple[float, float]]) -> None:
    gains, times = zip(*pairs, strict=True)
    k = choose(gains, times)
    if max(gains) <= 0:
        assert k == len(pairs)
    else:
        ratios = [gain / time for gain, time in pairs if gain > 0]
        assert gains[k - 1] / times[k - 1] == max(ratios)
        assert all(gain / time < max(ratios) for gain, time in pairs[k:] if gain > 0)


def test_equal_ratios_go_to_the_larger_k() -> None:
    assert choose([1.0, 2.0, 3.0], [1.0, 2.0, 3.5]) == 2


def test_among_losses_only_a_gain_counts() -> None:
    # -1/100 is the largest ratio but one.
    assert choose([-5.0, -1.0, 0.001], [1.0, 100.0, 1000.0]) == 3


def test_unknown_times_are_tried_the_largest_first_unless_nothing_is_gained() -> None:
    assert choose([1.0, 1.5, 1.8], [0.0, 0.0, 0.1]) == 2
    assert choose([-1.0, 1.5, 1.8], [0.0, 2.0, 2.1]) == 3


def test_the_bound_raises_the_choice_and_never_lowers_it() -> None:
    gains, times = [1.0, 1.1, 1.2, 1.3], [1.0, 2.0, 3.0, 4.0]
    assert [choose(gains, times, at_least=k) for k in (1, 2, 4)] == [1, 2, 4]
    assert choose([-1.0] * 4, times, at_least=2) == 4


def test_after_a_rise_one_more() -> None:
    assert [bound_after_rise(k, 4, True) for k in (1, 3, 4, 6)] == [2, 4, 4, 4]
    assert bound_after_rise(3, 4, False) == 1


def test_blindly_the_throughput_alone_counts() -> None:
    assert choose_blindly([0.4, 0.5, 2.0]) == 2
    # Exponential round trips: k / (H_n - H_{n-k}) falls with k.
    assert choose_blindly(np.cumsum(1.0 / np.arange(8, 0, -1))) == 1
    assert choose_blindly([1.0, 1.0, 1.0]) == 3


@pytest.mark.parametrize(
    ("gains", "times", "at_least", "word"),
    [
        ([1.0], [1.0, 2.0], 1, r"gains of shape \(1,\)"),
        ([], [], 1, r"shape \(0,\)"),
        ([math.nan], [1.0], 1, "finite gains"),
        ([1.0], [math.nan], 1, "times of 0 or more"),
        ([1.0], [-1.0], 1, "times of 0 or more"),
        ([1.0], [1.0], 2, "at_least = 2, expected 1 .. 1"),
        ([1.0], [1.0], 0, "at_least = 0"),
    ],
)
def test_what_cannot_be_is_refused(gains: list[float], times: list[float], at_least: int, word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        choose(gains, times, at_least)
