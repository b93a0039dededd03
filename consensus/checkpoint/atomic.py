"""Files that are there as a whole or not at all, after a crash too."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

TEMPORARY = ".tmp"
"""How the names of files end that are being written, or were when their writer was killed."""


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Write ``path`` anew: a file to write to, which takes its place when the block ends well.

    The name in between is drawn: two processes that take themselves for the same rank do not write into one file.

    Raises
    ------
    OSError
        If it cannot be written. What was at ``path`` is still there then, and what was written is removed if possible.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with replacing(Path(folder) / "words") as file:
    ...         _ = file.write(b"all of them")
    ...     [(path.name, path.read_bytes()) for path in Path(folder).iterdir()]
    [('words', b'all of them')]
    """
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}{TEMPORARY}")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def sync_folder(path: Path) -> None:
    """Make what was created, renamed and removed in a folder last."""
    number = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(number)
    except OSError as error:
        # Some network file systems cannot, and keep names safe by themselves.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(number)
