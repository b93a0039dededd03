"""When a checkpoint is due, and under which number: a rule of numbers alone, so that ranks agree without a word."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

from consensus.errors import ConfigError
from consensus.names import suggestion
from consensus.types import Round, Seconds


class _Unit(NamedTuple):
    factor: float
    counts_rounds: bool


_SECOND, _MINUTE, _HOUR, _ROUND = _Unit(1, False), _Unit(60, False), _Unit(3600, False), _Unit(1, True)
_UNITS = MappingProxyType(
    {
        "s": _SECOND, "second": _SECOND, "seconds": _SECOND,
        "min": _MINUTE, "minute": _MINUTE, "minutes": _MINUTE,
        "h": _HOUR, "hour": _HOUR, "hours": _HOUR,
        "round": _ROUND, "rounds": _ROUND,
    }
)  # fmt: skip
_EVERY = re.compile(r"\s*([0-9.]+(?:e[+-]?[0-9]+)?)\s*([a-z]*)\s*", re.IGNORECASE)
_EXAMPLES = "expected a time or a number of rounds, such as '60 s', '10 min' or '100 rounds'"


@dataclass(frozen=True)
class Due:
    """A checkpoint every so many seconds of the run's clock, or every so many of a rank's rounds.

    By seconds, ranks write at about one time, each at its own round. By rounds, each writes after the same round: what resuming
    exactly needs, at the price that the fast wait on disk for the slow. A step longer than the interval skips a number, and with
    it that rank's part in the set; so intervals are to be longer than steps.

    Parameters
    ----------
    every
        Above 0; a whole number if rounds.
    counts_rounds
        Whether rounds are counted, or seconds.

    Raises
    ------
    ConfigError
        If it is not above 0, not finite, or not a whole number of rounds.

    Examples
    --------
    >>> due = Due.parse("100 rounds")
    >>> due.number(rounds=250, seconds=0.0)
    2
    >>> due.after(1, rounds=250, seconds=0.0), due.after(2, rounds=250, seconds=0.0)
    (2, None)
    >>> due.next(rounds=250, seconds=0.0)
    3
    """

    every: float
    counts_rounds: bool = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.every) and self.every > 0):
            raise ConfigError(f"a checkpoint every {self.every:g} {self._unit} cannot be, expected more than 0; {_EXAMPLES}")
        if self.counts_rounds and self.every != int(self.every):
            raise ConfigError(f"a checkpoint every {self.every:g} rounds cannot be, expected a whole number; {_EXAMPLES}")

    @classmethod
    def parse(cls, every: str | float) -> Due:
        """What a user wrote: ``"60 s"``, ``"1.5 h"``, ``"100 rounds"``, or a number of seconds.

        Raises
        ------
        ConfigError
            If it is not one of these.

        Examples
        --------
        >>> Due.parse("10 min"), Due.parse(60)
        (Due(every=600.0, counts_rounds=False), Due(every=60.0, counts_rounds=False))
        >>> Due.parse("100 ronds")
        Traceback (most recent call last):
            ...
        consensus.errors.ConfigError: a checkpoint every '100 ronds': unknown unit 'ronds'; did you mean 'rounds'? ...
        """
        if isinstance(every, bool) or not isinstance(every, str | int | float):
            raise ConfigError(f"a checkpoint every {every!r}: {_EXAMPLES}")
        match = _EVERY.fullmatch(str(every))
        try:
            amount = float(match[1]) if match else float("nan")
        except ValueError:
            amount = float("nan")
        if match is None or math.isnan(amount):
            raise ConfigError(f"a checkpoint every {every!r}: {_EXAMPLES}")
        name = match[2].lower() or "s"
        if name not in _UNITS:
            raise ConfigError(f"a checkpoint every {every!r}: unknown unit {match[2]!r}; {suggestion(name, _UNITS)}")
        unit = _UNITS[name]
        return cls(amount * unit.factor, unit.counts_rounds)

    def __str__(self) -> str:
        return f"{self.every:g} {self._unit}"

    @property
    def _unit(self) -> str:
        return "rounds" if self.counts_rounds else "s"

    def number(self, *, rounds: Round, seconds: Seconds) -> int:
        """Number of the checkpoint that was due last; 0 is the beginning, which needs none.

        Parameters
        ----------
        rounds
            That this rank has closed since the beginning of the run, before a resume included.
        seconds
            On the run's clock, which all ranks read alike, likewise.
        """
        return int((rounds if self.counts_rounds else seconds) // self.every)

    def after(self, written: int, *, rounds: Round, seconds: Seconds) -> int | None:
        """Number of the checkpoint that is due, if ``written`` is the last that was; None if none is.

        A rank that resumes has "written" :meth:`number` of where it resumes.
        """
        number = self.number(rounds=rounds, seconds=seconds)
        return number if number > written else None

    def next(self, *, rounds: Round, seconds: Seconds) -> int:
        """Number that a rank gives its last checkpoint: that of the next one that it will not come to."""
        return self.number(rounds=rounds, seconds=seconds) + 1
