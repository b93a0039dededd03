"""(i) ElasticBSP against BSP, SSP and ASP on images: CIFAR-10, a small CNN, four workers; real gradients, virtual clock."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from benchmarks.jobs import say
from benchmarks.markdown import table
from benchmarks.simulated.pictures import save
from benchmarks.stats import median_ratio, median_time
from benchmarks.stragglers import median_curve
from consensus import config as run_files
from consensus.run.results import read_metrics
from consensus.run.simulation import simulate
from consensus.timing import ShiftedExponential

RULES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "bsp": ("rule.name=bsp",),
        "asp": ("rule.name=asp",),
        "ssp s=3": ("rule.name=ssp", "rule.s=3"),
        "elastic R=15": ("rule.name=elastic", "rule.R=15"),
        "elastic R=240": ("rule.name=elastic", "rule.R=240"),
    }
)
"""Settings of the run file by the name of the row."""

SLOWEST, NOISE, STEP = 1.5, 0.02, 0.1
"""The slowest worker's steps in units of the fastest's, the exponential part of all, and the fastest's, seconds."""

STEPS = 2000
"""Durations that are written down for a worker; after these it begins anew."""

ACCURACIES = (0.4, 0.5, 0.55)


def durations(workers: int, seed: int) -> list[list[float]]:
    """Steps of workers whose speeds are spread evenly: base (1 + noise Exp(1)), bases from 1 to 1.5 tenths of a second."""
    rows = []
    for worker in range(workers):
        base = STEP * (1 + (SLOWEST - 1) * worker / max(1, workers - 1))
        stream = ShiftedExponential(shift=base, mean=NOISE * base).stream(worker, seed)
        rows.append([round(stream.next(), 5) for _ in range(STEPS)])
    return rows


@dataclass(frozen=True)
class Scale:
    """How much is simulated: data, model, seeds, rules, workers, virtual seconds between marks and in all."""

    data: str = "cifar10"
    model: str = "cnn"
    rules: tuple[str, ...] = tuple(RULES)
    seeds: tuple[int, ...] = (1,)
    workers: int = 4
    batch: int = 16
    lr: float = 0.1
    seconds: float = 160.0
    every: float = 5.0
    test_samples: int = 2000
    accuracies: tuple[float, ...] = ACCURACIES


QUICK = Scale(
    data="digits", model="2nn", rules=("bsp", "asp", "elastic R=15"), workers=2, seconds=4.0, every=0.5, test_samples=200
)


def settings(scale: Scale, rule: str, seed: int, out: str) -> list[str]:
    """Changes to a run file: the same learning rate for all, and k/n of it for an update of k gradients."""
    return [
        f"data.name={scale.data}", f"data.batch={scale.batch}", f"model.name={scale.model}",
        f"optimizer.lr={scale.lr}", 'server.learning_rate={ name = "proportional" }', *RULES[rule],
        f"run.ranks={scale.workers + 1}", f"run.seed={seed}", f"run.stop={{ seconds = {scale.seconds} }}", f"run.out={out}",
        "run.trace=false", "stragglers.model=replay", f"stragglers.durations={durations(scale.workers, seed)}",
        f"evaluation.every={scale.every}", "evaluation.marks=128", f"evaluation.test_samples={scale.test_samples}",
    ]  # fmt: skip


def run(scale: Scale, data_dir: Path | None) -> dict[str, Any]:
    """Simulate, a rule after the other; what comes out is a function of ``scale`` and the data alone."""
    cases = []
    for seed in scale.seeds:
        for rule in scale.rules:
            began = time.process_time()
            with tempfile.TemporaryDirectory(prefix="benchmark-runs-") as out:
                lines = read_metrics(simulate(run_files.load("digits", settings(scale, rule, seed, out), data_dir)))
            kept = [line for line in lines if line.seconds <= scale.seconds]
            cases.append(
                {
                    "rule": rule,
                    "seed": seed,
                    "seconds": [line.seconds for line in kept],
                    "updates": [line.rounds for line in kept],
                    "gradients": [line.samples // scale.batch for line in kept],
                    "accuracy": [round(line.accuracy, 4) for line in kept],
                }
            )
            say(
                f"elastic_cifar: {rule}, seed {seed}: {kept[-1].accuracy:.3f}, {time.process_time() - began:.0f} s of a processor"
            )
    return {"mpi": "without MPI", "limit": scale.seconds, "accuracies": scale.accuracies, "cases": cases}


def until(case: dict[str, Any], accuracy: float, unit: str) -> float | None:
    """How many seconds, updates or gradients a run took until its accuracy, the mean of three marks, was reached.

    Examples
    --------
    >>> case = {"accuracy": [0.1, 0.6, 0.2, 0.8, 0.8], "seconds": [1.0, 2.0, 3.0, 4.0, 5.0]}
    >>> until(case, 0.55, "seconds"), until(case, 0.7, "seconds")
    (4.0, None)
    """
    smooth = smoothed(case["accuracy"])
    return next((case[unit][mark + 1] for mark, value in enumerate(smooth) if value >= accuracy), None)


def smoothed(values: list[float]) -> list[float]:
    """Means of three neighbours; two values fewer.

    Examples
    --------
    >>> smoothed([1.0, 2.0, 6.0])
    [3.0]
    """
    return [statistics.fmean(values[first : first + 3]) for first in range(len(values) - 2)]


def report(result: dict[str, Any]) -> str:
    """The table, in Markdown."""
    runs: dict[str, list[dict[str, Any]]] = {}
    for case in result["cases"]:
        runs.setdefault(case["rule"], []).append(case)
    accuracies, limit = result["accuracies"], result["limit"]
    rows: list[list[object]] = []
    for rule, cases in runs.items():
        pace = {
            unit: statistics.median(case[unit][-1] / case["seconds"][-1] for case in cases) for unit in ("gradients", "updates")
        }
        cells: list[object] = [rule, f"{pace['gradients']:.1f}", f"{pace['updates']:.1f}"]
        for unit in ("seconds", "gradients"):
            for accuracy in accuracies:
                middle = median_time([until(case, accuracy, unit) for case in cases])
                cells.append(None if middle is None else f"{middle:.0f}")
        cells.append(f"{statistics.median(smoothed(case['accuracy'])[-1] for case in cases):.3f}")
        if "bsp" in runs:
            own, other = ([until(case, accuracies[-1], "seconds") for case in each] for each in (cases, runs["bsp"]))
            cells.append(median_ratio(own, other, limit))
        rows.append(cells)
    header = ["rule", "gradients/s", "updates/s"]
    header += [f"{unit} to {accuracy:.0%}" for unit in ("s", "gradients") for accuracy in accuracies]
    header += [f"accuracy after {limit:g} s", *([f"s to {accuracies[-1]:.0%} / bsp"] if "bsp" in runs else [])]
    return table(header, rows)


def draw(result: dict[str, Any], folder: Path) -> list[Path]:
    """One picture: accuracy against the clock, against gradients, and against updates."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 4.5), layout="constrained")
    views = figure.subplots(1, 3, sharey=True)
    for axes, unit in zip(views, ("seconds", "gradients", "updates"), strict=True):
        for rule in dict.fromkeys(case["rule"] for case in result["cases"]):
            cases = [case for case in result["cases"] if case["rule"] == rule]
            if unit == "seconds":
                points = median_curve([list(zip(case[unit], case["accuracy"], strict=True)) for case in cases])
            else:
                points = list(zip(cases[0][unit], cases[0]["accuracy"], strict=True))
            axes.plot(*zip(*points, strict=True), label=rule, linewidth=1.3)
        axes.set(xlabel="virtual seconds" if unit == "seconds" else unit)
        axes.grid(alpha=0.3)
    views[2].set_xscale("log")
    views[0].set(ylabel="test accuracy")
    views[0].legend(loc="lower right", fontsize=8)
    return [save(figure, folder / "elastic_cifar.png")]
