"""How long a run's ranks computed, to be had again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from consensus.report.columns import Columns, Floats
from consensus.timing import ComputeTime, Replay, Stream
from consensus.types import Seconds


@dataclass(frozen=True)
class Steps:
    """Every rank's times from closing a round to opening the next, in order.

    Attributes
    ----------
    began : tuple of ndarray of float64
        When each of them began, on the common clock, by rank.
    durations : tuple of ndarray of float64
        Seconds, by rank.
    first : tuple of float
        How long the run took to each rank's first opening, which pays for warming up.
    overhead : float
        What of a duration is not the local step, median, seconds: averaging after the close, taking in what came meanwhile.
    """

    began: tuple[Floats, ...]
    durations: tuple[Floats, ...]
    first: tuple[Seconds, ...]
    overhead: Seconds

    def streams(self, size: int, seed: int) -> list[Stream]:
        """The durations of the first ``size`` ranks, from a moment of the run that the seed draws, and round again at its end.

        The moment is the same for all ranks: what slowed several of them at once does so here too, as far as they keep the pace
        that they had to each other. A sequence is not shuffled: slow spells stay spells.
        """
        last = min(float(began[-1]) for began in self.began)
        moment = np.random.default_rng(seed).uniform(0.0, last)
        rows = tuple(
            tuple(np.roll(durations, -int(np.searchsorted(began, moment))).tolist())
            for began, durations in zip(self.began[:size], self.durations[:size], strict=True)
        )
        model = Replay(rows)
        return [_after(self.first[rank], model.stream(rank, seed)) for rank in range(size)]

    def modelled(self, model: ComputeTime, size: int, seed: int) -> list[Stream]:
        """Durations from a model of local steps, with the overhead that the run shows."""
        warm = float(np.median(self.first))
        return [_after(warm, Stream(step + self.overhead for step in model.stream(rank, seed))) for rank in range(size)]


def _after(first: Seconds, stream: Stream) -> Stream:
    return Stream(chain([first], stream))


def fit(columns: Sequence[Columns], offsets: Floats) -> Steps:
    """Read the durations off the traces of all ranks, each of two rounds or more.

    Parameters
    ----------
    columns
        By rank.
    offsets : ndarray, shape (ranks,)
        Of their clocks.
    """
    durations = tuple(rank.opened[1:] - rank.closed[:-1] for rank in columns)
    began = tuple(rank.closed[:-1] - offset for rank, offset in zip(columns, offsets, strict=True))
    first = tuple(max(0.0, float(rank.opened[0] - offset)) for rank, offset in zip(columns, offsets, strict=True))
    rest = np.concatenate([own - rank.compute[1:] for own, rank in zip(durations, columns, strict=True)])
    return Steps(began, durations, first, max(0.0, float(np.median(rest))))
