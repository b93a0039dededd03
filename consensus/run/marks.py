"""Which marks of the run's clock have a snapshot: a rule of numbers alone, so that ranks agree without a word."""

from __future__ import annotations


def spacing(latest: int, limit: int) -> int:
    """Return the distance of kept marks: the smallest power of two that leaves at most ``limit`` of them.

    Parameters
    ----------
    latest
        Number of the last mark that has passed; the first mark is number 1.
    limit
        Most marks to keep, at least 1.

    Examples
    --------
    >>> [spacing(latest, limit=4) for latest in (4, 5, 9, 10)]
    [1, 2, 2, 4]
    """
    distance = 1
    while latest // distance > limit:
        distance *= 2
    return distance


def kept(latest: int, limit: int) -> range:
    """Return the marks that are kept when ``latest`` is the last that has passed.

    What is kept later was kept before: a rank that knows of fewer marks has all that another one keeps of them.

    Examples
    --------
    >>> list(kept(9, limit=4))
    [2, 4, 6, 8]
    """
    distance = spacing(latest, limit)
    return range(distance, latest + 1, distance)
