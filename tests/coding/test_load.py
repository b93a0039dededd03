"""The load: equal to an exhaustive search, and to the figures of the paper's trade-off."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consensus.coding.load import least_load
from consensus.errors import ConfigError


def exists(workers: Sequence[int], parts: int, s_e: int, s_w: int, load: int) -> bool:
    """Whether parts can be spread over edges at all: try every count at every edge."""
    for counts in product(range(parts + 1), repeat=len(workers)):
        fits = all(count * (s_w + 1) <= load * m for count, m in zip(counts, workers, strict=True))
        if fits and sum(counts) == parts * (s_e + 1):
            return True
    return False


@pytest.mark.parametrize("workers", [(1,), (2, 3), (1, 4), (2, 2, 5), (3, 3, 3), (2, 3, 4)])
@pytest.mark.parametrize("parts", [1, 2, 5, 7])
def test_it_is_the_least_of_all_placements(workers: tuple[int, ...], parts: int) -> None:
    for s_e, s_w in product(range(len(workers)), range(min(workers))):
        loads = [load for load in range(1, parts + 1) if exists(workers, parts, s_e, s_w, load)]
        assert least_load(workers, parts, s_e, s_w) == loads[0]


@pytest.mark.parametrize(
    ("workers", "parts", "s_e", "s_w", "load"),
    [
        ((10,) * 4, 40, 1, 2, 6),
        ((10,) * 4, 40, 1, 3, 8),
        ((3, 3, 12), 60, 1, 2, 30),
        ((40,), 40, 0, 16, 17),
        ((2, 3), 100, 0, 0, 20),
        ((2, 3), 1, 1, 1, 1),
        ((4,), 10, 0, 3, 10),
    ],
)
def test_known_loads(workers: tuple[int, ...], parts: int, s_e: int, s_w: int, load: int) -> None:
    assert least_load(workers, parts, s_e, s_w) == load


@given(st.data())
def test_never_below_the_papers_bound_and_no_more_than_all_parts(data: st.DataObject) -> None:
    workers = data.draw(st.lists(st.integers(1, 20), min_size=1, max_size=8))
    parts = data.draw(st.integers(1, 300))
    s_e = data.draw(st.integers(0, len(workers) - 1))
    s_w = data.draw(st.integers(0, min(workers) - 1))
    load = least_load(workers, parts, s_e, s_w)
    assert math.ceil(parts * (s_e + 1) * (s_w + 1) / sum(workers)) <= load <= parts


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (([], 4, 0, 0), "empty"),
        (([2, 0], 4, 0, 0), r"workers_per_edge\[1\] = 0: expected a whole number, 1 or more"),
        (([2, 3], 0, 0, 0), "parts = 0"),
        (([2, 3], 2.5, 0, 0), "parts = 2.5"),
        (([2, 3], 4, 2, 0), "edge_stragglers = 2: expected 0 to 1"),
        (([2, 3], 4, -1, 0), "edge_stragglers = -1"),
        (([3, 2], 4, 0, 2), "worker_stragglers = 2: expected 0 to 1, as edge 1"),
        (([3, 2], 4, 0, True), "worker_stragglers = True"),
    ],
)
def test_bad_input(arguments: tuple[list[int], int, int, int], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        least_load(*arguments)
