"""Finding and opening a data set's files below the folder that a user named."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from consensus.errors import DataError


def require_folder(data_dir: Path | None, contents: str) -> Path:
    """The data folder, which must have been named and be there.

    Parameters
    ----------
    data_dir
        What the user named, if anything.
    contents
        What the folder should hold and where that comes from, for the message.

    Returns
    -------
    Path

    Raises
    ------
    DataError
        If no folder was named, or it does not exist, or it is a file.
    """
    if data_dir is None:
        raise DataError(f"no data folder given; pass --data-dir DIR (in a run file: data.dir), where DIR holds {contents}")
    if not data_dir.is_dir():
        state = "is not a folder" if data_dir.exists() else "does not exist"
        raise DataError(f"data folder {data_dir} {state}; pass --data-dir DIR, where DIR holds {contents}")
    return data_dir


def read_bytes(path: Path) -> bytes:
    """All of a file.

    Raises
    ------
    DataError
        If it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check that it is there and that you may read it") from error


def find_file(folders: Sequence[Path], names: Iterable[str]) -> Path | None:
    """The first of ``names`` that exists, looking through the folders in order; None if there is none."""
    choices = list(names)
    return next((path for folder in folders for name in choices if (path := folder / name).is_file()), None)


def listing(folder: Path, most: int = 6) -> str:
    """What a folder holds, for a message: a few names, or that it is empty."""
    names = sorted(path.name for path in folder.iterdir())
    if not names:
        return "it is empty"
    return "it holds " + ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
