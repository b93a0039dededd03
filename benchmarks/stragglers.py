"""(b) Time to a quality when ranks are slow at times: MNIST, eight ranks, and a step that takes 20 ms."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from benchmarks.jobs import launch, say
from benchmarks.markdown import table, verdict
from benchmarks.stats import Bound, median_ratio, median_time

RUN_FILE = "mnist"

RULES: Mapping[str, list[str] | None] = MappingProxyType(
    {
        "ddp": None,  # torch's own, in benchmarks/ranks/ddp.py
        "allreduce": ["rule.name=allreduce"],
        "full": ["rule.name=full"],
        **{f"static_backup b={b}": ["rule.name=static_backup", f"rule.b={b}"] for b in (1, 2, 3, 4)},
        "dtur": ["rule.name=dtur"],
        "pathsearch": ["rule.name=pathsearch"],
        "gap": ["rule.name=gap"],
    }
)
"""Settings of the run file by the name of the row."""

SCENARIOS: Mapping[str, list[str]] = MappingProxyType(
    {
        "transient": [
            "stragglers.model=transient", "stragglers.seconds=0.02", "stragglers.probability=0.05", "stragglers.factor=10",
        ],
        "exponential": ["stragglers.model=shifted_exponential", "stragglers.shift=0.01", "stragglers.mean=0.01"],
        "persistent": ["stragglers.model=persistent", "stragglers.seconds=0.02", "stragglers.ranks=[3]", "stragglers.factor=4"],
    }
)  # fmt: skip
"""Settings by scenario: one step in 20 is 10 times slower; 20 ms (0.5 + Exp(0.5)); rank 3 always 4 times slower."""

ACCURACIES = (".9", ".93", ".95")

JUDGED = ".93"
"""The accuracy of the targets."""

TO_FULL, TO_DDP, TO_TUNED = 0.55, 0.45, 1.3
"""At most so much of full's and DDP's time for dtur, and of the time of the best rule tuned by hand."""

MARKS = 128
"""Most marks of the clock that are kept: more than a run has, even one that ends late, so that none is thinned out."""

TUNED = tuple(name for name in RULES if name.startswith("static_backup"))


@dataclass(frozen=True)
class Scale:
    """How much is measured: seeds and rules by scenario, ranks, seconds of training, and the batch settings beside them."""

    seeds: Mapping[str, Sequence[int]]
    rules: Mapping[str, Sequence[str]]
    ranks: int = 8
    seconds: float = 16.0
    extra: tuple[str, ...] = ()


_FEWER = ("ddp", "full", "static_backup b=1", "static_backup b=4", "dtur", "pathsearch", "gap")

FULL = Scale(
    seeds={"transient": (1, 2, 3), "exponential": (1,), "persistent": (1,)},
    rules={"transient": tuple(RULES), "exponential": _FEWER, "persistent": _FEWER},
)
QUICK = Scale(seeds={"transient": (1,)}, rules={"transient": ("ddp", "full", "static_backup b=4", "dtur")}, seconds=8.0)


def run(scale: Scale, data_dir: Path) -> dict[str, Any]:
    """Measure; one MPI job for each scenario and seed, in which all rules take their turns."""
    cases = []
    mpi = ""
    for scenario, seeds in scale.seeds.items():
        for seed in seeds:
            names = scale.rules[scenario]
            say(f"stragglers: {scenario}, seed {seed}, {len(names)} rules of {scale.seconds:g} s")
            stop = f"run.stop={{ seconds = {scale.seconds} }}"
            common = [f"run.seed={seed}", f"run.ranks={scale.ranks}", stop, "run.trace=false", f"evaluation.marks={MARKS}"]
            specification = {
                "file": RUN_FILE,
                "data_dir": str(data_dir),
                "settings": [*common, *scale.extra, *SCENARIOS[scenario]],
                "rules": {name: RULES[name] for name in names},
            }
            result = launch("stragglers", scale.ranks, specification, limit=180 + len(names) * (4 * scale.seconds + 60))
            mpi = result["mpi"]
            cases += [{"scenario": scenario, "seed": seed, "rule": name, **row} for name, row in result["rules"].items()]
    return {"mpi": mpi, "seconds": scale.seconds, "ranks": scale.ranks, "cases": cases}


Times = dict[str, list[float | None]]


def times(result: dict[str, Any], scenario: str, accuracy: str) -> Times:
    """By rule: the seconds to an accuracy, a seed after the other."""
    found: Times = {}
    for case in result["cases"]:
        if case["scenario"] == scenario:
            found.setdefault(case["rule"], []).append(case["targets"][accuracy])
    return found


def best(judged: Times, names: Sequence[str]) -> str | None:
    """Which of ``names`` has the smallest median time; None if none reached it."""
    medians = {name: median_time(judged[name]) for name in names if name in judged}
    reached = {name: time for name, time in medians.items() if time is not None}
    return min(reached, key=lambda name: reached[name]) if reached else None


@dataclass(frozen=True)
class Target:
    """A claim about dtur: its time in units of another rule's."""

    words: str
    ratio: Bound | None
    at_most: float
    other_came: bool

    @property
    def met(self) -> bool | None:
        """Whether it holds; None if the runs were too short to tell."""
        if self.ratio is None:
            return False if self.other_came else None
        holds = self.ratio.value <= self.at_most
        return holds if self.ratio.exact or holds else None


def targets(result: dict[str, Any], scenario: str) -> list[Target]:
    """What dtur has to show, as far as the rules were measured."""
    judged = times(result, scenario, JUDGED)
    ours, tuned = judged.get("dtur"), best(judged, TUNED)
    others = [("full", "full", TO_FULL), ("ddp", "ddp", TO_DDP), (tuned, f"{tuned}, the best tuned by hand", TO_TUNED)]
    claims = []
    for name, words, limit in others:
        if ours is not None and name in judged:
            other_came = median_time(judged[name]) is not None
            claims.append(Target(f"dtur / {words}", median_ratio(ours, judged[name], result["seconds"]), limit, other_came))
    return claims


def report(result: dict[str, Any]) -> str:
    """A table a scenario, and the targets, in Markdown."""
    return "\n".join(_scenario(result, name) for name in dict.fromkeys(case["scenario"] for case in result["cases"]))


def _scenario(result: dict[str, Any], scenario: str) -> str:
    limit = result["seconds"]
    by_accuracy = {accuracy: times(result, scenario, accuracy) for accuracy in ACCURACIES}
    judged = by_accuracy[JUDGED]
    rows = []
    for rule in judged:
        steps = [case["steps"] for case in result["cases"] if (case["scenario"], case["rule"]) == (scenario, rule)]
        cells = [_seconds(median_time(by_accuracy[accuracy][rule])) for accuracy in ACCURACIES]
        other = [median_ratio(judged[rule], judged[name], limit) if name in judged else None for name in ("full", "ddp")]
        rows.append([rule, round(statistics.median(steps)), *cells, *other])
    seeds = len(next(iter(judged.values())))
    how = "one seed" if seeds == 1 else f"median of {seeds} seeds"
    header = ["rule", f"steps in {limit:g} s", *(f"s to {float(a):.0%}" for a in ACCURACIES), "/ full", "/ DDP"]
    title = f"**{scenario}**, {result['ranks']} ranks, {how}; ratios of the times to {float(JUDGED):.0%}:"
    lines = [title, "", table(header, rows)]
    if scenario == "transient":
        claims = [[t.words, t.ratio, t.at_most, verdict(t.met)] for t in targets(result, scenario)]
        lines += [table([f"to {float(JUDGED):.0%}", "ratio", "at most", ""], claims)]
    return "\n".join(lines)


def _seconds(time: float | None) -> str | None:
    return None if time is None else f"{time:.2f}"


def draw(result: dict[str, Any], folder: Path) -> list[Path]:
    """A picture a scenario: accuracy against seconds, the median over seeds at each mark."""
    from matplotlib.figure import Figure

    drawn = []
    for scenario in dict.fromkeys(case["scenario"] for case in result["cases"]):
        figure = Figure(figsize=(8, 5), layout="constrained")
        axes = figure.subplots()
        for rule in times(result, scenario, JUDGED):
            curves = [case["curve"] for case in result["cases"] if (case["scenario"], case["rule"]) == (scenario, rule)]
            points = median_curve(curves)
            axes.plot(*zip(*points, strict=True), label=rule, linewidth=2.4 if rule == "dtur" else 1.3)
        axes.set(xlabel="seconds", ylabel="test accuracy of the averaged model", ylim=(0.6, 1.0), xlim=(0, result["seconds"]))
        axes.set_title(f"MNIST, {result['ranks']} ranks, {scenario} stragglers")
        axes.grid(alpha=0.3)
        axes.legend(loc="lower right", fontsize=8)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"stragglers-{scenario}.png"
        figure.savefig(path, dpi=110)
        drawn.append(path)
    return drawn


def median_curve(curves: Sequence[Sequence[Sequence[float]]]) -> list[tuple[float, float]]:
    """Median accuracy at the times that all curves have; the marks of the clock are such.

    Examples
    --------
    >>> median_curve([[[0.5, 0.1], [1.0, 0.2]], [[0.5, 0.3], [1.1, 0.4]]])
    [(0.5, 0.2)]
    """
    tables = [{point[0]: point[1] for point in curve} for curve in curves]
    common = sorted(set.intersection(*(set(at) for at in tables)))
    return [(seconds, statistics.median(at[seconds] for at in tables)) for seconds in common]
