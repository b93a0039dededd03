"""When a run ends: conditions on one rank's knowledge, and how ranks know how many samples all of them have processed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

from consensus.types import Rank, Round, Seconds

ANNOUNCEMENTS = 100
"""How often a rank tells the others its samples, in a whole run: the sum is known to a hundredth."""


class Ended(IntEnum):
    """Which condition ended a run; the numbers travel as the reason of a Stop message."""

    SAMPLES = 1
    SECONDS = 2
    ROUNDS = 3
    TARGET = 4
    INTERRUPTED = 5

    @property
    def word(self) -> str:
        """As it is written in ``summary.json``."""
        return self.name.lower()


@dataclass(frozen=True)
class Conditions:
    """The conditions that a rank can judge by itself; None never holds.

    Parameters
    ----------
    samples
        Over all ranks.
    seconds
        On the run's clock.
    rounds
        Of this rank.

    Examples
    --------
    >>> Conditions(samples=100, seconds=5.0).met(samples=99, seconds=5.1, rounds=7).word
    'seconds'
    """

    samples: int | None = None
    seconds: Seconds | None = None
    rounds: Round | None = None

    def met(self, *, samples: int, seconds: Seconds, rounds: Round) -> Ended | None:
        """The first condition that holds."""
        if self.samples is not None and samples >= self.samples:
            return Ended.SAMPLES
        if self.seconds is not None and seconds >= self.seconds:
            return Ended.SECONDS
        if self.rounds is not None and rounds >= self.rounds:
            return Ended.ROUNDS
        return None


class Tally:
    """How many samples all ranks have processed, as one of them knows: its own count and what the others announced.

    No reduction and no barrier: a rank announces its count whenever it has grown by a quantum, so that a sum is behind by less
    than the other ranks' quanta and what is under way. A rank that stops announces its exact count; whoever hears it stops soon.

    Parameters
    ----------
    size
        Number of ranks.
    wanted
        Samples at which the run stops; None: nothing is announced, and the others are taken to be as fast as this rank.
    batch
        Samples of one step, the smallest quantum.

    Examples
    --------
    >>> tally = Tally(size=2, wanted=1600, batch=4)
    >>> tally.add(4)
    >>> tally.announcement()
    >>> tally.add(4)
    >>> tally.announcement()
    8
    >>> tally.hear(1, 16)
    >>> tally.total
    24
    """

    def __init__(self, size: int, wanted: int | None, batch: int) -> None:
        self.own = 0
        self.wanted = wanted
        self._size = size
        self._quantum = max(batch, (wanted or 0) // (size * ANNOUNCEMENTS))
        self._announced = 0
        self._heard: dict[Rank, int] = {}

    def add(self, samples: int) -> None:
        """Count own samples."""
        self.own += samples

    def resume(self, own: int, others: Mapping[Rank, int]) -> None:
        """Go on from earlier counts, which all ranks know."""
        self.own = self._announced = own
        self._heard |= others

    def announcement(self) -> int | None:
        """The own count, if it has grown enough to be announced now."""
        if self.wanted is None or self.own - self._announced < self._quantum:
            return None
        self._announced = self.own
        return self.own

    def hear(self, peer: Rank, samples: int) -> None:
        """Take ``peer``'s announcement."""
        self._heard[peer] = samples

    @property
    def total(self) -> int:
        """Samples over all ranks, as known here."""
        return self.own * self._size if self.wanted is None else self.own + sum(self._heard.values())


def agree(reports: Sequence[tuple[Ended | None, Seconds]]) -> Ended | None:
    """The one condition that ended a run.

    Parameters
    ----------
    reports : sequence of (Ended or None, float)
        By rank: why it stopped (None: because the others did) and when.

    Returns
    -------
    Ended or None
        INTERRUPTED if a rank was; else what stopped the last rank to stop, for until then the run went on. None if nobody knows:
        the rank that did has died since.

    Examples
    --------
    >>> agree([(Ended.ROUNDS, 3.0), (Ended.SECONDS, 5.0)]).word
    'seconds'
    """
    known = [(seconds, reason) for reason, seconds in reports if reason is not None]
    if any(reason is Ended.INTERRUPTED for _, reason in known):
        return Ended.INTERRUPTED
    return max(known)[1] if known else None
