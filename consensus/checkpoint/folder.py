"""Sets of checkpoints: which file is whose, and which sets are complete.

Below the folder there are ``checkpoint-START-NUMBER/rank-RANK.ckpt`` and, for ranks that ended,
``checkpoint-START-last/rank-RANK.ckpt``.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from consensus.checkpoint.atomic import TEMPORARY
from consensus.checkpoint.file import Header, read_header
from consensus.errors import CheckpointError
from consensus.types import Rank

_SET = re.compile(r"checkpoint-(\d+)-(\d+|last)")
_FILE = re.compile(r"rank-(\d+)\.ckpt")


class Moment(NamedTuple):
    """What the files of a set have in common; a later one compares greater."""

    start: int
    number: int

    def __str__(self) -> str:
        return f"checkpoint-{self.start:04d}-{self.number:08d}"


class Member(NamedTuple):
    """One rank's part in a set."""

    path: Path
    header: Header


@dataclass(frozen=True)
class CheckpointSet:
    """What there is of a set.

    Parameters
    ----------
    moment
        Which set.
    members
        By rank, files whose headers are right; their states have not been read.
    problems
        What is wrong with other files of the set, or with all together.
    """

    moment: Moment
    members: Mapping[Rank, Member]
    problems: tuple[CheckpointError, ...]

    @property
    def headers(self) -> list[Header]:
        """The headers, by rank."""
        return [self.members[rank].header for rank in sorted(self.members)]

    @property
    def size(self) -> int:
        """How many ranks the run had; 0 if that is not known."""
        return max((header.size for header in self.headers), default=0)

    @property
    def lost(self) -> list[Rank]:
        """Ranks that others knew to be dead and that have no file."""
        return sorted({rank for header in self.headers for rank in header.lost} - self.members.keys())

    @property
    def missing(self) -> list[Rank]:
        """Ranks that should have a file and have none that is right."""
        return sorted(set(range(self.size)) - self.members.keys() - set(self.lost))

    @property
    def complete(self) -> bool:
        """Whether the file of every rank is there, and nothing is known to be wrong."""
        return bool(self.members) and not self.missing and not self.problems


class CheckpointFolder:
    """The folder of all sets of a run.

    Parameters
    ----------
    path
        Need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def file(self, moment: Moment, rank: Rank) -> Path:
        """Where a rank writes its checkpoint."""
        return self.path / str(moment) / _file_name(rank)

    def last_file(self, start: int, rank: Rank) -> Path:
        """Where a rank writes the last one of a start."""
        return self._last(start) / _file_name(rank)

    def starts(self) -> set[int]:
        """The starts that have written anything."""
        return {int(match[1]) for match in self._folders().values()}

    def moments(self) -> list[Moment]:
        """All moments that there may be a set of, newest first."""
        found = {_moment(match) for match in self._folders().values() if match[2] != "last"}
        found.update(Moment(start, number) for start in self.starts() for number in self.ended(start).values())
        return sorted(found, reverse=True)

    def ended(self, start: int) -> dict[Rank, int]:
        """The ranks that wrote their last checkpoint, and its number; a damaged one is left to :meth:`find` to report."""
        numbers: dict[Rank, int] = {}
        for rank, path in _rank_files(self._last(start)).items():
            with contextlib.suppress(CheckpointError):
                numbers[rank] = read_header(path).number
        return numbers

    def holders(self, start: int) -> dict[int, set[Rank]]:
        """Numbers of a start, and which ranks have a file of that number, the last ones left out; only names are looked at."""
        found = {path: match for path, match in self._folders().items() if match[2] != "last" and int(match[1]) == start}
        return {int(match[2]): set(_rank_files(path)) for path, match in found.items()}

    def find(self, moment: Moment, only: Rank | None = None) -> CheckpointSet:
        """What there is of a set, as the headers say; of one rank if ``only`` is given."""
        members: dict[Rank, Member] = {}
        problems: list[CheckpointError] = []
        for folder in (self.path / str(moment), self._last(moment.start)):
            for rank, path in _rank_files(folder).items():
                if rank in members or only not in (None, rank):
                    continue
                try:
                    header = _read_own_header(path, moment.start, rank)
                except CheckpointError as error:
                    problems.append(error)
                    continue
                # The number of a last file is from when on it stands; that of any other is its set's.
                if header.number == moment.number or (header.last and header.number < moment.number):
                    members[rank] = Member(path, header)
                elif not header.last:
                    problems.append(_misplaced(path, f"number {header.number}"))
        alike = {(member.header.size, member.header.run) for member in members.values()}
        if len(alike) > 1:
            words = " and ".join(f"{size} ranks of run {run!r}" for size, run in sorted(alike))
            problems.append(CheckpointError(f"{self.path / str(moment)}: files of {words}, expected those of one run"))
        return CheckpointSet(moment, members, tuple(problems))

    def sets(self) -> Iterator[CheckpointSet]:
        """All sets, newest first, complete or not."""
        return map(self.find, self.moments())

    def prune(self, kept: list[Moment]) -> None:
        """Remove all sets older than the newest of ``kept`` that are not among them, unfinished ones too.

        Parameters
        ----------
        kept
            Complete sets, newest first.
        """
        for path, match in self._folders().items():
            if match[2] == "last":
                superfluous = int(match[1]) < kept[-1].start
            else:
                superfluous = _moment(match) < kept[0] and _moment(match) not in kept
            if superfluous:
                _remove(path)

    def _last(self, start: int) -> Path:
        return self.path / f"checkpoint-{start:04d}-last"

    def _folders(self) -> dict[Path, re.Match[str]]:
        return {path: match for path in _entries(self.path) if (match := _SET.fullmatch(path.name))}


def _file_name(rank: Rank) -> str:
    return f"rank-{rank:05d}.ckpt"


def _moment(match: re.Match[str]) -> Moment:
    return Moment(int(match[1]), int(match[2]))


def _entries(path: Path) -> list[Path]:
    """What a folder holds; nothing if it is not there (any more)."""
    try:
        return list(path.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def _rank_files(path: Path) -> dict[Rank, Path]:
    return {int(match[1]): file for file in _entries(path) if (match := _FILE.fullmatch(file.name))}


def _read_own_header(path: Path, start: int, rank: Rank) -> Header:
    header = read_header(path)
    if (header.start, header.rank) != (start, rank):
        raise _misplaced(path, f"start {header.start}, rank {header.rank}")
    return header


def _misplaced(path: Path, says: str) -> CheckpointError:
    return CheckpointError(f"{path}: it says that it is of {says}: renamed or copied; put back the files as the run wrote them")


def _remove(path: Path) -> None:
    """Remove a set's folder with what was written for it; what somebody else put there stays, and so does the folder."""
    for file in _entries(path):
        if _FILE.fullmatch(file.name) or file.name.endswith(TEMPORARY):
            file.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        path.rmdir()
