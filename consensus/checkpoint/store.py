"""A rank's way to its checkpoints; :mod:`consensus.checkpoint` says why it is done so."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from contextlib import suppress
from os import PathLike
from pathlib import Path
from typing import Any

from consensus.checkpoint.atomic import sync_folder
from consensus.checkpoint.file import Header, read_checkpoint, verify, write_checkpoint
from consensus.checkpoint.folder import CheckpointFolder, CheckpointSet, Moment
from consensus.checkpoint.manifest import named_sets, update_manifest
from consensus.checkpoint.pending import PENDING, obtainable, superfluous
from consensus.errors import CheckpointError, ConfigError, ProtocolError
from consensus.types import Rank, Round, Seconds

_LOG = logging.getLogger("consensus")


class Store:
    """One rank's checkpoints.

    Parameters
    ----------
    folder
        That all ranks see; made with the first checkpoint.
    rank, size
        Whose, of how many.
    keep
        How many complete sets stay; with 2, a damaged file costs one interval and not the run.
    start
        Which start of the run this is, the same at all ranks and one more than :func:`latest_start` found before any wrote.
    run
        Name of the run, for the manifest.

    Raises
    ------
    ConfigError
        If a number is out of range.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     stores = [Store(folder, rank, 2) for rank in range(2)]
    ...     _ = stores[0].write(1, {"rounds": 100})
    ...     print(stores[0].newest())
    ...     _ = stores[1].write(1, {"rounds": 98})
    ...     print(stores[0].newest())
    ...     stores[0].read(stores[0].newest(), 1)
    None
    checkpoint-0001-00000001
    {'rounds': 98}
    """

    def __init__(
        self, folder: str | PathLike[str], rank: Rank, size: int, keep: int = 2, *, start: int = 1, run: str = ""
    ) -> None:
        for name, value, least in (("size", size, 1), ("keep", keep, 1), ("start", start, 1)):
            if value < least:
                raise ConfigError(f"{name} = {value}, expected at least {least}")
        if not 0 <= rank < size:
            raise ConfigError(f"rank = {rank}, expected 0 to {size - 1}")
        self._folder = CheckpointFolder(Path(folder))
        self._rank, self._size, self._keep = rank, size, keep
        self._start, self._run = start, run
        self._over = self._failing = False

    def write(
        self,
        number: int,
        state: object,
        *,
        rounds: Round = 0,
        seconds: Seconds = 0.0,
        lost: Collection[Rank] = (),
        last: bool = False,
    ) -> bool:
        """Write this rank's part of a set; complete sets that are too many are dropped if that completes one.

        Parameters
        ----------
        number
            From :class:`consensus.checkpoint.due.Due`, higher than the one before.
        state
            See :func:`consensus.checkpoint.plain.encoded`. It must not change meanwhile.
        rounds, seconds
            Where the rank is, for the manifest.
        lost
            Ranks known to be dead: a set is complete without them.
        last
            Whether the rank writes nothing after this: it stands for it in all sets of this number and above.

        Returns
        -------
        bool
            Whether it was written. If not (disk full, read-only ...), a warning has been logged, one until it succeeds again, and
            all older sets are as they were.

        Raises
        ------
        CheckpointError
            If the state holds what no checkpoint can.
        ProtocolError
            If the last one was written before.
        ConfigError
            If the number is below 0.
        """
        if self._over:
            raise ProtocolError(f"rank {self._rank} writes checkpoint {number} after its last one; expected none")
        if number < 0:
            raise ConfigError(f"number = {number}, expected at least 0, as Due.number() gives")
        moment = Moment(self._start, number)
        path = self._folder.last_file(self._start, self._rank) if last else self._folder.file(moment, self._rank)
        header = Header(
            self._start, number, self._rank, self._size, self._run, rounds, seconds, last=last, lost=tuple(sorted({*lost}))
        )
        try:
            if not path.parent.is_dir():
                path.parent.mkdir(parents=True, exist_ok=True)
                sync_folder(path.parent.parent)
            write_checkpoint(path, header, state)
        except OSError as error:
            if not last:
                # On a disk that stays full each set would leave an empty folder. Others may be about to write into this one, but
                # the set is lost without this rank.
                with suppress(OSError):
                    path.parent.rmdir()
            self._complain(f"{path}: no checkpoint was written", error)
            return False
        self._over = last
        try:
            self._tidy(moment, last)
        except OSError as error:
            self._complain(f"{self._folder.path}: the list of checkpoints is not up to date, or old ones were not removed", error)
        else:
            self._failing = False
        return True

    def newest(self) -> Moment | None:
        """The newest set that is complete and undamaged, of whatever start and size; None if there is none.

        All its files are read, so let one rank ask and tell the others. What is damaged is passed over with a warning that names
        the file.

        Raises
        ------
        CheckpointError
            If the folder cannot be looked into.
        """
        try:
            named = named_sets(self._folder.path)
            for found in self._folder.sets():
                if found.complete and (error := _first_damage(found)) is None:
                    return found.moment
                elif found.complete:
                    reason = str(error)
                elif found.problems:
                    others = len(found.problems) - 1
                    reason = str(found.problems[0]) + (f" (and {others} more)" if others else "")
                elif found.moment in named:
                    files = ", ".join(self._folder.file(found.moment, rank).name for rank in found.missing)
                    reason = f"it was complete, and {files} vanished"
                else:
                    _LOG.debug("%s: never completed, ranks %s are missing", found.moment, found.missing)
                    continue
                _LOG.warning("%s is not used: %s", self._folder.path / str(found.moment), reason)
        except OSError as error:
            raise _unreadable(self._folder.path, error) from error
        return None

    def headers(self, moment: Moment) -> Mapping[Rank, Header]:
        """Which ranks have a part in a set, and what its header says: their number, rounds, who was dead, who had ended."""
        return {rank: member.header for rank, member in sorted(self._folder.find(moment).members.items())}

    def read(self, moment: Moment, rank: Rank) -> Any:
        """A rank's state, tensors in host memory.

        Raises
        ------
        CheckpointError
            If the set has no file of this rank, or the file is damaged.
        """
        found = self._folder.find(moment, only=rank)
        if rank in found.members:
            return read_checkpoint(found.members[rank].path)[1]
        if found.problems:
            raise found.problems[0]
        path = self._folder.file(moment, rank)
        raise CheckpointError(f"{path}: missing, nor is there a last one of the rank; headers() says which ranks the set has")

    def _tidy(self, moment: Moment, last: bool) -> None:
        # A last file may complete sets of higher numbers too.
        if last or self._folder.find(moment).complete:
            kept = update_manifest(self._folder.path, lambda: self._complete()[: self._keep])
            if kept:
                self._folder.prune([found.moment for found in kept])
        else:
            self._thin()

    def _complete(self) -> list[CheckpointSet]:
        return [found for found in self._folder.sets() if found.complete]

    def _thin(self) -> None:
        """Bound the files that wait for a rank that lags, or never comes."""
        holders = self._folder.holders(self._start)
        own = [number for number, ranks in holders.items() if self._rank in ranks]
        if len(own) <= self._keep + PENDING:
            return
        complete = self._complete()
        pending = [number for number in own if not complete or (self._start, number) > complete[0].moment]
        ended = self._folder.ended(self._start)
        promised = next((number for number in sorted(pending) if obtainable(number, holders, ended, self._size)), None)
        for number in superfluous(pending, PENDING, promised):
            # The folder stays: another rank may be about to write into it.
            self._folder.file(Moment(self._start, number), self._rank).unlink(missing_ok=True)

    def _complain(self, what: str, error: OSError) -> None:
        if not self._failing:
            _LOG.warning("%s (%s); training goes on, older checkpoints stay as they are", what, error.strerror or error)
        self._failing = True


def latest_start(folder: str | PathLike[str]) -> int:
    """Number of the last start of a run that wrote a checkpoint; 0 if none did.

    Raises
    ------
    CheckpointError
        If the folder cannot be looked into.
    """
    try:
        return max(CheckpointFolder(Path(folder)).starts(), default=0)
    except OSError as error:
        raise _unreadable(folder, error) from error


def _first_damage(found: CheckpointSet) -> CheckpointError | None:
    for _, member in sorted(found.members.items()):
        try:
            verify(member.path)
        except CheckpointError as error:
            return error
    return None


def _unreadable(folder: str | PathLike[str], error: OSError) -> CheckpointError:
    return CheckpointError(f"{folder}: cannot be looked into ({error.strerror or error}); check that you may read it")
