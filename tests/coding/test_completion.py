"""From when on arrivals can be decoded: against the rule of the engines, asked after every arrival."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest

from consensus.coding import GradientCode, HierarchicalCode, LayerCode, construct
from consensus.coding.arrays import Floats
from consensus.coding.completion import TABLED, Completion
from consensus.coding.layer import Layer


def asked(layer: Layer, arrivals: Floats) -> float:
    """When the nodes that have come suffice for the first time."""
    if not layer.participants:
        return -math.inf
    came: list[int] = []
    for node in np.argsort(arrivals[: layer.size]).tolist():
        came.append(node)
        if layer.sufficient(came):
            return float(arrivals[node])
    raise AssertionError("all have come")


def codes() -> list[GradientCode]:
    """Rings of one kind and several, large and small, with and without luck; saturated, and with fewer parts than nodes."""
    return [
        HierarchicalCode([6, 8, 9], 23, 1, 2),
        HierarchicalCode([6, 8, 9], 23, 1, 5),
        HierarchicalCode([5, 9], 14, 0, 4),
        HierarchicalCode([3, 3, 12], 60, 1, 2),
        HierarchicalCode([2, 3, 4], 4, 1, 1),
        HierarchicalCode([4, 4, 4], 3, 0, 1),
        HierarchicalCode([4, 5, 7], 16, 1, 2, kind="gaussian"),
        construct("greedy", [3, 4, 5], 12, 1, 2),
        construct("flat", [3, 4], 7, 0, 1),
    ]


@pytest.mark.parametrize("number", range(len(codes())))
def test_layers_are_complete_when_the_code_says_so(number: int) -> None:
    code = codes()[number]
    generator = np.random.default_rng(number)
    for layers in ([code.master], list(code.edges)):
        if not layers:
            continue
        arrivals = generator.random((60, len(layers), max(layer.size for layer in layers)))
        found = Completion(layers).times(arrivals)
        assert found.shape == arrivals.shape[:2]
        expected = [[asked(layer, row) for layer, row in zip(layers, draw, strict=True)] for draw in arrivals]
        assert found.tolist() == expected


def test_fewer_than_needed_are_seen_to_do() -> None:
    layer = HierarchicalCode([6, 8, 9, 11], 34, 1, 1).master
    lucky = [pair for pair in combinations(range(4), 2) if layer.sufficient(pair)]
    assert layer.needed == 3
    assert len(lucky) == 2
    arrivals = np.full((1, 1, 4), 9.0)
    arrivals[0, 0, list(lucky[0])] = 1.0, 2.0
    assert Completion([layer]).times(arrivals) == 2.0


def test_who_never_comes_is_waited_for_for_ever() -> None:
    layer = LayerCode([1, 1, 1], stragglers=0)
    assert Completion([layer]).times(np.array([[[0.0, 1.0, np.inf]]])) == np.inf


def test_of_large_rings_as_many_as_promised_are_waited_for() -> None:
    layer = LayerCode([9] * 16, stragglers=8)
    (group,) = layer.groups
    assert (len(group.nodes), group.least, group.needed) == (16, 2, 8)
    assert TABLED < 16
    arrivals = np.random.default_rng(1).random((20, 1, 16))
    assert np.array_equal(Completion([layer]).times(arrivals)[:, 0], np.sort(arrivals[:, 0])[:, 7])
