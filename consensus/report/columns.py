"""A trace's numbers as arrays."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from consensus.errors import ConfigError
from consensus.trace import Trace
from consensus.types import Rank

Floats: TypeAlias = NDArray[np.float64]
"""An array of float64."""


@dataclass(frozen=True, slots=True)
class Columns:
    """One rank's rounds, column by column; times and durations in seconds, arrays of shape (rounds,).

    Attributes
    ----------
    rank : int
        Whose.
    opened, closed : ndarray of float64
        On the run's clock.
    compute, wait, mix : ndarray of float64
        The local step before, waiting for others, averaging arithmetic.
    backups : ndarray of float64
        How many living neighbours the round did without.
    """

    rank: Rank
    opened: Floats
    closed: Floats
    compute: Floats
    wait: Floats
    mix: Floats
    backups: Floats

    def check(self, path: Path) -> None:
        """Make sure that the times can be times.

        Raises
        ------
        ConfigError
            If one is negative or not a number, or a round closed before it opened.
        """
        for name in ("opened", "closed", "compute", "wait", "mix"):
            values = getattr(self, name)
            wrong = np.flatnonzero(~(np.isfinite(values) & (values >= 0)))
            if wrong.size:
                raise ConfigError(
                    f"{path}: round {wrong[0] + 1}: {name} = {values[wrong[0]]:g}, expected seconds, 0 or more: "
                    "the trace is damaged; record the run again, or leave it out"
                )
        wrong = np.flatnonzero(self.closed < self.opened)
        if wrong.size:
            k = wrong[0]
            raise ConfigError(
                f"{path}: round {k + 1}: closed at {self.closed[k]:g} s, expected no earlier than it opened, at "
                f"{self.opened[k]:g} s: the trace is damaged; record the run again, or leave it out"
            )


def columns(trace: Trace) -> Columns:
    """The arrays of a trace."""
    rounds = trace.rounds
    table = np.array([(r.opened, r.closed, r.compute, r.wait, r.mix, len(r.backups)) for r in rounds], dtype=np.float64).reshape(
        len(rounds), 6
    )
    return Columns(trace.rank, *table.T)
