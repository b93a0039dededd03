"""What ranks tell the command that has started them, by files: the launcher's exit code does not say it.

Open MPI's ends with 0 when it has lost a host and ended all ranks (5.0.11), and not at all when it has lost a host without
noticing, or while one of its ranks is stopped, whatever has become of the others.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple


class Receipts(NamedTuple):
    """Files that ranks make.

    Attributes
    ----------
    done : Path
        When the results are there.
    failed : Path
        When one of them ends with an error.
    """

    done: Path
    failed: Path


@contextmanager
def receipts(folder: Path, name: str) -> Iterator[Receipts]:
    """Files of new names among the results, where all hosts see them; they are gone afterwards."""
    stem = f".{name}-{uuid.uuid4().hex}"
    made = Receipts(folder.absolute() / stem, folder.absolute() / f"{stem}-failed")
    try:
        yield made
    finally:
        for path in made:
            path.unlink(missing_ok=True)
