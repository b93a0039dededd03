"""Which unfinished sets a rank keeps its files of, while it waits for a rank that lags: a rule of numbers alone."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from consensus.types import Rank

PENDING = 4
"""So many, besides the complete sets: few, for each is a model and an optimizer."""


def obtainable(number: int, holders: Mapping[int, Collection[Rank]], ended: Mapping[Rank, int], size: int) -> bool:
    """Whether a set can still become complete: every rank has a file in it, or has not come to it, or ended before.

    Parameters
    ----------
    number
        Of the set.
    holders
        By number, the ranks that have a file.
    ended
        By rank, the number of its last file.
    size
        How many ranks there are.

    Examples
    --------
    >>> holders = {1: [0], 2: [0, 1], 3: [0]}
    >>> [obtainable(number, holders, {}, size=2) for number in (1, 2, 3)]
    [False, True, True]
    """
    past = {rank for other, ranks in holders.items() if other > number for rank in ranks}
    past |= {rank for rank, last in ended.items() if last > number}
    return past.isdisjoint(set(range(size)) - {*holders.get(number, ())})


def superfluous(numbers: Collection[int], most: int, promised: int | None = None) -> list[int]:
    """Which of a rank's unfinished sets to give up: those that the fewest other ranks will have kept.

    Numbers with fewer factors of 2 go first, older ones before newer: ranks that have seen other numbers choose alike.

    Parameters
    ----------
    numbers
        Of the sets, distinct.
    most
        How many may stay, at least 2.
    promised
        One that stays in any case, as the newest does.

    Examples
    --------
    >>> superfluous(range(1, 14), most=4, promised=5)
    [1, 3, 7, 9, 11, 2, 6, 10, 4]
    """
    staying = {max(numbers, default=None), promised}
    order = sorted((number for number in numbers if number not in staying), key=lambda number: (number & -number, number))
    return order[: max(0, len(numbers) - most)]
