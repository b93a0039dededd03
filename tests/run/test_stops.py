"""Conditions, and what ranks know of each other's samples."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consensus.run.stops import ANNOUNCEMENTS, Conditions, Ended, Tally, agree


def test_no_condition_never_holds() -> None:
    assert Conditions().met(samples=10**12, seconds=1e9, rounds=10**9) is None


@pytest.mark.parametrize(
    ("conditions", "ended"),
    [
        (Conditions(samples=100), Ended.SAMPLES),
        (Conditions(seconds=2.0), Ended.SECONDS),
        (Conditions(rounds=7), Ended.ROUNDS),
        (Conditions(samples=101, seconds=2.5, rounds=8), None),
        (Conditions(samples=101, seconds=2.0, rounds=7), Ended.SECONDS),
    ],
)
def test_a_condition_holds_from_its_value_on(conditions: Conditions, ended: Ended | None) -> None:
    assert conditions.met(samples=100, seconds=2.0, rounds=7) is ended


def test_words() -> None:
    assert [ended.word for ended in Ended] == ["samples", "seconds", "rounds", "target", "interrupted"]


def test_a_rank_that_announces_nothing_takes_the_others_to_be_as_fast() -> None:
    tally = Tally(size=4, wanted=None, batch=8)
    tally.add(8)
    tally.add(5)
    assert (tally.own, tally.total, tally.announcement()) == (13, 52, None)


def test_an_announcement_replaces_the_one_before() -> None:
    tally = Tally(size=3, wanted=1000, batch=8)
    tally.hear(1, 16)
    tally.hear(1, 24)
    tally.hear(2, 8)
    tally.add(8)
    assert tally.total == 8 + 24 + 8


@given(st.integers(1, 16), st.integers(1, 64), st.integers(1, 10**6), st.data())
def test_announcements_are_few_and_what_others_know_is_behind_by_less_than_a_quantum(
    size: int, batch: int, wanted: int, data: st.DataObject
) -> None:
    tally = Tally(size, wanted, batch)
    quantum = max(batch, wanted // (size * ANNOUNCEMENTS))
    announced = [0]
    for step in data.draw(st.lists(st.integers(1, batch), max_size=60)):
        tally.add(step)
        count = tally.announcement()
        announced += [count] if count is not None else []
        assert 0 <= tally.own - announced[-1] < quantum
    assert all(after - before >= quantum for before, after in itertools.pairwise(announced))


def test_agree_is_why_the_last_rank_stopped() -> None:
    assert agree([(Ended.ROUNDS, 1.0), (None, 9.0), (Ended.SAMPLES, 2.0)]) is Ended.SAMPLES
    assert agree([(Ended.SECONDS, 3.0)]) is Ended.SECONDS


def test_an_interruption_outweighs_what_came_later() -> None:
    assert agree([(Ended.INTERRUPTED, 1.0), (Ended.SAMPLES, 2.0)]) is Ended.INTERRUPTED


def test_nobody_may_be_left_who_knows() -> None:
    """Under all-reduce, where a vote to stop says no reason, and whoever cast it has died since."""
    assert agree([(None, 1.0), (None, 0.0)]) is None
