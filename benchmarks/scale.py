"""(e) What waiting for the fastest is worth with 64 to 1,024 workers, and linear speed-up; simulated."""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.jobs import say
from benchmarks.markdown import replaced
from benchmarks.simulated import speedup, stalls
from benchmarks.simulated.descent import Case, descend

PARTS = (stalls, speedup)

NOTABLE = 10.0
"""Processor seconds from which on the end of a simulation is told."""


@dataclass(frozen=True)
class Scale:
    """How much is simulated, and by how many processes."""

    stalls: stalls.Scale = stalls.FULL
    speedup: speedup.Scale = speedup.FULL
    processes: int = 2


QUICK = Scale(stalls=stalls.QUICK, speedup=speedup.QUICK)


def run(scale: Scale) -> dict[str, Any]:
    """Simulate; what comes out is a function of ``scale`` alone, but for the processor times."""
    cases = [*stalls.cases(scale.stalls), *speedup.cases(scale.speedup)]
    say(f"scale: {len(cases)} simulations by {scale.processes} processes")
    return {"mpi": "without MPI", "cases": _simulate(cases, scale.processes)}


def _simulate(cases: Sequence[Case], processes: int) -> list[dict[str, Any]]:
    if processes == 1:
        return [descend(case) for case in cases]
    # The longest first, so that no process is left alone with it at the end. Not forked: this process may have threads.
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        futures = {case: pool.submit(descend, case) for case in sorted(cases, key=lambda case: -case.work)}
        for done, future in enumerate(as_completed(futures.values()), 1):
            row = future.result()
            if row["processor_seconds"] > NOTABLE or done % 50 == 0:
                say(f"scale: {done} of {len(cases)}: {row['workers']} workers, {row['graph']}, {row['rule']}")
        return [futures[case].result() for case in cases]


def report(result: dict[str, Any]) -> str:
    """All tables, in Markdown."""
    return _sections([*stalls.report(result), *speedup.report(result)])


def draw(result: dict[str, Any], folder: Path) -> list[Path]:
    """All pictures."""
    return [path for part in PARTS for path in part.draw(result, folder)]


def publish(result: dict[str, Any], docs: Path) -> None:
    """Write the tables that fit on a page into ``docs/scale.md``, and the pictures beside it."""
    draw(result, docs / "images")
    page = docs / "scale.md"
    text = page.read_text(encoding="utf-8")
    text = replaced(text, "scale", _sections(stalls.summary(result)))
    page.write_text(replaced(text, "scale speedup", _sections(speedup.report(result))), encoding="utf-8")


def _sections(parts: list[tuple[str, str]]) -> str:
    return "\n".join(f"**{title}**\n\n{text}" for title, text in parts)
