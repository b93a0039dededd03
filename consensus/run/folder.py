"""The folder of a run: made by rank 0, known to all."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from consensus import config as run_files
from consensus.config import RunConfig
from consensus.errors import ConfigError, DeadRanks
from consensus.transport.base import Transport

SNAPSHOTS = "snapshots"
"""The folder in it that is there only during the run."""


def agree_on_folder(config: RunConfig, transport: Transport, started: datetime) -> Path:
    """Make ``NAME-YYYYmmdd-HHMMSS`` in ``run.out``, with the resolved configuration in it. Collective.

    Raises
    ------
    ConfigError
        On all ranks, if it cannot be made, or a rank does not see it.
    DeadRanks
        If rank 0 has died.
    """
    made: str | ConfigError | None = None
    if transport.rank == 0:
        try:
            made = str(make_folder(config, transport.size, started, SNAPSHOTS))
        except ConfigError as error:
            made = error
    made = transport.gather(made)[0]
    if 0 not in transport.members:
        raise DeadRanks(f"rank {transport.rank} cannot begin: rank 0, which makes the folder of results, has died; start again")
    if not isinstance(made, str):
        raise made if made is not None else ConfigError("rank 0 made no folder for the results")
    folder = Path(made)
    seen = transport.gather((folder / SNAPSHOTS).is_dir())
    blind = [rank for rank, sees in zip(transport.members, seen, strict=True) if not sees]
    if blind:
        raise ConfigError(
            f"run.out = {config.run.out!r}: ranks {', '.join(map(str, blind))} do not see the folder that rank 0 made; "
            "give one on a file system that all hosts share: --set run.out=FOLDER"
        )
    return folder


def runs_of(config: RunConfig) -> list[Path]:
    """The folders of all runs in ``run.out`` that have the run's name, oldest first.

    The name alone tells: "digits" is the beginning of "digits-big", too, and what is written into a folder later makes its run
    no younger.
    """
    name = re.compile(re.escape(config.run.name) + r"-(\d{8}-\d{6})(?:-(\d+))?")
    root = Path(config.run.out)
    paths = root.iterdir() if root.is_dir() else ()
    found = [(match[1], int(match[2] or 1), path) for path in paths if (match := name.fullmatch(path.name))]
    return [path for *_, path in sorted(found)]


def make_folder(config: RunConfig, size: int, started: datetime, *inside: str) -> Path:
    """Make the folder of a run of ``size`` ranks, with the resolved configuration and the folders ``inside`` in it.

    Raises
    ------
    ConfigError
        If it cannot be made.
    """
    try:
        return _make(config, size, started, inside)
    except OSError as error:
        raise ConfigError(
            f"run.out = {config.run.out!r}: no folder for the results can be made there ({error.strerror or error}); "
            "give one that you may write to: --set run.out=FOLDER"
        ) from error


def _make(config: RunConfig, size: int, started: datetime, inside: Iterable[str]) -> Path:
    root = Path(config.run.out)
    root.mkdir(parents=True, exist_ok=True)
    name = f"{config.run.name}-{started:%Y%m%d-%H%M%S}"
    for number in itertools.count(1):
        folder = root / (name if number == 1 else f"{name}-{number}")
        try:
            folder.mkdir()
        except FileExistsError:
            continue
        break
    for other in inside:
        (folder / other).mkdir()
    resolved = config.model_copy(update={"run": config.run.model_copy(update={"ranks": size})})
    write_atomically(folder / "config.toml", run_files.dumps(resolved))
    return folder


def write_atomically(path: Path, text: str) -> None:
    """Write a file that is never seen half written."""
    with in_place_of(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextmanager
def in_place_of(path: Path) -> Iterator[Path]:
    """A name to write to; the file there takes the place of ``path`` if the block ends well, and is removed if not.

    Unlike :func:`consensus.checkpoint.atomic.replacing` it does not wait for the disk: a crash of the machine may cost the file.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield temporary
        temporary.replace(path)
    except BaseException:
        # On a full disk a part of a model would stand in the way of what comes after it.
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
