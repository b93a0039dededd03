"""Linear speed-up: how many samples per worker, and how long, to one loss with 1, 2, 4 ... workers."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.markdown import table
from benchmarks.simulated.descent import ALLREDUCE, Case
from benchmarks.simulated.pictures import key, round_numbers, save, style, tick_at

PART = "speedup"

RULES = (ALLREDUCE, "full", "dtur", "gap")

TARGET = 0.02
"""The loss of the mean model to reach, in units of the first one."""

LR = 0.1 / 64
"""Learning rate of one worker alone; n workers take n times that.

The bound O(1/sqrt(nK)) is for a learning rate of sqrt(n/K) after K rounds. To reach a fixed loss, K goes as 1/n, so the learning
rate goes as n.
"""

NOISE = 2.53
"""Norm of a gradient's noise, where the first gradient's own norm is 1/2.

At any n it keeps the mean model's loss at lr NOISE^2 / (2 curvature n) = 0.01 in the end, half of the target.
"""


@dataclass(frozen=True)
class Scale:
    """How much is simulated."""

    workers: Sequence[int] = (1, 2, 4, 8, 16, 32, 64)
    seeds: Sequence[int] = (1, 2, 3, 4, 5)


FULL = Scale()
QUICK = Scale(workers=(1, 4, 16), seeds=(1, 2, 3))


def cases(scale: Scale) -> list[Case]:
    """What to simulate."""
    return [
        Case(
            part=PART,
            workers=workers,
            rule=rule,
            graph="4-regular",
            probability=0.02,
            lr=LR * workers,
            noise=NOISE,
            targets=(TARGET,),
            awaits="mean",
            least=0.0,
            most=20_000 // workers,
            seed=seed,
        )
        for workers in scale.workers
        for rule in RULES
        for seed in scale.seeds
    ]


class Point(NamedTuple):
    """Means over seeds: seconds and samples per worker to the target, and the consensus error on the way."""

    seconds: float
    samples: float
    consensus: float


def points(result: dict[str, Any]) -> dict[tuple[str, int], Point]:
    """By (rule, workers), where all seeds reached the target."""
    found: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for row in result["cases"]:
        if row["part"] == PART:
            found.setdefault((row["rule"], row["workers"]), []).append(row)
    means = {}
    for place, rows in found.items():
        reached = [row["reached"]["mean"].get(str(TARGET)) for row in rows]
        if all(reached):
            seconds, samples = (statistics.fmean(each) for each in zip(*reached, strict=True))
            means[place] = Point(seconds, samples, statistics.fmean(row["consensus"] for row in rows))
    return means


def report(result: dict[str, Any]) -> list[tuple[str, str]]:
    """Titles and tables."""
    known = points(result)
    rules = list(dict.fromkeys(rule for rule, _ in known))
    rows: list[list[object]] = []
    for workers in sorted({workers for _, workers in known}):
        cells: list[object] = [f"{workers}"]
        for rule in rules:
            here, alone = known.get((rule, workers)), known.get((rule, 1))
            if here is None or alone is None:
                cells += [None, None]
                continue
            cells += [f"{here.samples:,.0f} ({alone.samples / here.samples:.1f}x)"]
            cells += [f"{here.seconds:,.1f} ({alone.seconds / here.seconds:.1f}x)"]
        rows.append(cells)
    header = ["workers", *(f"{rule}: {what}" for rule in rules for what in ("samples", "s"))]
    apart = [[f"{n}", *(f"{known[r, n].consensus:.2f}" if (r, n) in known else None for r in rules)] for n in _sizes(known)]
    return [
        ("Samples per worker and seconds to 2 % of the first loss, and how many times fewer than alone", table(header, rows)),
        ("Consensus error on the way there", table(["workers", *rules], apart)),
    ]


def _sizes(known: dict[tuple[str, int], Point]) -> list[int]:
    return sorted({workers for _, workers in known})


def draw(result: dict[str, Any], folder: Path) -> list[Path]:
    """Samples per worker and seconds against the number of workers, both logarithmic, with the ideal."""
    from matplotlib.figure import Figure

    known = points(result)
    rules = list(dict.fromkeys(rule for rule, _ in known))
    sizes = _sizes(known)
    figure = Figure(figsize=(10, 4.6), layout="constrained")
    panels = figure.subplots(1, 2)
    for axes, what, words in zip(panels, ("samples", "seconds"), ("samples per worker", "simulated seconds"), strict=True):
        first = getattr(known[rules[0], sizes[0]], what)
        axes.plot(sizes, [first * sizes[0] / n for n in sizes], color="black", linestyle=":", linewidth=1.2)
        for rule in rules:
            own = [(n, getattr(known[rule, n], what)) for n in sizes if (rule, n) in known]
            axes.plot(*zip(*own, strict=True), **style(rule))
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set(xlabel="workers", title=f"{words} to {TARGET:.0%} of the first loss")
        tick_at(axes.xaxis, sizes, "{}")
        tick_at(axes.yaxis, round_numbers(first * sizes[0] / sizes[-1], first), "{:,.0f}")
        axes.grid(alpha=0.3)
    lines = {**key(rules), "ideal, 1/N": panels[0].lines[0]}
    figure.legend(lines.values(), lines.keys(), loc="outside upper center", ncols=len(lines), frameon=False)
    return [save(figure, folder / "scale-linear.png")]
