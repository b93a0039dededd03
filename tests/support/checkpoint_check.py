"""Whether checkpoints are what their manifest says."""

from __future__ import annotations

from pathlib import Path

from consensus.checkpoint.folder import Moment
from consensus.checkpoint.manifest import named_sets
from consensus.checkpoint.store import Store
from consensus.errors import CheckpointError
from consensus.types import Rank


def damages(folder: Path) -> list[str]:
    """What is wrong with the sets that the manifest in ``folder`` names: each has to be complete, and to read back whole."""
    store, wrong = Store(folder, 0, 1), []
    for moment in sorted(named_sets(folder)):
        try:
            states(folder, moment)
        except CheckpointError as error:
            wrong.append(f"{moment}: {error}")
    if named_sets(folder) and store.newest() is None:
        wrong.append(f"{folder}: none of its sets is found")
    return wrong


def states(folder: Path, moment: Moment) -> dict[Rank, dict[str, int]]:
    """The counts in a set's files, by rank; each file is read whole.

    Raises
    ------
    CheckpointError
        If a file is missing or damaged.
    """
    store = Store(folder, 0, 1)
    headers = store.headers(moment)
    size = max((header.size for header in headers.values()), default=0)
    lost = {rank for header in headers.values() for rank in header.lost}
    if missing := set(range(size)) - headers.keys() - lost or not headers:
        raise CheckpointError(f"{folder / str(moment)}: no file of ranks {missing}")
    return {rank: store.read(moment, rank) for rank in headers}
