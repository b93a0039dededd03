"""Peak memory of a rank as rounds go by."""

from __future__ import annotations

import resource
import sys
from pathlib import Path
from typing import Any

from mpi4py import MPI
from torch import nn

import consensus
from benchmarks.ranks.entry import Specification, serve
from benchmarks.ranks.network import Still, network
from consensus.transport.edge import WINDOW
from consensus.transport.mpi import MpiTransport

WARM_UP = 20

_KIB = 1 if sys.platform == "darwin" else 1024


def peak() -> int:
    """The most memory this process has had, bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _KIB


def resident(kind: str = "VmRSS", status: Path = Path("/proc/self/status")) -> int | None:
    """What this process has now, bytes; ``RssShmem``: what of it ranks share. None where the system does not say."""
    try:
        lines = status.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{kind}:")), None)


def measure(specification: Specification) -> dict[str, Any]:
    """Bytes by rank: before the model, at each mark, expected."""
    comm = MPI.COMM_WORLD
    transport = MpiTransport()
    how: dict[str, Any] = {"topology": specification["topology"], "rule": specification["rule"], "transport": transport}
    # What is loaded when it is first used (graphs, the MPI library's connections) is there whatever the size of the model.
    _rounds(network((1, 1)), how, WARM_UP)
    comm.Barrier()
    before = resident() or peak()
    model = network(specification["widths"])
    optimizer = Still(model.parameters())
    marks: list[int] = []
    with consensus.attach(model, optimizer, **how) as handle:
        edges = len(handle.engine.view.neighbours)
        chunk = max(data.nbytes for data in handle.flat.chunks)
        for number in range(1, max(specification["rounds"]) + 1):
            optimizer.step()
            if number in specification["rounds"]:
                marks.append(peak())
        model_bytes, shared = handle.flat.nbytes, resident("RssShmem")
        windows = edges * min(WINDOW, len(handle.flat.chunks)) * chunk
    row = {"before": before, "peaks": marks, "model": model_bytes, "windows": windows, "edges": edges, "shared": shared}
    return {"ranks": comm.allgather(row)}


def _rounds(model: nn.Module, how: dict[str, Any], count: int) -> None:
    optimizer = Still(model.parameters())
    with consensus.attach(model, optimizer, **how):
        for _ in range(count):
            optimizer.step()


if __name__ == "__main__":
    serve(measure)
