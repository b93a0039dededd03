"""What is drawn from a compute time model, one rank's share of it."""

from __future__ import annotations

from collections.abc import Iterator

from consensus.types import Seconds


class Stream:
    """One rank's step durations, in order and without end.

    Parameters
    ----------
    draws : iterator of float
        Seconds per step.
    """

    def __init__(self, draws: Iterator[Seconds]) -> None:
        self._draws = draws

    def next(self) -> Seconds:
        """The duration of the next step, seconds."""
        return next(self._draws)

    def times(self, factor: float) -> Stream:
        """The rest of this stream, each duration multiplied."""
        return Stream(factor * draw for draw in self._draws)

    def __iter__(self) -> Iterator[Seconds]:
        return self._draws
