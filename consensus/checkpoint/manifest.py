"""The summary of a folder of checkpoints: which sets are complete, of when, of how many ranks.

A rank that is killed while it writes one leaves a temporary file of some hundred bytes, which nobody reads.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from consensus.checkpoint.atomic import replacing
from consensus.checkpoint.folder import CheckpointSet, Moment

MANIFEST = "manifest.json"
"""Its name."""

_FORMAT = 1


def update_manifest(folder: Path, complete: Callable[[], Sequence[CheckpointSet]]) -> list[CheckpointSet]:
    """Write what is complete, until what is written is what is there.

    Parameters
    ----------
    folder
        Of the checkpoints.
    complete
        Looks for the sets to name, newest first.

    Returns
    -------
    list of CheckpointSet
        The sets named.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    path = folder / MANIFEST
    while True:
        sets = list(complete())
        content = (json.dumps({"format": _FORMAT, "sets": [_row(found) for found in sets]}, indent=1) + "\n").encode()
        # Looked at after the own rename too: another rank, slower between looking and renaming, may have put back an older list.
        if _content(path) == content:
            return sets
        with replacing(path) as file:
            file.write(content)


def named_sets(folder: Path) -> set[Moment]:
    """The sets that the manifest names; none if there is no manifest or it is damaged: the files themselves are the truth."""
    # What may be wrong with foreign bytes: no file, no UTF-8, no JSON, other types, other keys.
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        return {Moment(int(row["start"]), int(row["number"])) for row in json.loads((folder / MANIFEST).read_bytes())["sets"]}
    return set()


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _row(found: CheckpointSet) -> dict[str, Any]:
    rounds = [header.rounds for header in found.headers]
    seconds = [header.seconds for header in found.headers]
    return {
        "folder": str(found.moment),
        "start": found.moment.start,
        "number": found.moment.number,
        "run": found.headers[0].run,
        "size": found.size,
        "lost": found.lost,
        "rounds": {"least": min(rounds), "most": max(rounds)},
        "seconds": {"least": min(seconds), "most": max(seconds)},
    }
