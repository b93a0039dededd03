"""(a) How much processor time the framework itself takes, with a model so small that nothing else counts."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Any

from benchmarks.jobs import launch, say
from benchmarks.markdown import table, verdict
from benchmarks.sizes import MODELS

TARGET = 150.0
"""Microseconds per rank and round, without the pauses between looks for messages."""

SIZE = "0.01 M"


@dataclass(frozen=True)
class Scale:
    """How much is measured: (topology, ranks) of the cases, and seconds for each."""

    cases: tuple[tuple[str, int], ...] = (("ring", 2), ("ring", 4), ("ring", 8), ("torus", 8), ("torus", 16))
    seconds: float = 6.0


QUICK = Scale(cases=(("ring", 2), ("torus", 8)), seconds=2.0)


def run(scale: Scale) -> dict[str, Any]:
    """Measure; one MPI job a case."""
    cases = []
    mpi = ""
    for topology, ranks in scale.cases:
        say(f"cpu: {topology} of {ranks} ranks")
        specification = {"widths": MODELS[SIZE], "topology": topology, "seconds": scale.seconds}
        result = launch("cpu", ranks, specification, limit=20 * scale.seconds + 180)
        mpi = result.pop("mpi")
        cases.append({"topology": topology, "ranks": ranks, **result})
    return {"mpi": mpi, "cases": cases}


@dataclass(frozen=True)
class Cost:
    """One case, microseconds of processor time per rank and round.

    ``everything`` is what attaching adds, pauses included; ``busy`` is the same without them; ``parts`` are the accounts that
    ``busy`` and the plain loop consist of.
    """

    plain: float
    everything: float
    busy: float
    parts: dict[str, float]


def digest(case: dict[str, Any]) -> Cost:
    """What one case came to."""
    plain, attached = (1e6 * statistics.median(case["seconds"][name]) for name in ("plain", "attached"))
    parts = {name: attached * share for name, share in case["shares"].items()}
    return Cost(plain, attached - plain, attached - parts["waiting"] - plain, parts)


def report(result: dict[str, Any]) -> str:
    """The table, in Markdown."""
    rows = []
    for case in result["cases"]:
        cost = digest(case)
        parts = [f"{cost.parts[name]:.0f}" for name in ("engine", "transport", "mixing", "loop")]
        graph = f"{case['topology']} of {case['ranks']}"
        rows.append([graph, f"{cost.busy:.0f}", verdict(cost.busy < TARGET), *parts, f"{cost.everything:.0f}"])
    header = ["graph", "framework, µs", f"< {TARGET:g}", "engine", "transport", "mixing", "loop and hooks", "with pauses, µs"]
    return table(header, rows)
