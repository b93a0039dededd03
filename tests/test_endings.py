"""A rank of a real MPI job ends with an error where ranks may die: the job ends, wherever the others are."""

from __future__ import annotations

import pytest

from tests.support.forkserver import ForkServer

RANKS, FAILING = 4, 2


@pytest.mark.parametrize(
    ("place", "says"),
    [
        ("training", "ArithmeticError: a bad batch\non rank 2 of 4"),
        ("a partial rule", "ArithmeticError: a bad batch\non rank 2 of 4"),
        ("before MPI", "ArithmeticError: a bad start"),
        ("instead of training", ""),
    ],
)
def test_the_others_end_as_well(forked: ForkServer, place: str, says: str) -> None:
    done = forked.run(RANKS, ["-m", "tests.support.ending", place, str(FAILING)], patience=60)
    assert done.code not in (0, None), done.errors
    assert says in done.errors
    others = [f"rank {rank} ends, for another rank has ended with an error\n" for rank in range(RANKS) if rank != FAILING]
    # Once at most, and not all: Open MPI's launcher counts exits with an error twice, and then kills those that are left.
    assert sorted({done.errors.count(line) for line in others}) in ([1], [0, 1])
    assert "MPI_ABORT" not in done.errors
    assert not done.out


def test_after_training_the_error_is_in_the_exit_code(forked: ForkServer) -> None:
    """The others are done, or about to be: whoever has not heard all goodbyes yet ends as well."""
    done = forked.run(RANKS, ["-m", "tests.support.ending", "after training", str(FAILING)], patience=60)
    assert "ArithmeticError: a bad end" in done.errors
    assert done.code == 1
    for rank in (0, 1, 3):
        ends = (f"rank {rank} came to its end" in done.out, f"rank {rank} ends, for another" in done.errors)
        assert sorted(ends) == [False, True]
