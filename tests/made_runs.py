"""Made-up runs, of which everything is known: rings that exchange in step, and their folders."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from consensus import config
from consensus.trace import FORMAT, VERSION, Trace, TracedRound
from consensus.types import Edge, Rank, Round, Seconds

COMPUTE = 0.010
TRANSFER = 0.002
MIX = 0.001
STARTED = 1.7e9

CONFIG = """
[run]
name = "made"
ranks = {ranks}
stop = {{ rounds = 100 }}
[topology]
kind = "ring"
[rule]
name = "{rule}"
"""


def ring(n: int) -> list[Edge]:
    """Its edges, lower rank first."""
    return sorted({(min(i, (i + 1) % n), max(i, (i + 1) % n)) for i in range(n)})


def in_step(
    n: int = 4,
    rounds: int = 41,
    compute: Callable[[Rank, Round], Seconds] = lambda rank, k: COMPUTE,
    transfer: Callable[[Edge, Round], Seconds] = lambda edge, k: TRANSFER,
    unused: Callable[[Round], Collection[Edge]] = lambda k: (),
) -> list[Trace]:
    """Traces of a ring whose ranks all close a round before the next begins; a round uses the edges that are not ``unused``."""
    found: list[list[TracedRound]] = [[] for _ in range(n)]
    edges, now = ring(n), 0.0
    for k in range(1, rounds + 1):
        opened = [now + compute(rank, k) for rank in range(n)]
        agreed = {edge: max(opened[end] for end in edge) for edge in edges if edge not in unused(k)}
        complete = {edge: when + transfer(edge, k) for edge, when in agreed.items()}
        closed = max(complete.values(), default=max(opened))
        for rank in range(n):
            own = [edge for edge in agreed if rank in edge]
            exchanges = tuple((sum(edge) - rank, k, agreed[edge], complete[edge]) for edge in own)
            backups = tuple(sum(edge) - rank for edge in edges if rank in edge and edge not in agreed)
            wait = closed - opened[rank]
            found[rank].append(
                TracedRound(k, opened[rank], closed + MIX, opened[rank] - now, wait, MIX, exchanges, backups, "all were there")
            )
        now = closed + MIX
    return [Trace(rank, STARTED, lines) for rank, lines in enumerate(found)]


def header(trace: Trace) -> str:
    """A trace file's first line."""
    clock = {"unit": "seconds", "started": trace.started}
    return json.dumps({"format": FORMAT, "version": VERSION, "rank": trace.rank, "clock": clock}) + "\n"


def line(record: TracedRound) -> str:
    """A line of a trace file."""
    return json.dumps({name: getattr(record, name) for name in TracedRound.__slots__}) + "\n"


def write_trace(folder: Path, trace: Trace) -> Path:
    """Write a trace file as a rank does."""
    path = folder / f"trace-{trace.rank}.jsonl"
    path.write_text(header(trace) + "".join(map(line, trace.rounds)), encoding="utf-8")
    return path


def metrics(k: int) -> dict[str, Any]:
    """A line of metrics.jsonl."""
    return {
        "seconds": 0.1 * k,
        "samples": 1000 * k,
        "rounds": 40 * k,
        "accuracy": 1 - 0.5**k,
        "loss": 2 * 0.5**k,
        "consensus_distance": 0.1,
        "mean_backups": 0.5,
    }


def summary(traces: Sequence[Trace], rule: str, **more: Any) -> dict[str, Any]:
    """A summary.json."""
    return {
        "name": "made",
        "rule": {"name": rule},
        "ranks": len(traces),
        "started": "2026-01-02T03:04:05+00:00",
        "ended": "rounds",
        "wall_seconds": max(trace.rounds[-1].closed for trace in traces),
        "samples": 5000,
        "rounds": [len(trace.rounds) for trace in traces],
        "final": {"accuracy": 0.96875, "loss": 0.0625},
        "consensus_distance": 0.1,
        "versions": {"consensus": "9.8.7", "mpi": None},
        **more,
    }


def write_run(folder: Path, traces: Sequence[Trace], *, rule: str = "full", finished: bool = True, **more: Any) -> Path:
    """The folder of a run; ``more``: into its summary."""
    folder.mkdir(parents=True)
    resolved = config.loads(CONFIG.format(ranks=len(traces), rule=rule))
    (folder / "config.toml").write_text(config.dumps(resolved), encoding="utf-8")
    for trace in traces:
        write_trace(folder, trace)
    if finished:
        lines = "".join(json.dumps(metrics(k)) + "\n" for k in range(1, 6))
        (folder / "metrics.jsonl").write_text(lines, encoding="utf-8")
        (folder / "summary.json").write_text(json.dumps(summary(traces, rule, **more)), encoding="utf-8")
    return folder
