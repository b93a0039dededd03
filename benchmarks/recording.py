"""(d) What recording of events adds to a round: the events of real engines, recorded once more with a stop-watch."""

from __future__ import annotations

import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import consensus
from benchmarks.jobs import say
from benchmarks.markdown import table, verdict
from benchmarks.ranks.network import Still
from benchmarks.stats import spread
from consensus.protocol.commands import Command, StartStep
from consensus.protocol.events import Event
from consensus.protocol.neighbour import NeighbourEngine
from consensus.protocol.rounds import RoundRecord
from consensus.recording.writer import MIB, EventWriter
from consensus.rules import build as build_rule
from consensus.timing import Transient
from consensus.topology import build
from consensus.transport import loopback
from consensus.transport.base import Transport
from consensus.transport.straggler import StragglerTransport

TARGET = 0.02
"""Of a round that takes :data:`ROUND` seconds."""

ROUND = 0.005

_Told = tuple[float, Event, list[Command]]


@dataclass(frozen=True)
class Scale:
    """How much is measured: (topology, ranks, rule) of the cases, rounds in a pass, and passes."""

    cases: tuple[tuple[str, int, str], ...] = (
        ("ring", 8, "full"),
        ("ring", 8, "dtur"),
        ("torus", 16, "full"),
        ("torus", 16, "dtur"),
        ("complete", 8, "full"),
        ("complete", 8, "dtur"),
    )
    rounds: int = 500
    passes: int = 25


QUICK = Scale(cases=(("ring", 8, "full"), ("torus", 16, "dtur")), rounds=100, passes=7)


class Collector:
    """In place of a writer: keeps what rank 0's engine was told, in parts that each end with a round."""

    def __init__(self) -> None:
        self.rounds: list[tuple[list[_Told], RoundRecord]] = []
        self._told: list[_Told] = []

    def begin(self, engine: NeighbourEngine, **made_with: Any) -> None:
        self._engine = engine

    def record(self, now: float, event: Event, commands: list[Command]) -> None:
        self._told.append((now, event, commands))
        if any(type(command) is StartStep for command in commands):
            last = self._engine.last
            assert last is not None
            self.rounds.append((self._told, last))
            self._told = []


def collect(topology: str, ranks: int, rule: str, rounds: int) -> Collector:
    """What happens to rank 0 on the in-process twin, with a slow step in twenty."""

    def train(transport: Transport) -> Collector:
        collector = Collector()
        model = torch.nn.Linear(1, 1)
        still = Still(model.parameters())
        slowed = StragglerTransport(transport, Transient(0.005, 0.05, 10).stream(transport.rank, 1))
        recorder: Any = collector
        with consensus.attach(model, still, topology=topology, rule=rule, transport=slowed, recorder=recorder):
            for _ in range(rounds):
                still.step()
        return collector

    return loopback.run(ranks, train)[0]


def run(scale: Scale) -> dict[str, Any]:
    """Measure; in this process alone."""
    cases = []
    for topology, ranks, rule in scale.cases:
        say(f"recording: {topology} of {ranks} ranks, {rule}")
        collected = collect(topology, ranks, rule, scale.rounds)
        graph = build(topology, ranks)
        engine = NeighbourEngine(0, {rank: tuple(graph[rank]) for rank in graph}, build_rule(rule))
        passes = [_pass(collected, engine) for _ in range(scale.passes)]
        cases.append(
            {
                "topology": topology,
                "ranks": ranks,
                "rule": rule,
                "edges": len(engine.view.neighbours),
                "events": sum(len(told) for told, _ in collected.rounds) / len(collected.rounds),
                "seconds": [seconds for seconds, _ in passes],
                "bytes": passes[0][1],
            }
        )
    return {"mpi": "without MPI", "cases": cases}


def _pass(collected: Collector, engine: NeighbourEngine) -> tuple[float, float]:
    """Processor seconds and bytes per round, of recording it all once, file included."""
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder, EventWriter(Path(folder) / "events-0.bin") as writer:
        writer.begin(engine)
        record = writer.record
        began = time.process_time()
        for told, last in collected.rounds:
            engine.last = last  # complete from the round's first event on; only its end is looked at
            for now, event, commands in told:
                record(now, event, commands)
        took = time.process_time() - began
        writer.close()
        return took / len(collected.rounds), writer.bytes_written / len(collected.rounds)


def report(result: dict[str, Any]) -> str:
    """The table, in Markdown."""
    rows = []
    for case in result["cases"]:
        seconds = statistics.median(case["seconds"])
        low, _, high = spread([1e6 * each for each in case["seconds"]])
        rows.append(
            [
                f"{case['topology']} of {case['ranks']}, {case['rule']}",
                case["edges"],
                f"{case['events']:.1f}",
                f"{1e6 * seconds / case['events']:.2f}",
                f"{1e6 * seconds:.1f} ({low:.1f} to {high:.1f})",
                f"{seconds / ROUND:.2%}",
                verdict(seconds / ROUND <= TARGET),
                f"{seconds / 0.001:.1%}",
                f"{case['bytes']:.0f}",
                f"{64 * MIB / case['bytes'] / 1000:.0f}",
            ]
        )
    header = [
        "graph, rule", "edges", "events a round", "µs an event", "µs a round (quartiles)", "of 5 ms", f"<= {TARGET:.0%}",
        "of 1 ms", "bytes a round", "thousand rounds in 64 MiB",
    ]  # fmt: skip
    return table(header, rows)
