"""Writing an event log while a rank trains.

Layout: :data:`MAGIC`, the version, then blocks: a head (:data:`BLOCK_FORM`) and so many bytes. The first block is a JSON table of
what an engine is made from; the others hold whole marks and events as :mod:`consensus.recording.encoding` packs them.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import struct
import zlib
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from consensus import __version__
from consensus.errors import ConfigError
from consensus.protocol.commands import Command
from consensus.protocol.decision import Rule
from consensus.protocol.events import Event
from consensus.protocol.neighbour import NeighbourEngine, Weights
from consensus.recording.encoding import CLOCK, CLOCK_FORM, END, LIMIT, MOST_RANKS, SESSION, Encoder
from consensus.types import Seconds

MAGIC = b"\x89consensus-events\n"
"""How every log begins. No text has the first byte, and a transfer that mends line ends damages the last."""

VERSION = 1
VERSION_FORM = struct.Struct("<H")
BLOCK_FORM = struct.Struct("<III")
"""Length, the same with all bits turned over, checksum: a wrong length would have what follows taken for something else."""

BLOCK_BYTES = 1 << 15
"""What is written at once: a hundred rounds or so, in some tens of microseconds. A rank that is killed loses the last of it."""

MIB = 1 << 20

_LOG = logging.getLogger("consensus")


class EventWriter:
    """Records one rank's events, buffered; a microsecond or two an event.

    The file is made when the first engine begins. What comes after :meth:`close`, or after the limit, is not recorded. Nor is
    anything once the disk is full: a run does not end for want of a record of it.

    Parameters
    ----------
    path
        The file to make, ``events-RANK.bin`` in the folder of a run.
    run
        What the logs of one run have in common and no other run has.
    limit
        Bytes, after which recording stops.

    Examples
    --------
    >>> import tempfile
    >>> from consensus.protocol.events import StepDone
    >>> from consensus.recording.log import read_log
    >>> from consensus.rules import build
    >>> engine = NeighbourEngine(0, {0: (1,), 1: (0,)}, build("full"))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "events-0.bin"
    ...     with EventWriter(path) as writer:
    ...         writer.begin(engine)
    ...         writer.record(0.5, StepDone(), engine.handle(StepDone(), 0.5))
    ...     [type(item).__name__ for item in read_log(path).items()]
    ['Session', 'Entry', 'Ended']
    """

    def __init__(self, path: str | PathLike[str], *, run: str = "", limit: float = 64 * MIB) -> None:
        self.path = Path(path)
        self._run, self._limit = run, limit
        self._block = min(BLOCK_BYTES, limit / 8)
        self._encoder = Encoder()
        self._buffer, self._encode = self._encoder.buffer, self._encoder.encode
        self._file: Any = None
        self._over = False
        self.bytes_written = 0

    def begin(self, engine: NeighbourEngine, *, weights: Weights = "static", everyone: bool = True) -> None:
        """Record ``engine``, which is fresh, from now on; the other arguments are what it was made with.

        Raises
        ------
        ConfigError
            If the file cannot be written, or there are too many ranks.
        """
        if self._over:
            return
        if self._file is None:
            self._open(engine, weights, everyone)
        self._encoder.follow(engine)
        self._buffer.append(SESSION)

    def set_clock(self, origin: Seconds, started: float) -> None:
        """Say which time, on the transport's clock, is 0 on the run's, and when that was in seconds since 1970."""
        if self._file is not None:
            self._buffer += CLOCK_FORM.pack(CLOCK, origin, started)

    def record(self, now: Seconds, event: Event, commands: list[Command]) -> None:
        """Take down an event, when it was handled, and the answer: a :data:`consensus.protocol.story.Recorder`."""
        if self._over:
            return
        self._encode(now, event, commands)
        if len(self._buffer) >= self._block:
            self._spill()

    def close(self, *, in_order: bool = True) -> None:
        """Write what is left; ``in_order``: and that this is all."""
        if self._file is not None and not self._over:
            if in_order:
                self._buffer.append(END)
            self._spill()
            self._end()
        self._over = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close(in_order=error is None)

    def _open(self, engine: NeighbourEngine, weights: Weights, everyone: bool) -> None:
        adjacency = engine.view.adjacency
        if len(adjacency) > MOST_RANKS:
            raise ConfigError(
                f"the events of {len(adjacency)} ranks cannot be recorded, expected at most {MOST_RANKS}; "
                "turn recording off: run.record = false"
            )
        header = {
            "consensus": __version__,
            "run": self._run,
            "rank": engine.rank,
            "adjacency": [list(adjacency[rank]) for rank in range(len(adjacency))],
            "rule": engine.rule.name,
            "parameters": _parameters(engine.rule),
            "weights": weights,
            "everyone": everyone,
            **({} if engine.stuck_after == math.inf else {"stuck_after": engine.stuck_after}),
        }
        try:
            self._file = self.path.open("wb", buffering=0)
        except OSError as error:
            raise ConfigError(
                f"{self.path}: no events can be recorded there ({error.strerror or error}); give another file, or turn recording "
                "off: run.record = false"
            ) from error
        self._put(MAGIC + VERSION_FORM.pack(VERSION))
        self._put_block(json.dumps(header, separators=(",", ":"), default=repr).encode())

    def _spill(self) -> None:
        data = bytes(self._buffer)
        self._buffer.clear()
        full = self.bytes_written + BLOCK_FORM.size + len(data) > self._limit
        if full:
            data = bytes([LIMIT])
            _LOG.warning(
                "%s: recording of events stopped at its limit of %g MiB; the run goes on (run.record_limit)",
                self.path,
                self._limit / MIB,
            )
        if data:
            self._put_block(data)
        if full:
            self._end()

    def _put_block(self, data: bytes) -> None:
        self._put(BLOCK_FORM.pack(len(data), len(data) ^ 0xFFFFFFFF, zlib.crc32(data)) + data)

    def _put(self, data: bytes) -> None:
        try:
            written = self._file.write(data)
            self.bytes_written += written
            if written < len(data):
                raise OSError(f"only {written} of {len(data)} bytes were taken")
        except OSError as error:
            _LOG.warning("%s: recording of events stopped, the run goes on: %s", self.path, error.strerror or error)
            self._end()

    def _end(self) -> None:
        self._over = True
        self._buffer.clear()
        self._file.close()


def _parameters(rule: Rule) -> dict[str, Any]:
    return dataclasses.asdict(rule) if dataclasses.is_dataclass(rule) else {}
