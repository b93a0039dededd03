"""Rules with a parameter server, or without one: one after the other in the same processes."""

from __future__ import annotations

import gc
import math
import sys
import tempfile
from typing import Any

from benchmarks.ranks.entry import Specification, serve
from benchmarks.served import row
from consensus import config as run_files
from consensus.run.experiment import run
from consensus.run.results import read_metrics
from consensus.transport.mpi import MpiTransport


def measure(specification: Specification) -> dict[str, Any]:
    """By rule: seconds to accuracies, updates and gradients until the end, mean backups, and the curve."""
    transport = MpiTransport()
    results = {}
    with tempfile.TemporaryDirectory(prefix="benchmark-runs-") as own:
        out = transport.gather(own)[0]
        for name, settings in specification["rules"].items():
            changes = [*specification["settings"], f"run.out={out}", *settings]
            config = run_files.load(specification["file"], changes, specification["data_dir"])
            metrics = read_metrics(run(config, transport))
            makers = 1 if config.serves else transport.size
            results[name] = row(metrics, config.run.stop.seconds or math.inf, config.data.batch, makers)
            gc.collect()
            if transport.rank == 0:
                reached = ", ".join(f"{accuracy} at {s:g} s" for accuracy, s in results[name]["targets"].items() if s is not None)
                print(f"  {name}: {results[name]['updates']} updates; {reached}", file=sys.stderr, flush=True)
        transport.gather(None)
    return {"rules": results}


if __name__ == "__main__":
    serve(measure)
