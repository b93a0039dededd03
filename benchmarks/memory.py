"""(c) Memory of a rank over many rounds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from benchmarks.jobs import launch, say
from benchmarks.markdown import table
from benchmarks.sizes import MODELS

MIB = 2**20


@dataclass(frozen=True)
class Scale:
    """How much is measured: (size's name, topology) of the cases, ranks, and the rounds at which the peak is read, ascending."""

    cases: tuple[tuple[str, str], ...] = (("0.27 M", "ring"), ("0.27 M", "complete"), ("5.8 M", "ring"))
    ranks: int = 8
    rounds: tuple[int, ...] = (200, 500, 1000, 2000)
    rule: str = "dtur"
    seconds_per_round: float = 2.0


QUICK = Scale(cases=(("0.27 M", "ring"),), rounds=(50, 100, 200))


def run(scale: Scale) -> dict[str, Any]:
    """Measure; one MPI job a case."""
    cases = []
    mpi = ""
    for size, topology in scale.cases:
        say(f"memory: {size} parameters, {topology} of {scale.ranks} ranks")
        specification = {"widths": MODELS[size], "topology": topology, "rounds": scale.rounds, "rule": scale.rule}
        result = launch("memory", scale.ranks, specification, limit=180 + scale.seconds_per_round * scale.rounds[-1])
        mpi = result["mpi"]
        cases.append({"size": size, "topology": topology, "ranks": result["ranks"]})
    return {"mpi": mpi, "rounds": list(scale.rounds), "rule": scale.rule, "cases": cases}


@dataclass(frozen=True)
class Memory:
    """One case, MiB, of the rank that took most.

    ``grown`` is the peak above what the process had before it made the model, at each mark; ``planned`` is parameters, an
    accumulator, and the chunks in flight.
    """

    edges: int
    before: float
    grown: list[float]
    planned: float
    later: float
    shared: float | None


def digest(ranks: list[dict[str, Any]]) -> Memory:
    """What one case came to."""
    most = max(ranks, key=lambda row: row["peaks"][-1] - row["before"])
    return Memory(
        edges=most["edges"],
        before=most["before"] / MIB,
        grown=[(peak - most["before"]) / MIB for peak in most["peaks"]],
        planned=(2 * most["model"] + most["windows"]) / MIB,
        later=max(row["peaks"][-1] - row["peaks"][0] for row in ranks) / MIB,
        shared=None if most["shared"] is None else most["shared"] / MIB,
    )


def report(result: dict[str, Any]) -> str:
    """The table, in Markdown."""
    rows = []
    for case in result["cases"]:
        m = digest(case["ranks"])
        shared = None if m.shared is None else f"{m.shared:.1f}"
        numbers = [f"{m.before:.0f}", *(f"{value:.1f}" for value in (*m.grown, m.planned, m.later))]
        rows.append([case["size"], case["topology"], m.edges, *numbers, shared])
    at = [f"at {rounds}" for rounds in result["rounds"]]
    later = f"growth from round {result['rounds'][0]} on"
    return table(["parameters", "graph", "edges", "before", *at, "planned", later, "shared by MPI"], rows)
