"""(a) What averaging adds to a step when there are no stragglers."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Any

from benchmarks.jobs import launch, say
from benchmarks.markdown import table, verdict
from benchmarks.sizes import MODELS, parameters
from benchmarks.stats import added, ratios

BARE_TARGET = 1.15
"""Ours in units of the bare exchange, from :data:`LARGE` parameters on."""

DDP_TARGET = 0.4
"""Ours in units of what DDP adds."""

LARGE = 1_000_000


@dataclass(frozen=True)
class Scale:
    """How much is measured: sizes by name, numbers of ranks, seconds per case, samples in a batch."""

    sizes: tuple[str, ...] = ("0.27 M", "5.8 M", "25 M")
    ranks: tuple[int, ...] = (2, 4, 8)
    seconds: float = 12.0
    batch: int = 16


QUICK = Scale(sizes=("0.27 M", "5.8 M"), ranks=(2, 8), seconds=4.0)


def run(scale: Scale) -> dict[str, Any]:
    """Measure; one MPI job for each size and number of ranks."""
    cases = []
    mpi = ""
    for size in scale.sizes:
        for ranks in scale.ranks:
            say(f"overhead: {size} parameters, {ranks} ranks")
            specification = {"widths": MODELS[size], "batch": scale.batch, "seconds": scale.seconds}
            result = launch("overhead", ranks, specification, limit=20 * scale.seconds + 180)
            mpi = result["mpi"]
            cases.append({"size": size, "parameters": parameters(MODELS[size]), "ranks": ranks, "seconds": result["seconds"]})
    return {"mpi": mpi, "cases": cases}


@dataclass(frozen=True)
class Overhead:
    """One case, digested; times in milliseconds per round.

    ``to_bare`` is the median of the ratios of neighbouring blocks. The two ratios to what DDP adds are ratios of medians: what
    DDP adds is a difference, and in a single block noise may bring it near zero.
    """

    bare: float
    ours: float
    ours_adds: float
    ddp_adds: float
    to_bare: float
    to_bare_spread: tuple[float, float]
    bare_to_ddp: float
    to_ddp: float
    adds_to_ddp: float


def digest(seconds: dict[str, list[float]]) -> Overhead:
    """Medians and ratios of one case's blocks."""
    ours = statistics.median(seconds["ours"])
    ours_adds, ddp_adds = (added(seconds[name], seconds["step"]) for name in ("step_ours", "step_ddp"))
    to_bare = ratios(seconds["ours"], seconds["bare"])
    return Overhead(
        bare=1e3 * statistics.median(seconds["bare"]),
        ours=1e3 * ours,
        ours_adds=1e3 * ours_adds,
        ddp_adds=1e3 * ddp_adds,
        to_bare=to_bare.middle,
        to_bare_spread=(to_bare.low, to_bare.high),
        bare_to_ddp=statistics.median(seconds["bare"]) / ddp_adds,
        to_ddp=ours / ddp_adds,
        adds_to_ddp=ours_adds / ddp_adds,
    )


def report(result: dict[str, Any]) -> str:
    """The table, in Markdown."""
    rows = []
    for case in result["cases"]:
        o = digest(case["seconds"])
        low, high = o.to_bare_spread
        large = case["parameters"] >= LARGE
        rows.append(
            [
                case["size"],
                case["ranks"],
                f"{o.bare:.2f}",
                f"{o.ours:.2f}",
                f"{o.to_bare:.2f} ({low:.2f} to {high:.2f})",
                verdict(o.to_bare <= BARE_TARGET) if large else "no target",
                f"{o.ddp_adds:.2f}",
                f"{o.bare_to_ddp:.2f}",
                f"{o.to_ddp:.2f}",
                verdict(o.to_ddp <= DDP_TARGET) if large else "no target",
                f"{o.ours_adds:.2f}",
                f"{o.adds_to_ddp:.2f}",
            ]
        )
    header = [
        "parameters", "ranks", "bare, ms", "ours, ms", "ours / bare (quartiles)", f"<= {BARE_TARGET}", "DDP adds, ms",
        "bare / DDP adds", "ours / DDP adds", f"<= {DDP_TARGET}", "ours adds, ms", "ours adds / DDP adds",
    ]  # fmt: skip
    return table(header, rows)
