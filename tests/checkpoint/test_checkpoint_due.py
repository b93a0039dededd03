"""When a checkpoint is due, and under which number."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consensus.checkpoint.due import Due
from consensus.errors import ConfigError


@pytest.mark.parametrize(
    ("every", "due"),
    [
        ("60 s", Due(60.0)),
        ("60s", Due(60.0)),
        (" 1.5 h ", Due(5400.0)),
        ("2 min", Due(120.0)),
        ("0.5", Due(0.5)),
        (30, Due(30.0)),
        ("1e2 seconds", Due(100.0)),
        ("100 rounds", Due(100.0, counts_rounds=True)),
        ("1 Round", Due(1.0, counts_rounds=True)),
    ],
)
def test_what_users_write(every: str | float, due: Due) -> None:
    assert Due.parse(every) == due
    assert Due.parse(str(due)) == due


@pytest.mark.parametrize(
    ("every", "words"),
    [
        ("", "expected a time or a number of rounds"),
        ("often", "'often'"),
        ("1.2.3 s", "'1.2.3 s'"),
        (".", "'.'"),
        ("60 secs", "unknown unit 'secs'"),
        ("10 ronds", "did you mean 'rounds'"),
        ("0 s", "more than 0"),
        ("-5 s", "'-5 s'"),
        (-5, "-5"),
        (float("nan"), "nan"),
        (float("inf"), "inf"),
        ("1e999 s", "more than 0"),
        ("2.5 rounds", "whole number"),
        (True, "True"),
        (None, "None"),
    ],
)
def test_what_they_should_not(every: str | float, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Due.parse(every)


def test_by_rounds_the_clock_does_not_matter() -> None:
    due = Due.parse("100 rounds")
    assert [due.number(rounds=rounds, seconds=1e6) for rounds in (0, 99, 100, 199, 200)] == [0, 0, 1, 1, 2]


def test_by_seconds_rounds_do_not_matter() -> None:
    due = Due.parse("60 s")
    assert [due.number(rounds=7, seconds=seconds) for seconds in (0.0, 59.9, 60.0, 200.0)] == [0, 0, 1, 3]
    assert due.after(0, rounds=0, seconds=59.0) is None
    assert due.after(0, rounds=0, seconds=200.0) == 3
    assert due.after(3, rounds=0, seconds=200.0) is None


@given(st.integers(1, 50), st.lists(st.integers(0, 30), min_size=1, max_size=40), st.integers(0, 39))
def test_a_rank_that_resumes_writes_the_numbers_of_one_that_did_not(every: int, steps: list[int], stop: int) -> None:
    due = Due(float(every), counts_rounds=True)

    def walk(resumed_after: int | None) -> list[int]:
        written, rounds, numbers = 0, 0, []
        for place, step in enumerate(steps):
            if place == resumed_after:
                written = due.number(rounds=rounds, seconds=0.0)
            rounds += step
            number = due.after(written, rounds=rounds, seconds=0.0)
            if number is not None:
                numbers.append(number)
                written = number
        return numbers

    assert walk(stop) == walk(None)


@given(st.floats(0.01, 1e4), st.floats(0, 1e6))
def test_a_last_number_is_above_all_that_were_due(every: float, seconds: float) -> None:
    due = Due(every)
    assert due.next(rounds=0, seconds=seconds) == due.number(rounds=0, seconds=seconds) + 1
