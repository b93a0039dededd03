"""(f) Which rule in which regime: kinds of stragglers, graphs, and how unlike the ranks' data are; simulated."""

from __future__ import annotations

import math
import multiprocessing
import statistics
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from benchmarks.jobs import say
from benchmarks.markdown import table
from consensus.rules import build as build_rule
from consensus.sim.network import Network
from consensus.sim.quadratic import Quadratic
from consensus.step_scale import factor
from consensus.timing import Link
from consensus.timing import build as build_times
from consensus.topology import build as build_graph
from consensus.types import Rank, Round, Seconds

STEP: Seconds = 0.055
LINK = Link(latency=1e-4, bandwidth=1e9)
MODEL_BYTES = 100_000
DIMENSION = 20
LR = 0.1
CONDITION = 4.0
MARK: Seconds = 0.25
SMOOTHED = 4
"""Looks that are averaged before they are held against the target: the loss of noisy steps crosses it many times."""

TIMES: Mapping[str, tuple[str, Mapping[str, Any]]] = MappingProxyType(
    {
        "uneven by a tenth": ("shifted_exponential", {"shift": 0.9 * STEP, "mean": 0.1 * STEP}),
        "exponential": ("shifted_exponential", {"shift": 0.5 * STEP, "mean": 0.5 * STEP}),
        "heavy tail": ("pareto", {"scale": 0.6 * STEP, "shape": 1.7}),
        "1 in 20 ten times": ("transient", {"seconds": STEP, "probability": 0.05, "factor": 10.0}),
        "1 in 50 stalls 1 s": ("stall", {"seconds": STEP, "probability": 0.02, "stall_seconds": 1.0}),
        "1 in 10 stalls 1 s": ("stall", {"seconds": STEP, "probability": 0.10, "stall_seconds": 1.0}),
        "slow for seconds": ("markov", {"seconds": STEP, "factor": 10.0, "slow_after": 5.0, "fast_after": 1.0}),
        "one rank 5 times": ("persistent", {"seconds": STEP, "ranks": (0,), "factor": 5.0}),
    }
)
"""Compute time models by the word in the table."""

EQUAL_TIMES = ("constant", {"seconds": STEP})

DATA: Mapping[str, Mapping[str, float]] = MappingProxyType(
    {"alike": {"heterogeneity": 0.05, "noise": 0.6}, "unlike": {"heterogeneity": 0.7, "noise": 0.2}}
)
"""How far apart the ranks' minima are, and the noise of a gradient, per coordinate; the models start at distance 1."""

GRAPHS: Mapping[str, tuple[str, int, Mapping[str, Any]]] = MappingProxyType(
    {
        "torus of 16": ("torus", 16, {}),
        "complete of 8": ("complete", 8, {}),
        "ring of 16": ("ring", 16, {}),
        "sparse random of 16": ("erdos_renyi", 16, {"probability": 0.3}),
        "4-regular of 64": ("random_regular", 64, {"degree": 4}),
    }
)

RULES: Mapping[str, tuple[str, Mapping[str, Any]]] = MappingProxyType(
    {
        "full": ("full", {}),
        "b=1": ("static_backup", {"b": 1}),
        "b=2": ("static_backup", {"b": 2}),
        "b=3": ("static_backup", {"b": 3}),
        "dtur": ("dtur", {}),
        "pathsearch": ("pathsearch", {}),
        "gap": ("gap", {}),
        "patience": ("patience", {}),
    }
)

ABOVE = 4.0
"""The target, in units of the error that `full` settles at where all steps take equal times."""

NEAR = 1.05
"""Within this of the best, a rule counts as near it."""


@dataclass(frozen=True)
class Case:
    """One simulation: words of the tables above, and a seed; ``times`` None: all steps take equal times."""

    graph: str
    times: str | None
    data: str
    rule: str
    seed: int
    seconds: float
    step_scale: bool = False
    lr: float = LR


@dataclass(frozen=True)
class Scale:
    """How much is simulated."""

    seeds: tuple[int, ...] = (1, 2, 3)
    seconds: float = 30.0
    graphs: tuple[str, ...] = tuple(GRAPHS)
    times: tuple[str, ...] = tuple(TIMES)
    processes: int = 2


QUICK = Scale(seeds=(1,), seconds=8.0, graphs=("complete of 8",), times=("uneven by a tenth", "1 in 50 stalls 1 s"))

FEW = ("1 in 20 ten times", "1 in 50 stalls 1 s")
"""The times that are tried on every graph; the others on the first alone."""


class Scaled(Quadratic):
    """A quadratic whose workers may take longer steps where they take few."""

    network: Network | None = None

    def step(self, rank: Rank, round: Round) -> None:
        """See :class:`consensus.sim.quadratic.Quadratic`."""
        whole = self.lr
        if self.network is not None:
            engine = self.network.engines[rank]
            self.lr = whole * factor(engine.participation, engine.view.round)
        super().step(rank, round)
        self.lr = whole


def simulate(case: Case) -> dict[str, Any]:
    """Squared distances at each mark: of the models from the minimum, on average, and of their mean."""
    family, ranks, parameters = GRAPHS[case.graph]
    graph = build_graph(family, ranks, seed=1, **parameters)
    kind, numbers = EQUAL_TIMES if case.times is None else TIMES[case.times]
    times = build_times(kind, **numbers)
    plant = Scaled.draw(ranks, DIMENSION, lr=case.lr, condition=CONDITION, seed=case.seed, **DATA[case.data])
    name, options = RULES[case.rule]
    network = Network(
        {rank: tuple(sorted(graph[rank])) for rank in sorted(graph)},
        build_rule(name, **options),
        [times.stream(rank, case.seed) for rank in range(ranks)],
        LINK,
        stop=lambda rank, round: False,
        plant=plant,
        model_bytes=MODEL_BYTES,
    )
    if case.step_scale:
        assert isinstance(plant, Scaled)
        plant.network = network
    errors, mean_errors = [], []
    for mark in range(1, round(case.seconds / MARK) + 1):
        network.run(until=mark * MARK)
        errors.append(float(np.square(plant.models - plant.optimum).sum(axis=1).mean()))
        mean_errors.append(plant.distance() ** 2)
    return {**asdict(case), "errors": errors, "mean_errors": mean_errors}


def cases(scale: Scale) -> list[Case]:
    """All simulations of ``scale``."""
    rows = [
        (graph, times, data)
        for number, graph in enumerate(scale.graphs)
        for times in scale.times
        if number == 0 or times in FEW
        for data in DATA
    ]
    raced = [Case(*row, rule, seed, scale.seconds) for row in rows for rule in RULES for seed in scale.seeds]
    calm = {(graph, data) for graph, _, data in rows}
    floors = [Case(graph, None, data, "full", seed, scale.seconds) for graph, data in sorted(calm) for seed in scale.seeds]
    biased = [
        Case("complete of 8", "one rank 5 times", "unlike", rule, seed, 2 * scale.seconds, scaled, LR / 2)
        for rule in ("b=1", "dtur", "gap", "patience")
        for scaled in (False, True)
        for seed in scale.seeds
    ]
    return [*floors, *raced, *biased]


def run(scale: Scale) -> dict[str, Any]:
    """Simulate; what comes out is a function of ``scale`` alone."""
    todo = cases(scale)
    say(f"regimes: {len(todo)} simulations by {scale.processes} processes")
    with ProcessPoolExecutor(scale.processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        rows = list(pool.map(simulate, todo, chunksize=4))
    return {"mpi": "without MPI", "cases": rows}


def seconds_to(errors: list[float], target: float) -> float:
    """When the smoothed error is down at ``target``, seconds; infinite if it never is.

    Examples
    --------
    >>> seconds_to([4.0, 4.0, 2.0, 2.0, 0.0, 0.0], target=2.0)
    1.25
    """
    smooth = np.convolve(errors, np.ones(SMOOTHED) / SMOOTHED, mode="valid")
    below = np.nonzero(smooth <= target)[0]
    return float((below[0] + SMOOTHED) * MARK) if len(below) else math.inf


def races(result: dict[str, Any]) -> dict[tuple[str, str, str], dict[str, float]]:
    """For each (graph, times, data): seconds to the target by rule, the median over seeds."""
    rows = [row for row in result["cases"] if row["lr"] == LR]
    settled = {
        (row["graph"], row["data"], row["seed"]): float(np.mean(row["errors"][len(row["errors"]) // 2 :]))
        for row in rows
        if row["times"] is None
    }
    found: dict[tuple[str, str, str], dict[str, list[float]]] = {}
    for row in rows:
        if row["times"] is not None:
            target = ABOVE * settled[row["graph"], row["data"], row["seed"]]
            race = found.setdefault((row["graph"], row["times"], row["data"]), {})
            race.setdefault(row["rule"], []).append(seconds_to(row["errors"], target))
    return {key: {rule: statistics.median(times) for rule, times in race.items()} for key, race in found.items()}


def report(result: dict[str, Any]) -> str:
    """The tables, in Markdown."""
    rows, near = [], dict.fromkeys(RULES, 0)
    logs: dict[str, list[float]] = {rule: [] for rule in RULES}
    raced = races(result)
    for (graph, times, data), race in raced.items():
        best = min(race.values())
        ratios = {rule: seconds / best if best < math.inf else math.nan for rule, seconds in race.items()}
        rows.append([f"{graph}, {times}", data, _number(best), *(_number(ratios[rule]) for rule in RULES)])
        for rule, ratio in ratios.items():
            near[rule] += ratio <= NEAR
            logs[rule].append(math.log(min(ratio, 10.0)) if ratio == ratio else 0.0)
    rows.append([f"regimes within {NEAR - 1:.0%} of the best, of {len(raced)}", "", "", *(near[rule] for rule in RULES)])
    rows.append(["geometric mean", "", "", *(_number(math.exp(statistics.mean(logs[rule]))) for rule in RULES)])
    return table(["regime", "data", "best, s", *RULES], rows) + "\n" + _bias(result)


def _number(value: float) -> str | None:
    return f"{value:.2f}" if math.isfinite(value) else None


def _bias(result: dict[str, Any]) -> str:
    settled: dict[tuple[str, bool], list[float]] = {}
    for row in result["cases"]:
        if row["lr"] != LR:
            late = row["mean_errors"][len(row["mean_errors"]) // 2 :]
            settled.setdefault((row["rule"], row["step_scale"]), []).append(float(np.mean(late)))
    rules = dict.fromkeys(rule for rule, _ in settled)
    rows = [[rule, *(f"{statistics.mean(settled[rule, scaled]):.4f}" for scaled in (False, True))] for rule in rules]
    return table(["rule", "step_scale = none", "step_scale = participation"], rows)
