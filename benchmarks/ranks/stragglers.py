"""One seed of the straggler benchmark: all rules one after the other, in the same processes."""

from __future__ import annotations

import gc
import math
import sys
import tempfile
from collections.abc import Mapping
from typing import Any

from benchmarks.ranks import ddp
from benchmarks.ranks.entry import Specification, serve
from benchmarks.ranks.gloo import process_group
from consensus import config as run_files
from consensus.config import RunConfig
from consensus.run.experiment import run
from consensus.run.results import Metrics, read_metrics, seconds_to
from consensus.transport.base import Transport
from consensus.transport.mpi import MpiTransport
from consensus.transport.straggler import StragglerTransport
from consensus.types import Seconds


def measure(specification: Specification) -> dict[str, Any]:
    """By rule: seconds to accuracies, steps of all ranks, and the curve."""
    transport = MpiTransport()
    common, data_dir = specification["settings"], specification["data_dir"]
    rules: Mapping[str, list[str] | None] = specification["rules"]
    results = {}
    with process_group(), tempfile.TemporaryDirectory(prefix="benchmark-runs-") as own:
        out = transport.gather(own)[0]
        for name, settings in rules.items():
            chosen = run_files.load(specification["file"], [*common, f"run.out={out}", *(settings or [])], data_dir)
            metrics = _with_ddp(chosen, transport) if settings is None else _with_ours(chosen, transport)
            results[name] = _row(metrics, chosen.run.stop.seconds or math.inf)
            gc.collect()
            if transport.rank == 0:
                reached = ", ".join(f"{accuracy} at {s:g} s" for accuracy, s in results[name]["targets"].items() if s is not None)
                print(f"  {name}: {results[name]['steps']} steps; {reached}", file=sys.stderr, flush=True)
        transport.gather(None)
    return {"rules": results}


def _with_ours(config: RunConfig, transport: Transport) -> list[Metrics]:
    return read_metrics(run(config, transport))


def _with_ddp(config: RunConfig, transport: Transport) -> list[Metrics]:
    stragglers = config.stragglers.build()
    paced = transport if stragglers is None else StragglerTransport(transport, stragglers.stream(transport.rank, config.run.seed))
    return ddp.train(config, paced)


def _row(metrics: list[Metrics], limit: Seconds) -> dict[str, Any]:
    # A slow last step ends after the limit, and what was reached by then is not counted for anybody.
    lines = [line for line in metrics if line.seconds <= limit]
    return {
        "targets": seconds_to(lines),
        "steps": lines[-1].rounds,
        "curve": [[round(line.seconds, 3), round(line.accuracy, 4)] for line in lines],
    }


if __name__ == "__main__":
    serve(measure)
