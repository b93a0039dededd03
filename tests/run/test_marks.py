"""Which marks are kept is a rule of numbers alone."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from consensus.run.marks import kept, spacing

numbers, limits = st.integers(0, 5000), st.integers(1, 100)


@given(numbers, limits)
def test_at_most_the_limit_and_more_than_half_of_it(latest: int, limit: int) -> None:
    marks = kept(latest, limit)
    assert len(marks) <= limit
    assert len(marks) == latest if latest <= limit else 2 * len(marks) >= limit
    assert all(0 < mark <= latest for mark in marks)


@given(numbers, numbers, limits)
def test_a_rank_that_is_behind_has_all_that_one_ahead_keeps(one: int, other: int, limit: int) -> None:
    behind, ahead = sorted((one, other))
    assert {mark for mark in kept(ahead, limit) if mark <= behind} <= set(kept(behind, limit))


@given(numbers, limits)
def test_the_distance_is_a_power_of_two(latest: int, limit: int) -> None:
    assert spacing(latest, limit).bit_count() == 1


def test_before_the_first_mark_there_is_none() -> None:
    assert list(kept(0, limit=4)) == []
