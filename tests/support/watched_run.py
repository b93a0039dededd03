"""``consensus run FILE --resume latest`` as a rank that says after every step where it is; see tests/stress_resume.py.

The arguments are the run file and a folder, in which each rank has a file that the next step overwrites.
"""

from __future__ import annotations

import mmap
import os
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeAlias

from consensus.cli import main as command
from consensus.run.checkpoints import Checkpoints
from consensus.types import Seconds

Write: TypeAlias = Callable[[Checkpoints, int, int, Seconds], None]

_PLACE = struct.Struct("=3q")


class Place(NamedTuple):
    """Where a rank is: its process, the rounds it has closed, and the samples it has processed."""

    pid: int
    rounds: int
    samples: int


def places(folder: Path) -> dict[int, Place]:
    """Where all ranks are that have taken a step."""
    written = {int(path.name): path.read_bytes().ljust(_PLACE.size, b"\0") for path in folder.iterdir()}
    found = {rank: Place(*_PLACE.unpack(data)) for rank, data in written.items()}
    return {rank: place for rank, place in found.items() if place.pid}


def main() -> None:
    """Be that rank."""
    file, folder = sys.argv[1:]
    with (Path(folder) / os.environ["OMPI_COMM_WORLD_RANK"]).open("w+b") as stream:
        stream.truncate(_PLACE.size)
        here = mmap.mmap(stream.fileno(), _PLACE.size)

    def told(original: Write) -> Write:
        def write(self: Checkpoints, steps: int, samples: int, seconds: Seconds) -> None:
            _PLACE.pack_into(here, 0, os.getpid(), self._handle.statistics.rounds, samples)
            original(self, steps, samples, seconds)

        return write

    Checkpoints.look = told(Checkpoints.look)  # type: ignore[assignment, method-assign]
    Checkpoints.end = told(Checkpoints.end)  # type: ignore[assignment, method-assign]
    sys.argv = ["consensus", "run", file, "--quiet", "--resume", "latest"]
    command()
