"""Which files ranks keep for a rank that lags."""

from __future__ import annotations

import pytest

from consensus.checkpoint.pending import obtainable, superfluous


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (1, False),  # rank 1 has passed it without a file
        (2, True),  # rank 2 has still to come to it
        (3, True),
        (4, True),
    ],
)
def test_a_set_is_obtainable_until_somebody_passes_it(number: int, expected: bool) -> None:
    assert obtainable(number, {1: [0, 2], 2: [0, 1], 3: [0]}, {}, size=3) is expected


def test_a_rank_that_ended_passes_all_numbers_before_its_last() -> None:
    holders = {1: [0], 5: [0]}
    assert [obtainable(number, holders, {1: 3}, size=2) for number in (1, 2, 5)] == [False, False, True]


def test_the_newest_and_the_promised_are_never_given_up() -> None:
    for newest in range(3, 200):
        kept = set(range(1, newest + 1)) - set(superfluous(range(1, newest + 1), 4, promised=3))
        assert {3, newest} <= kept
        assert len(kept) == min(newest, 4)


@pytest.mark.parametrize("slowness", [(1, 2, 3), (1, 2, 9), (1, 1, 30), tuple(range(1, 12))])
def test_with_few_files_the_slowest_still_completes_sets(slowness: tuple[int, ...]) -> None:
    # The store's policy on sets of numbers, for longer than disks are quick.
    size, most, complete = len(slowness), 4, [0]
    held: list[set[int]] = [set() for _ in slowness]
    for tick in range(1, 3000):
        for rank, slow in enumerate(slowness):
            if tick % slow:
                continue
            held[rank].add(tick // slow)
            if all(tick // slow in numbers for numbers in held):
                complete.append(tick // slow)
            pending = {number for number in held[rank] if number > complete[-1]}
            holders = {number: [other for other in range(size) if number in held[other]] for number in pending.union(*held)}
            promised = next((number for number in sorted(pending) if obtainable(number, holders, {}, size)), None)
            held[rank] -= set(superfluous(pending, most, promised))
    own = 2999 // slowness[-1]
    assert complete[-1] >= own // slowness[-1] // 2
    assert len(complete) > 3 or own < 200
