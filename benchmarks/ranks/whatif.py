"""Runs with traces, one after the other in the same processes."""

from __future__ import annotations

import gc
import sys
from typing import Any

from benchmarks.ranks.entry import Specification, serve
from consensus import config as run_files
from consensus.run.experiment import run
from consensus.transport.mpi import MpiTransport


def measure(specification: Specification) -> dict[str, Any]:
    """The folders of the runs, in order."""
    transport = MpiTransport()
    folders = []
    for number, settings in enumerate(specification["runs"], 1):
        changes = [*specification["settings"], *settings]
        chosen = run_files.load(specification["file"], changes, specification["data_dir"])
        folders.append(str(run(chosen, transport)))
        gc.collect()
        if transport.rank == 0:
            words = f"  run {number} of {len(specification['runs'])}: {chosen.rule.name}, seed {chosen.run.seed}"
            print(words, file=sys.stderr, flush=True)
    transport.gather(None)
    return {"folders": folders}


if __name__ == "__main__":
    serve(measure)
