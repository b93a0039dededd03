"""(f) `consensus whatif` against the truth: rules predicted from one recorded run, and then run."""

from __future__ import annotations

import math
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from benchmarks import stragglers
from benchmarks.jobs import launch, say
from benchmarks.markdown import table, verdict
from consensus.report.load import load_run
from consensus.whatif.alternatives import alternatives, recorded
from consensus.whatif.fit import fit
from consensus.whatif.predict import measured, predict, samples_per_round

RULES = ("full", "static_backup b=1", "static_backup b=2", "static_backup b=3", "dtur", "pathsearch")

TARGET = 0.15
"""By how much of it a predicted throughput may miss the measured one."""


@dataclass(frozen=True)
class Scale:
    """How much is measured: rules that are recorded, with a seed of their own; rules that are run, seeds, ranks, seconds."""

    recorded: tuple[str, ...] = ("dtur", "full")
    recorded_seed: int = 4
    rules: tuple[str, ...] = RULES
    seeds: tuple[int, ...] = (1, 2, 3)
    ranks: int = 8
    seconds: float = 8.0
    starts: int = 5
    extra: tuple[str, ...] = ()


QUICK = Scale(recorded=("dtur",), rules=("full", "static_backup b=2", "dtur"), seeds=(1,), starts=3)


def run(scale: Scale, data_dir: Path) -> dict[str, Any]:
    """Record, predict, and measure; one MPI job, in which all runs take their turns, all rules with one seed before the next."""
    order = [
        *((name, scale.recorded_seed) for name in scale.recorded),
        *((name, seed) for seed in scale.seeds for name in scale.rules),
    ]
    say(f"whatif: {len(order)} runs of {scale.seconds:g} s on {scale.ranks} ranks")
    with tempfile.TemporaryDirectory(prefix="benchmark-runs-") as out:
        specification = {
            "file": stragglers.RUN_FILE,
            "data_dir": str(data_dir),
            "settings": [
                f"run.ranks={scale.ranks}", f"run.stop={{ seconds = {scale.seconds} }}", f"run.out={out}", "evaluation.every=4.0",
                "evaluation.test_samples=500", *stragglers.SCENARIOS["transient"], *scale.extra,
            ],
            "runs": [[f"run.seed={seed}", *(stragglers.RULES[name] or [])] for name, seed in order],
        }  # fmt: skip
        result = launch("whatif", scale.ranks, specification, limit=180 + len(order) * (2 * scale.seconds + 30))
        folders = [Path(folder) for folder in result["folders"]]
        truth: dict[str, list[float]] = {name: [] for name in scale.rules}
        for (name, _), folder in list(zip(order, folders, strict=True))[len(scale.recorded) :]:
            truth[name].append(pace_of(folder))
        cases = [
            {"recorded": name, **predictions(folder, scale.rules, scale.starts)}
            for name, folder in zip(scale.recorded, folders, strict=False)
        ]
    return {"mpi": result["mpi"], "seconds": scale.seconds, "ranks": scale.ranks, "measured": truth, "cases": cases}


def pace_of(folder: Path) -> float:
    """A run's samples per second, by its traces."""
    run = load_run(folder)
    return measured(run, fit(run), 1.0).samples_per_second


def predictions(folder: Path, rules: Sequence[str], starts: int) -> dict[str, Any]:
    """What a recorded run says about the rules, and about itself."""
    run = load_run(folder)
    fitted = fit(run)
    per_round = samples_per_round(run)
    samples = per_round * sum(len(trace.rounds) for trace in run.traces)
    found = {}
    for name in rules:
        settings, _ = alternatives(run, fitted, rules=[(name, tuple(stragglers.RULES[name] or ()))])
        setting = settings[0] if settings else recorded(run)
        found[name] = predict(fitted, setting, samples, per_round, range(1, starts + 1)).samples_per_second
    return {
        "own": measured(run, fitted, samples).samples_per_second,
        "latency": fitted.latency,
        "swap": fitted.work,
        "per_rank": _finite(fitted.sharing.per_rank),
        "overall": _finite(fitted.sharing.overall),
        "predicted": found,
    }


def _finite(limit: float) -> float | None:
    return limit if limit < math.inf else None


def noise(paces: Sequence[float]) -> float:
    """Standard error of a rule's mean pace, from its runs; 0 of a single one.

    Examples
    --------
    >>> noise([9.0, 11.0]), noise([5.0])
    (1.0, 0.0)
    """
    return statistics.stdev(paces) / math.sqrt(len(paces)) if len(paces) > 1 else 0.0


def misplaced(truth: Mapping[str, Sequence[float]], predicted: Mapping[str, float]) -> list[tuple[str, str]]:
    """Pairs of rules that are predicted in the wrong order.

    Two rules whose measured means are no further apart than twice the standard error of their difference are tied: either order
    is right.

    Examples
    --------
    >>> misplaced({"a": [1.0, 1.1], "b": [2.0, 2.1], "c": [2.0, 2.2]}, {"a": 3.0, "b": 2.0, "c": 1.9})
    [('a', 'b'), ('a', 'c')]
    """
    wrong = []
    for one, other in combinations(truth, 2):
        apart = statistics.fmean(truth[one]) - statistics.fmean(truth[other])
        tied = abs(apart) <= 2 * math.hypot(noise(truth[one]), noise(truth[other]))
        if not tied and apart * (predicted[one] - predicted[other]) <= 0:
            wrong.append((one, other))
    return wrong


def report(result: dict[str, Any]) -> str:
    """The tables, in Markdown."""
    truth, cases = result["measured"], result["cases"]
    means = {name: statistics.fmean(paces) for name, paces in truth.items()}
    rows = []
    for name in sorted(truth, key=lambda name: -means[name]):
        cells: list[object] = [name, f"{means[name]:.0f} ± {noise(truth[name]):.0f}"]
        for case in cases:
            predicted = case["predicted"][name]
            cells += [f"{predicted:.0f}", f"{predicted / means[name] - 1:+.1%}"]
        rows.append(cells)
    header = ["rule", "measured, samples/s"]
    for case in cases:
        header += [f"predicted from a run of {case['recorded']}", "error"]
    judged = []
    for case in cases:
        worst = max(abs(case["predicted"][name] / means[name] - 1) for name in truth)
        wrong = misplaced(truth, case["predicted"])
        pairs = ", ".join(f"{one} and {other}" for one, other in wrong) or "none"
        judged.append(
            [
                case["recorded"], f"{case['own']:.0f}", f"{1e3 * case['latency']:.2f}", f"{1e3 * case['swap']:.2f}",
                _limit(case["per_rank"]), _limit(case["overall"]), f"{worst:.1%}", verdict(worst <= TARGET), pairs,
                verdict(not wrong),
            ]
        )  # fmt: skip
    columns = [
        "recorded", "its samples/s", "message, ms", "swap, ms", "at a time: a rank", "all ranks", "worst error",
        f"<= {TARGET:.0%}", "pairs in the wrong order", "order",
    ]  # fmt: skip
    return table(header, rows) + "\n" + table(columns, judged)


def _limit(limit: float | None) -> str:
    return "any" if limit is None else f"{limit:.2g}"
