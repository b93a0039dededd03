"""How long a local step takes: seeded models of stragglers.

The same objects drive the simulator's clock and the injector on real runs. A model is frozen configuration; what is drawn from
it lives in a :class:`~consensus.timing.stream.Stream`, one per rank. Streams are independent: a rank's durations are a function
of (model, seed, rank) alone, so adding ranks, or a rank that finishes early, changes nobody else's sequence. That is what makes
two wait rules comparable on "the same" stragglers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, repeat

import numpy as np

from consensus.errors import ConfigError
from consensus.timing.checks import SECONDS, Duration, ParameterError, Positive, Probability, Slowdown, Sojourn, settle
from consensus.timing.stream import Stream
from consensus.types import Rank, Seconds


def _is_count(value: object) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and bool(value >= 0)


@dataclass(frozen=True)
class ComputeTime(ABC):
    """A model of the time that one local step takes."""

    def __post_init__(self) -> None:
        problems = [*settle(self), *self._settle_others()]
        if problems:
            raise ParameterError(type(self).__name__, problems)

    def _settle_others(self) -> list[str]:
        """Problems with parameters that are not plain numbers."""
        return []

    def fit(self, size: int) -> None:
        """Make sure that the model suits a run of ``size`` ranks.

        Raises
        ------
        ConfigError
            If it names a rank that is not there, or has nothing to say about one that is.
        """
        problems = self._misfits(size)
        if problems:
            raise ParameterError(type(self).__name__, problems)

    def _misfits(self, size: int) -> list[str]:
        """Why the model does not suit ``size`` ranks."""
        return []

    @abstractmethod
    def draws(self, rank: Rank, generator: np.random.Generator) -> Iterator[Seconds]:
        """Durations of ``rank``'s steps, seconds, without end; all randomness comes from ``generator``."""

    def stream(self, rank: Rank, seed: int) -> Stream:
        """The durations of one rank.

        The generator is Philox, whose keys (here hashed from seed and rank) give streams that do not overlap.

        Parameters
        ----------
        rank : int
            Which rank, 0 or more.
        seed : int
            Seed of the run, 0 or more.

        Returns
        -------
        Stream
            Starting at the rank's first step.

        Raises
        ------
        ConfigError
            If rank or seed is negative or not an integer, or the model knows no such rank.

        Examples
        --------
        >>> times = Transient(seconds=0.02, probability=0.05, factor=10).stream(rank=3, seed=1)
        >>> sorted({times.next() for _ in range(200)})
        [0.02, 0.2]
        """
        for name, value in (("rank", rank), ("seed", seed)):
            if not _is_count(value):
                raise ConfigError(f"{name} = {value!r}: expected an integer, 0 or more")
        sequence = np.random.SeedSequence(entropy=int(seed), spawn_key=(int(rank),))
        return Stream(self.draws(rank, np.random.Generator(np.random.Philox(sequence))))


@dataclass(frozen=True)
class Constant(ComputeTime):
    """Every step of every rank takes the same time.

    Parameters
    ----------
    seconds : float
        Duration of a step.
    """

    seconds: Duration

    def draws(self, rank: Rank, generator: np.random.Generator) -> Iterator[Seconds]:
        return repeat(self.seconds)


@dataclass(frozen=True)
class ShiftedExponential(ComputeTime):
    """T = shift + Exp(mean): P(T > t) = exp(-(t - shift) / mean) for t >= shift; the mean of T is shift + mean.

    Parameters
    ----------
    shift : float
        Seconds no step can do without.
    mean : float
        Mean of the exponential part, seconds (not of the whole step).
    """

    shift: Duration
    mean: Duration

    def draws(self, rank: Rank, generator: np.random.Generator) -> Iterator[Seconds]:
        while True:
            yield self.shift + self.mean * generator.standard_exponential()


@dataclass(frozen=True)
class Pareto(ComputeTime):
    """Heavy tail: P(T > t) = (scale / t) ** shape for t >= scale.

    Parameters
    ----------
    scale : float
        Shortest step, seconds.
    shape : float
        Tail index. The mean is scale * shape / (shape - 1), infinite for shape <= 1; the variance is infinite for shape <= 2.
    """

    scale: Duration
    shape: Positive

    def draws(self, rank: Rank, generator: np.random.Generator) -> Iterator[Seconds]:
        while True:
            yield self.scale * (1.0 + generator.pareto(self.shape))  # numpy draws the Lomax form, which begins at 0


@dataclass(frozen=True)
class Transient(ComputeTime):
    """Each step, independently, is ``factor`` times slower with some probability.

    Parameters
    ----------
    seconds : float
        Duration of an undisturbed step.
    probability : float
        That a step is slow.
    factor : float
        How many times slower.
    """

    seconds: Duration
    probability: Probability
    factor: Slowdown

    def draws(self, rank: Rank, generator: np.random.Generator) -> Iterator[Seconds]:
        slow = self.seconds * self.factor
        while True:
            yield slow if generator.random() < self.probability else self.seconds


@dataclass(frozen=True)
class Stall(ComputeTime):
    """Each step, independently, halts for a while with some probability; the halt comes on top of the step.

    Parameters
    ----------
    seconds : float
        Duration of an undisturbed step.
    probability : float
        That a step stalls.
    stall_seconds : float
        How long it halts.
    """

    seconds: Duration
    probability: Probability
    stall_seconds: Duration

    def draws(self, rank: Rank, generator: np.random.Generator) -> Iterator[Seconds]:
        stalled = self.seconds + self.stall_seconds
        while True:
            yield stalled if generator.random() < self.probability else self.seconds


@dataclass(frozen=True)
class Persistent(ComputeTime):
    """Some ranks are slow all the time.

    Parameters
    ----------
    seconds : float
        Duration of a step on the other ranks.
    ranks : sequence of int
        The slow ranks.
    factor : float
        How many times slower they are.
    """

    seconds: Duration
    ranks: tuple[Rank, ...]
    factor: Slowdown

    def _settle_others(self) -> list[str]:
        if not isinstance(self.ranks, Sequence) or not all(_is_count(rank) for rank in self.ranks):
            return [f"ranks = {self.ranks!r}: expected a list of ranks, integers of 0 or more"]
        object.__setattr__(self, "ranks", tuple(int(rank) for rank in self.ranks))
        return []

    def _misfits(self, size: int) -> list[str]:
        if all(rank < size for rank in self.ranks):
            return []
        return [f"ranks = {list(self.ranks)}: expected ranks from 0 to {size - 1}"]

    def draws(self, rank: Rank, generator: np.random.Generator) -> Iterator[Seconds]:
        return repeat(self.seconds * self.factor if rank in self.ranks else self.seconds)


@dataclass(frozen=True)
class Markov(ComputeTime):
    """A rank changes between fast and slow spells of geometric length (a neighbour on the node comes and goes).

    Spells begin in the stationary state, so a short run sees slow ranks as often as a long one: the share of slow steps is
    fast_after / (slow_after + fast_after) from the first step on.

    Parameters
    ----------
    seconds : float
        Duration of a fast step.
    factor : float
        How many times slower a slow step is.
    slow_after : float
        Mean length of a fast spell, steps.
    fast_after : float
        Mean length of a slow spell, steps.
    """

    seconds: Duration
    factor: Slowdown
    slow_after: Sojourn
    fast_after: Sojourn

    def draws(self, rank: Rank, generator: np.random.Generator) -> Iterator[Seconds]:
        slow = generator.random() < self.fast_after / (self.slow_after + self.fast_after)
        while True:
            yield self.seconds * self.factor if slow else self.seconds
            spell = self.fast_after if slow else self.slow_after
            slow ^= generator.random() < 1.0 / spell


@dataclass(frozen=True)
class Replay(ComputeTime):
    """Recorded durations, again; a rank that runs out begins anew.

    Parameters
    ----------
    durations : sequence of sequences of float
        Seconds, ``durations[rank][step]``.
    """

    durations: tuple[tuple[Seconds, ...], ...]

    def _settle_others(self) -> list[str]:
        if not _is_rows(self.durations):
            return [f"durations = {self.durations!r}: expected one non-empty list of seconds per rank"]
        problems = [
            f"durations[{rank}][{step}] = {value!r}: expected {SECONDS.wording}"
            for rank, row in enumerate(self.durations)
            for step, value in enumerate(row)
            if value not in SECONDS
        ]
        if not problems:
            object.__setattr__(self, "durations", tuple(tuple(map(float, row)) for row in self.durations))
        return problems

    def _misfits(self, size: int) -> list[str]:
        if size <= len(self.durations):
            return []
        return [f"durations: recorded for {len(self.durations)} ranks, expected {size} lists or more"]

    def draws(self, rank: Rank, generator: np.random.Generator) -> Iterator[Seconds]:
        self.fit(rank + 1)
        return cycle(self.durations[rank])


def _is_rows(table: object) -> bool:
    def is_row(row: object) -> bool:
        return isinstance(row, Sequence) and not isinstance(row, str) and len(row) > 0

    return is_row(table) and all(is_row(row) for row in table)  # type: ignore[attr-defined]
