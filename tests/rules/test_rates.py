"""Learning rates by the number of gradients in an update."""

from __future__ import annotations

import math
import pickle
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consensus.errors import ConfigError
from consensus.rules.rates import RATES, Knee, as_factor, build_rate, described


def test_constant_and_proportional() -> None:
    assert [build_rate("constant")(k, 4) for k in (1, 4, 5)] == [1.0, 1.0, 1.0]
    assert [build_rate("proportional")(k, 4) for k in (1, 3, 4, 5)] == [0.25, 0.75, 1.0, 1.0]


@given(st.sampled_from([0.0, 0.5, 1.0, -0.3]), st.integers(2, 16))
def test_a_knee_reproduces_every_power_of_k(power: float, k: int) -> None:
    knee = Knee({16: 16.0**power, 1: 1.0})
    assert knee(k, 16) == pytest.approx(k**power)


def test_a_knee_goes_through_its_points_and_is_flat_outside() -> None:
    knee = Knee({2: 0.4, 4: 0.9, 8: 1.1})
    assert [knee(k, 8) for k in (1, 2, 4, 8, 9)] == pytest.approx([0.4, 0.4, 0.9, 1.1, 1.1])
    assert 0.9 < knee(6, 8) < 1.1
    assert [Knee({3: 0.7})(k, 8) for k in (1, 3, 8)] == [0.7] * 3


def test_keys_may_be_text() -> None:
    assert build_rate("knee", table={"8": 1, "2": 0.5}) == Knee({2: 0.5, 8: 1.0})


@pytest.mark.parametrize("rate", [build_rate("constant"), build_rate("proportional"), Knee({1: 0.5, 4: 1.0})])
def test_rates_survive_pickling(rate: Any) -> None:
    assert pickle.loads(pickle.dumps(rate)) == rate
    assert RATES[rate.name] is type(rate)


@pytest.mark.parametrize(
    ("name", "parameters", "words"),
    [
        ("konstant", {}, "did you mean 'constant'"),
        ("constant", {"k": 1}, "it takes none"),
        ("knee", {}, "needs table"),
        ("knee", {"table": {}}, "table is empty"),
        ("knee", {"table": 3}, r"table = 3, expected Mapping\[int, float\]"),
        ("knee", {"tabel": {1: 1.0}}, "did you mean 'table'"),
        ("knee", {"table": {0: 1.0}}, "k = 0"),
        ("knee", {"table": {"half": 1.0}}, "k = 'half'"),
        ("knee", {"table": {True: 1.0}}, "k = True"),
        ("knee", {"table": {1: 0.0}}, "rate 0.0 for k = 1"),
        ("knee", {"table": {1: math.inf}}, "rate inf"),
        ("knee", {"table": {1: math.nan}}, "rate nan"),
        ("knee", {"table": {1: "big"}}, "rate 'big'"),
    ],
)
def test_mistakes_are_named(name: str, parameters: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        build_rate(name, **parameters)


def test_what_a_script_may_say() -> None:
    table = {1: 0.5, 8: 1.0}
    assert as_factor("proportional", 8)(4, 8) == 0.5
    assert as_factor({"name": "knee", "table": table}, 8) == Knee(table)
    assert as_factor(Knee(table), 8) == Knee(table)


def root(k: int, n: int, power: float = 0.5) -> float:
    return float((k / n) ** power)


def test_rules_are_described_alike_wherever_they_lie() -> None:
    assert described(Knee({1: 0.5})) == "Knee(table={1: 0.5})"
    assert described(root) == "root"
    assert described(partial(root, power=1.0)) == described(partial(root, power=1.0)) != described(partial(root, power=2.0))
