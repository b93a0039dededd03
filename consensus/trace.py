"""One rank's rounds as lines of JSON: when each opened and closed, whom it exchanged with, who were backups, why it closed."""

from __future__ import annotations

import contextlib
import json
import logging
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from consensus.driver import RoundTimes
from consensus.errors import ConfigError
from consensus.protocol.rounds import RoundRecord
from consensus.types import Rank, Round, Seconds

FORMAT = "consensus-trace"
VERSION = 2

FLUSH_EVERY: Seconds = 1.0
"""A run that is looked at before its end, or killed, lacks at most as much of its trace."""

_BUFFER_BYTES = 1 << 18

_LOG = logging.getLogger("consensus")


@dataclass(frozen=True, slots=True)
class TracedRound:
    """One round; times are seconds on the run's clock, durations seconds.

    Attributes
    ----------
    round : int
        The rank's own number of it, from 1.
    opened, closed : float
        When the local step was done, and when the model was averaged.
    compute, wait, mix : float
        The local step before, waiting for others, averaging arithmetic.
    exchanges : tuple of (int, int, float, float)
        (peer, the peer's round, when agreed, when complete); none under all-reduce.
    backups : tuple of int
        Living neighbours that were not exchanged with.
    reason : str
        Why the rule closed the round.
    """

    round: Round
    opened: Seconds
    closed: Seconds
    compute: Seconds
    wait: Seconds
    mix: Seconds
    exchanges: tuple[tuple[Rank, Round, Seconds, Seconds], ...]
    backups: tuple[Rank, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class Trace:
    """A trace file.

    Attributes
    ----------
    rank : int
        Whose.
    started : float
        When the run's clock was 0, in seconds since 1970 by that machine's clock.
    rounds : list of TracedRound
        In order.
    """

    rank: Rank
    started: float
    rounds: list[TracedRound]


class TraceWriter:
    """Writes a rank's trace, buffered; tens of microseconds a round. When the disk is full it stops, and the run goes on.

    Parameters
    ----------
    path
        The file to make.
    rank
        Whose trace.
    origin
        The time, on the transport's clock, that is 0 in the trace.
    started
        The same moment in seconds since 1970.
    """

    def __init__(self, path: Path, rank: Rank, origin: Seconds, started: float) -> None:
        self._path, self._over = path, False
        self._file = path.open("w", encoding="utf-8", buffering=_BUFFER_BYTES)
        self._origin = origin
        self._round = 0
        self._flushed = origin
        self._encode = json.JSONEncoder(separators=(",", ":")).encode
        header = {"format": FORMAT, "version": VERSION, "rank": rank, "clock": {"unit": "seconds", "started": started}}
        self._file.write(self._encode(header) + "\n")

    def write(self, record: RoundRecord | None, times: RoundTimes, closed: Seconds) -> None:
        """Add a round.

        Parameters
        ----------
        record
            Of the engine; None for a round of the all-reduce baseline.
        times
            Where the time went.
        closed
            When the round was over, on the transport's clock; the record knows better where there is one.
        """
        if self._over:
            return
        self._round += 1
        zero = self._origin
        if record is None:
            opened, reason = closed - times.wait - times.mix, "all-reduce"
            exchanges: list[tuple[Rank, Round, Seconds, Seconds]] = []
            backups: tuple[Rank, ...] = ()
        else:
            opened, closed, backups, reason = record.opened_at, record.closed_at, record.backups, record.reason
            exchanges = [
                (peer, theirs, round(agreed - zero, 6), round(done - zero, 6))
                for peer, theirs, _, agreed, done in record.exchanges
            ]
        line = {
            "round": self._round,
            "opened": round(opened - zero, 6),
            "closed": round(closed - zero, 6),
            "compute": round(times.compute, 6),
            "wait": round(times.wait, 6),
            "mix": round(times.mix, 6),
            "exchanges": exchanges,
            "backups": backups,
            "reason": reason,
        }
        try:
            self._file.write(self._encode(line) + "\n")
            if closed >= self._flushed + FLUSH_EVERY:
                self._flushed = closed
                self._file.flush()
        except OSError as error:
            self._end(error)

    def _end(self, error: OSError) -> None:
        self._over = True
        _LOG.warning("%s: the trace ends here, the run goes on: %s", self._path, error.strerror or error)
        with contextlib.suppress(OSError):
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        try:
            self._file.close()
        except OSError as problem:
            self._end(problem)


def read(path: str | PathLike[str]) -> Trace:
    """Read a trace file.

    Raises
    ------
    ConfigError
        If it is no trace, of another version, or ends in the middle of a line.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as a trace ({error})") from error
    first, _, rest = text.partition("\n")
    header = _parse(first, path, 1)
    if header.get("format") != FORMAT:
        raise ConfigError(f"{path}: no trace: its first line does not say {FORMAT!r}; give a trace-RANK.jsonl of a run's folder")
    if header.get("version") != VERSION:
        raise ConfigError(
            f"{path}: a trace of version {header.get('version')}, but this program reads version {VERSION}; "
            "read it with the version of consensus that wrote it (summary.json names it)"
        )
    lines = rest.split("\n")
    if lines.pop():
        raise ConfigError(
            f"{path}: line {len(lines) + 2} is cut off: the rank was killed while it wrote; delete that line to read the rest"
        )
    try:
        rank, started = header["rank"], header["clock"]["started"]
    except (KeyError, TypeError) as error:
        raise ConfigError(f"{path}: line 1 is damaged: it does not tell the rank and its clock ({error})") from error
    return Trace(rank, started, [_round(line, path, number) for number, line in enumerate(lines, 2)])


def _parse(line: str, path: object, number: int) -> dict[str, Any]:
    try:
        parsed = json.loads(line)
    except ValueError as error:
        raise ConfigError(f"{path}: line {number} is no JSON ({error}); expected a trace-RANK.jsonl of a run's folder") from error
    return parsed if isinstance(parsed, dict) else {}


def _round(line: str, path: object, number: int) -> TracedRound:
    fields = _parse(line, path, number)
    try:
        return TracedRound(**{**fields, "exchanges": tuple(map(tuple, fields["exchanges"])), "backups": tuple(fields["backups"])})
    except (KeyError, TypeError) as error:
        raise ConfigError(f"{path}: line {number} is no round of a trace ({error})") from error
