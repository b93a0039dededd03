"""Placement: every item at exactly s + 1 nodes, counts as even as they can be, short rings."""

from __future__ import annotations

from collections import Counter
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consensus.coding.arcs import Ring, even_counts, proportional_counts, rings


@st.composite
def layers(draw: st.DrawFn) -> tuple[int, int, int]:
    nodes = draw(st.integers(1, 24))
    return draw(st.integers(0, 90)), nodes, draw(st.integers(0, nodes - 1))


@given(layers())
def test_even_counts_reach_the_least_maximum(layer: tuple[int, int, int]) -> None:
    items, nodes, stragglers = layer
    counts = even_counts(items, nodes, stragglers)
    assert (len(counts), sum(counts)) == (nodes, items * (stragglers + 1))
    assert min(counts) >= 0
    assert max(counts) <= ceil(items * (stragglers + 1) / nodes) <= max(items, 0)


@given(layers())
def test_every_item_is_at_exactly_one_node_more_than_may_be_silent(layer: tuple[int, int, int]) -> None:
    items, nodes, stragglers = layer
    counts = even_counts(items, nodes, stragglers)
    placed = rings(counts, stragglers)
    held = Counter[int]()
    for ring in placed:
        assert len(ring.nodes) > stragglers
        for node, arc in zip(ring.nodes, ring.arcs, strict=True):
            assert len(arc) == len(set(arc)) == counts[node]
            held.update(ring.first + offset for offset in arc)
    assert held == Counter(dict.fromkeys(range(items), stragglers + 1))
    assert sorted(node for ring in placed for node in ring.nodes) == [node for node, count in enumerate(counts) if count]


@given(layers())
def test_all_rings_but_one_are_repetition_where_items_abound(layer: tuple[int, int, int]) -> None:
    items, nodes, stragglers = layer
    placed = rings(even_counts(items + 90, nodes, stragglers), stragglers)
    assert sum(len(ring.nodes) > stragglers + 1 for ring in placed) <= 1
    if nodes % (stragglers + 1) == 0:
        assert all(ring.tiled for ring in placed)


@given(st.data())
def test_proportional_counts_are_the_rounded_shares(data: st.DataObject) -> None:
    weights = data.draw(st.lists(st.integers(1, 20), min_size=1, max_size=8))
    caps = [data.draw(st.integers(0, 40)) for _ in weights]
    total = data.draw(st.integers(0, sum(caps)))
    counts = proportional_counts(total, weights, caps)
    assert sum(counts) == total
    assert all(0 <= count <= cap for count, cap in zip(counts, caps, strict=True))
    roomy = proportional_counts(total, weights, [total] * len(weights))
    assert all(abs(count - total * weight / sum(weights)) < 1 for count, weight in zip(roomy, weights, strict=True))


@pytest.mark.parametrize(
    ("counts", "size", "tiled"),
    [((3, 1, 2), 3, True), ((1, 2, 1, 2), 3, True), ((2, 3, 1), 3, True), ((2, 2, 2), 3, False), ((1, 4, 3), 4, True)],
)
def test_a_ring_that_whole_laps_tile(counts: tuple[int, ...], size: int, tiled: bool) -> None:
    assert Ring(tuple(range(len(counts))), counts, 0, size).tiled is tiled
