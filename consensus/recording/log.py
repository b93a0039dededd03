"""Reading event logs, also those of ranks that were killed."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeAlias

from consensus.errors import ConfigError
from consensus.protocol.neighbour import Weights
from consensus.recording.decoding import Cursor, Damaged, Entry, Truncated, take_entry
from consensus.recording.encoding import CLOCK, CLOCK_FORM, END, LIMIT, SESSION
from consensus.recording.writer import BLOCK_FORM, MAGIC, VERSION, VERSION_FORM
from consensus.types import Rank, Seconds


class Ending(Enum):
    """How a log ends."""

    COMPLETE = "complete"
    LIMIT = "at its limit"
    OPEN = "no end yet"
    CUT = "cut off"
    DAMAGED = "damaged"


class Session(NamedTuple):
    """A fresh engine begins."""


class Clock(NamedTuple):
    """``origin`` is the time that is 0 on the run's clock, and was ``started`` in seconds since 1970."""

    origin: Seconds
    started: float


class Ended(NamedTuple):
    """How the log ends, always its last item, and what there is to say about it."""

    ending: Ending
    words: str


Item: TypeAlias = Session | Clock | Entry | Ended


@dataclass(frozen=True)
class EventLog:
    """An event log, of which the header has been read.

    Attributes
    ----------
    path : Path
        The file.
    consensus : str
        The version of this package that wrote it.
    run : str
        What the logs of one run have in common; may be empty.
    rank : int
        Whose.
    adjacency : mapping of int to tuple of int
        The graph.
    rule : str
        Name of the wait rule.
    parameters : mapping of str to object
        Its parameters.
    weights : "static" or "active"
        As the engine was told.
    everyone : bool
        As the engine was told.
    stuck_after : float
        As the engine was told, seconds.
    """

    path: Path
    consensus: str
    run: str
    rank: Rank
    adjacency: Mapping[Rank, tuple[Rank, ...]]
    rule: str
    parameters: Mapping[str, Any]
    weights: Weights
    everyone: bool
    stuck_after: Seconds = math.inf

    @property
    def size(self) -> int:
        """Number of ranks."""
        return len(self.adjacency)

    @property
    def setting(self) -> tuple[Any, ...]:
        """What all ranks of a run have in common."""
        return self.run, self.adjacency, self.rule, self.parameters, self.weights, self.everyone, self.stuck_after

    def items(self) -> Iterator[Item]:
        """Read from the beginning, a block at a time; the last item, and no other, is an :class:`Ended`."""
        with self.path.open("rb") as file:
            file.seek(len(MAGIC) + VERSION_FORM.size)
            _read_block(file)
            while True:
                begin = file.tell()
                block = _read_block(file)
                if isinstance(block, Ended):
                    yield block
                    return
                cursor = Cursor(block.data)
                while cursor:
                    try:
                        item = _take(cursor)
                    except Truncated:
                        yield Ended(Ending.CUT, "cut off in the middle of a record")
                        return
                    except Damaged as error:
                        yield Ended(Ending.DAMAGED, f"the block at byte {begin} holds {error}")
                        return
                    yield item
                    if isinstance(item, Ended):
                        return
                if not block.whole:
                    yield Ended(Ending.CUT, "cut off between two records")
                    return


def read_log(path: str | PathLike[str]) -> EventLog:
    """Read the header of an event log.

    Raises
    ------
    ConfigError
        If it is no event log, of another version, or its header is damaged.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            begin = file.read(len(MAGIC) + VERSION_FORM.size)
            block = _read_block(file)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read as an event log ({error})") from error
    if not begin.startswith(MAGIC):
        raise ConfigError(f"{path}: no event log, or the beginning is damaged; give an events-RANK.bin of a run's folder")
    if len(begin) == len(MAGIC) + VERSION_FORM.size:
        (version,) = VERSION_FORM.unpack(begin[len(MAGIC) :])
        if version != VERSION:
            raise ConfigError(
                f"{path}: an event log of version {version}, but this program reads version {VERSION}; "
                "replay it with the version of consensus that wrote it (summary.json names it)"
            )
    if isinstance(block, Ended) or not block.whole:
        raise ConfigError(f"{path}: the header is cut off or damaged; copy the file again from where the run was")
    try:
        header = json.loads(block.data)
        adjacency = {rank: tuple(map(int, row)) for rank, row in enumerate(header.pop("adjacency"))}
        log = EventLog(path=path, adjacency=adjacency, **header)
        if log.rank not in adjacency:
            raise ValueError(f"rank = {log.rank!r} of {log.size}")
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path}: the header does not tell what an engine is made from ({error!r})") from error
    return log


class _Block(NamedTuple):
    """``whole``: it is all there, and its checksum is right."""

    data: bytes
    whole: bool


def _read_block(file: BinaryIO) -> _Block | Ended:
    begin = file.tell()
    head = file.read(BLOCK_FORM.size)
    if not head:
        return Ended(Ending.OPEN, "no end: the rank was killed or failed, or the run goes on")
    if len(head) < BLOCK_FORM.size:
        return Ended(Ending.CUT, "cut off at the beginning of a block")
    length, again, checksum = BLOCK_FORM.unpack(head)
    if length ^ again != 0xFFFFFFFF:
        return Ended(Ending.DAMAGED, f"the block at byte {begin} has no length")
    data = file.read(length)
    if len(data) < length:
        return _Block(data, whole=False)
    if zlib.crc32(data) != checksum:
        return Ended(Ending.DAMAGED, f"the block at byte {begin} has changed since it was written: its checksum is another")
    return _Block(data, whole=True)


_MARKS: Mapping[int, Item] = {
    SESSION: Session(),
    LIMIT: Ended(Ending.LIMIT, "recording stopped there, at run.record_limit"),
    END: Ended(Ending.COMPLETE, ""),
}


def _take(cursor: Cursor) -> Item:
    code = cursor.code()
    if code in _MARKS:
        cursor.take_bytes(1)
        return _MARKS[code]
    if code == CLOCK:
        return Clock(*cursor.take(CLOCK_FORM)[1:])
    return take_entry(cursor)
