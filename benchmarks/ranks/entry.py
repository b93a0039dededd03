"""The way into a rank and out of it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from mpi4py import MPI

Specification = dict[str, Any]


def serve(measure: Callable[[Specification], dict[str, Any]]) -> None:
    """Call ``measure`` with the specification on all ranks, and write what it returns on rank 0, with the library's name."""
    given, result = map(Path, sys.argv[1:3])
    torch.set_num_threads(1)
    measured = measure(json.loads(given.read_text(encoding="utf-8")))
    if MPI.COMM_WORLD.rank == 0:
        library = MPI.Get_library_version().strip("\0").split("\n")[0].split(",")[0].strip()
        result.write_text(json.dumps({"mpi": library, **measured}), encoding="utf-8")
