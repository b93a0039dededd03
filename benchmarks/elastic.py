"""(i) What ElasticBSP makes of the workers' time: iterations a second by how far ahead it looks, timing alone, simulated."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from benchmarks.jobs import say
from benchmarks.markdown import table, verdict
from benchmarks.simulated.served import INSTANT
from consensus.rules.serving import build_server
from consensus.sim.kernel import Kernel
from consensus.sim.served import ServedNetwork
from consensus.timing import ComputeTime
from consensus.types import Rank, Seconds

System = tuple[int, float, float]
"""Workers; how much longer the slowest one's step is than the fastest one's 1 s; the mean of the noise, relative to the step."""

AHEAD = (15, 60, 240)

PUBLISHED: Mapping[System, tuple[float, ...]] = MappingProxyType(
    {
        (4, 1.5, 0.02): (2.61, 3.15, 3.16, 3.17, 3.21),
        (4, 1.0, 0.3): (2.46, 2.69, 2.63, 2.53, 3.08),
        (16, 1.5, 0.02): (10.42, 12.11, 12.45, 12.50, 12.74),
        (16, 1.5, 0.3): (6.11, 8.04, 8.11, 8.19, 10.00),
    }
)
"""Iterations a second in another simulation, written for the design: BSP, R of :data:`AHEAD`, and nobody waits."""

NEAR = 0.05
"""Ours should be no further from them than this."""


@dataclass(frozen=True)
class Noisy(ComputeTime):
    """Steps of base (1 + noise Exp(1)) seconds, the workers' bases evenly spaced from 1 to ``slowest``."""

    workers: int
    slowest: float
    noise: float

    def base(self, rank: Rank) -> Seconds:
        """The shortest step of worker ``rank``, counted from 1."""
        return 1.0 + (self.slowest - 1.0) * (rank - 1) / (self.workers - 1)

    def draws(self, rank: Rank, generator: np.random.Generator) -> Iterator[Seconds]:
        while True:
            yield self.base(rank) * (1.0 + self.noise * generator.exponential())

    def most(self) -> float:
        """Iterations a second of all workers if nobody waits.

        Examples
        --------
        >>> Noisy(workers=4, slowest=1.0, noise=0.0).most()
        4.0
        """
        return sum(1.0 / (self.base(rank) * (1.0 + self.noise)) for rank in range(1, self.workers + 1))


@dataclass(frozen=True)
class Scale:
    """How much is simulated: iterations of all workers together if nobody waited, with every seed."""

    iterations: int = 16_000
    seeds: tuple[int, ...] = (1, 2)
    systems: tuple[System, ...] = tuple(PUBLISHED)


QUICK = Scale(iterations=3_000, seeds=(1, 2), systems=((4, 1.5, 0.02), (16, 1.5, 0.3)))


def throughput(system: System, seed: int, iterations: int, name: str, **parameters: Any) -> float:
    """Iterations a second of a rule, in the time that so many of all workers would take if nobody waited."""
    times, kernel = Noisy(*system), Kernel()
    network = ServedNetwork(
        build_server(name, **parameters),
        [times.stream(rank, seed) for rank in range(1, system[0] + 1)],
        INSTANT,
        stop=lambda rank, round: False,
        push="pull",
        kernel=kernel,
    )
    until = iterations / times.most()
    network.run(until)
    return sum(network.engine.view.iterations.values()) / until


def run(scale: Scale) -> dict[str, Any]:
    """Simulate; what comes out is a function of ``scale`` alone."""
    rows = []
    for system in scale.systems:
        say(f"elastic: {system[0]} workers, bases up to {system[1]}, noise {system[2]}")
        rules: list[tuple[str, dict[str, Any]]] = [("bsp", {})]
        rules += [("elastic", {"R": ahead, "objective": objective}) for objective in ("spread", "rate") for ahead in AHEAD]
        rules.append(("asp", {}))
        for name, parameters in rules:
            paces = [throughput(system, seed, scale.iterations, name, **parameters) for seed in scale.seeds]
            rows.append({"system": system, "rule": name, **parameters, "paces": paces})
    return {"mpi": "without MPI", "rows": rows}


def _error(paces: list[float]) -> float:
    error: float = statistics.stdev(paces) / len(paces) ** 0.5
    return error


def report(result: dict[str, Any]) -> str:
    """The table, in Markdown."""
    lines = []
    for system in dict.fromkeys(tuple(row["system"]) for row in result["rows"]):
        rows = [row for row in result["rows"] if tuple(row["system"]) == system]
        told = dict(zip(("bsp", *AHEAD, "asp"), PUBLISHED[system], strict=True))
        for row in rows:
            ahead, pace = row.get("R"), statistics.fmean(row["paces"])
            expected = told[ahead or row["rule"]] if row.get("objective") != "rate" else None
            off = None if expected is None else f"{pace / expected - 1:+.1%}: {verdict(abs(pace / expected - 1) <= NEAR)}"
            words = row["rule"] if ahead is None else f"elastic, R = {ahead}, {row['objective']}"
            spread = f"{system[0]} workers, 1 to {system[1]:g} s, noise {system[2]:g}"
            lines.append([spread, words, f"{pace:.2f} ± {_error(row['paces']):.2f}", expected, off])
    return table(["system", "rule", "iterations a second", "the design's", "off, at most 5%"], lines)
