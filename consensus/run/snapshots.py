"""Models as of common marks of the clock: every rank keeps its own in a file, and waits for nobody to do so."""

from __future__ import annotations

import itertools
import logging
import os
import shutil
import struct
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from consensus.config import RunConfig
from consensus.errors import ConsensusError, ProtocolError
from consensus.run.folder import in_place_of
from consensus.run.marks import kept, spacing
from consensus.transport.base import Bytes
from consensus.types import Rank, Seconds

_HEADER = struct.Struct("<8s3q")
_HEADER_BYTES = 64  # a cache line, so that the numbers behind it are aligned
_MAGIC = b"CSNAP001"

_LOG = logging.getLogger("consensus")


class Counts(NamedTuple):
    """What a rank had done when a snapshot was taken."""

    samples: int
    rounds: int
    backups: int


class Snapshot(NamedTuple):
    """A rank's model at a mark, as bytes."""

    counts: Counts
    model: Bytes


class SnapshotFolder:
    """The files ``MARK-RANK`` and ``final-RANK``; a file that can be seen is complete.

    A rank that has ended keeps its last model, so ``final-RANK`` stands for all later marks.

    Parameters
    ----------
    path
        An existing folder, common to all ranks.
    size
        Number of ranks.
    """

    def __init__(self, path: Path, size: int) -> None:
        self.path = path
        self.ranks: Sequence[Rank] = range(size)

    def among(self, ranks: Collection[Rank]) -> SnapshotFolder:
        """The same folder, as if only these ranks were in it: those that are left at the end."""
        folder = SnapshotFolder(self.path, 0)
        folder.ranks = sorted(set(ranks).intersection(self.ranks))
        return folder

    def lose(self, rank: Rank) -> None:
        """Let everybody who looks into the folder know that ``rank`` has died."""
        (self.path / f"lost-{rank:05d}").touch()

    def living(self) -> SnapshotFolder:
        """The same folder without the ranks that are known to have died."""
        return self.among([rank for rank in self.ranks if not (self.path / f"lost-{rank:05d}").exists()])

    def write(self, mark: int | None, rank: Rank, counts: Counts, parts: Iterable[Bytes]) -> None:
        """Keep a model for ``mark``, or as the last one if that is None."""
        with in_place_of(self._file(mark, rank)) as temporary, temporary.open("wb") as file:
            file.write(_HEADER.pack(_MAGIC, *counts).ljust(_HEADER_BYTES, b"\0"))
            for part in parts:
                file.write(part.data)

    def link(self, mark: int, rank: Rank, other: int) -> None:
        """Let the model of ``mark`` stand for that of ``other`` too."""
        source, path = self._file(mark, rank), self._file(other, rank)
        try:
            os.link(source, path)
        except OSError:  # a file system without hard links
            with in_place_of(path) as temporary:
                shutil.copyfile(source, temporary)

    def drop(self, mark: int, rank: Rank) -> None:
        """Forget the model of ``mark``."""
        self._file(mark, rank).unlink(missing_ok=True)

    def marks(self, rank: Rank) -> list[int]:
        """The marks that have a file of ``rank``'s, ascending."""
        names = (path.name.split("-") for path in self.path.glob(f"*-{rank:05d}"))
        return sorted(int(name[0]) for name in names if name[0].isdigit())

    def complete(self, mark: int) -> bool:
        """Whether the models of all ranks at ``mark`` are there."""
        return all(self._find(mark, rank) is not None for rank in self.ranks)

    def read(self, mark: int | None) -> list[Snapshot]:
        """All ranks' models at ``mark`` (None: their last ones), by rank; the bytes are mapped, not loaded.

        Raises
        ------
        FileNotFoundError
            If one is not there, or was dropped in the meantime.
        """
        return [self._load(mark, rank) for rank in self.ranks]

    def _file(self, mark: int | None, rank: Rank) -> Path:
        return self.path / f"{'final' if mark is None else f'{mark:08d}'}-{rank:05d}"

    def _find(self, mark: int | None, rank: Rank) -> Path | None:
        # The last model is looked for first: if it was there and the mark's own file was not, there will never be one.
        final, own = self._file(None, rank), self._file(mark, rank)
        ended = final.exists()
        if own.exists():
            return own
        # Nor does it stand for an earlier mark, which a rank that is ahead has dropped and one that is behind still keeps.
        later = mark is None or all(kept_mark < mark for kept_mark in self.marks(rank))
        return final if ended and later else None

    def _load(self, mark: int | None, rank: Rank) -> Snapshot:
        path = self._find(mark, rank)
        if path is None:
            raise FileNotFoundError(f"no snapshot of rank {rank} at mark {mark} in {self.path}")
        with path.open("rb") as file:
            header = file.read(_HEADER_BYTES)
            if len(header) < _HEADER_BYTES or not header.startswith(_MAGIC):
                raise ProtocolError(f"{path} is no snapshot of this version: it begins with {header[: len(_MAGIC)]!r}")
            _, *counts = _HEADER.unpack_from(header)
            # Copy on write: torch takes no read-only arrays.
            model = np.memmap(file, np.uint8, mode="c", offset=_HEADER_BYTES)
        return Snapshot(Counts(*counts), np.asarray(model))


def snapshot_folder(config: RunConfig, path: Path, size: int) -> SnapshotFolder:
    """The models of a run of ``size`` ranks: those of all ranks, or the servers' alone."""
    return SnapshotFolder(path, config.holders(size))


class Recorder:
    """One rank's snapshots: looks at the clock before the model changes.

    A rank that computed or waited past several marks kept one model over all of them: one file, linked.

    Parameters
    ----------
    folder
        Where to.
    rank
        Whose.
    every
        Seconds between marks; mark m is at ``m * every``.
    limit
        Most marks to keep; when there are more, their distance doubles.
    take
        Copies the model: one array of bytes a region.
    counts
        Says what the rank has done.

    Attributes
    ----------
    missed : set of int
        Marks whose model could not be written; the run goes on, and does without an evaluation there.
    """

    def __init__(
        self,
        folder: SnapshotFolder,
        rank: Rank,
        every: Seconds,
        limit: int,
        take: Callable[[], Sequence[Bytes]],
        counts: Callable[[], Counts],
    ) -> None:
        self._folder, self._rank = folder, rank
        self._every, self._limit = every, limit
        self._take, self._counts = take, counts
        self._latest = 0
        self._marks: list[int] = []
        self._next_at = every
        self.missed: set[int] = set()
        self._complained = False

    def resume(self, seconds: Seconds) -> None:
        """Begin only now: marks that have passed are those of an earlier run."""
        self._latest = int(seconds / self._every)
        self._next_at = (self._latest + 1) * self._every

    def lose(self, rank: Rank) -> None:
        """See :meth:`SnapshotFolder.lose`; it is said if the folder takes nothing any more, and the run goes on."""
        try:
            self._folder.lose(rank)
        except OSError as error:
            self._complain(f"that rank {rank} has died was not noted for the evaluation of a target, the run goes on", error)

    def look(self, seconds: Seconds) -> None:
        """Keep the present model for all marks that have passed; call it before the model changes."""
        if seconds < self._next_at:
            return
        latest = int(seconds / self._every)
        distance = spacing(latest, self._limit)
        self._thin([mark for mark in self._marks if mark % distance])
        self._marks = [mark for mark in self._marks if mark % distance == 0]
        fresh = [mark for mark in kept(latest, self._limit) if mark > self._latest]
        if fresh:
            self._keep(fresh)
        self._latest = latest
        self._next_at = (latest + 1) * self._every

    def _thin(self, marks: Sequence[int]) -> None:
        try:
            for mark in marks:
                self._folder.drop(mark, self._rank)
        except OSError as error:
            self._complain("models of old marks were not removed, the run goes on", error)

    def _keep(self, fresh: Sequence[int]) -> None:
        try:
            self._folder.write(fresh[0], self._rank, self._counts(), self._take())
            self._marks.append(fresh[0])
            for mark in itertools.islice(fresh, 1, None):
                self._folder.link(fresh[0], self._rank, mark)
                self._marks.append(mark)
        except OSError as error:
            self._complain("the model of a mark was not kept, the run goes on without an evaluation there", error)
            self.missed.update(set(fresh).difference(self._marks))

    def _complain(self, what: str, error: OSError) -> None:
        # Once for all: a disk that refuses one of these refuses the others, mark after mark.
        if not self._complained:
            _LOG.warning("%s: %s: %s", self._folder.path, what, error.strerror or error)
        self._complained = True

    def end(self, seconds: Seconds) -> None:
        """Keep the last model, for itself and for all later marks.

        Raises
        ------
        ConsensusError
            If it cannot be written.
        """
        self.look(seconds)
        try:
            self._folder.write(None, self._rank, self._counts(), self._take())
        except OSError as error:
            raise ConsensusError(
                f"rank {self._rank} has trained to the end, but cannot keep its last model in {self._folder.path} "
                f"({error.strerror or error}); make room there, and go on from a checkpoint if there is one: --resume latest"
            ) from error
