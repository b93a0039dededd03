"""(h) The stragglers of ``served`` on the virtual clock, with several seeds: dbw against fixed numbers."""

from __future__ import annotations

import math
import multiprocessing
import statistics
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from benchmarks.jobs import say
from benchmarks.markdown import table, verdict
from benchmarks.served import BEFORE, SCENARIOS, SLOWER, STEADY, TO_BSP, TO_EVERY_STATIC, TO_TUNED
from benchmarks.simulated.served import SAMPLES, Streams, Tested, learn, one_thread, reached, train, versions
from consensus.rules.rates import build_rate
from consensus.rules.serving import build_server
from consensus.timing import ComputeTime, ShiftedExponential, Stream, Transient

WORKERS, BATCH = 8, 64

OVERHEAD = 0.008
"""Seconds that a step takes beside what is drawn for it: about what nine ranks on two processors measure."""

STEPS: Mapping[str, ComputeTime] = MappingProxyType(
    {
        "exponential": ShiftedExponential(shift=0.02, mean=0.02),
        "transient": Transient(seconds=0.03, probability=0.05, factor=10),
        "slowing": STEADY,
    }
)
"""As in the run files of ``served``."""

RATES: Mapping[str, str] = MappingProxyType({"constant": "constant", "k/n": "proportional"})
"""Learning rate rules by the words of ``served``."""

DYNAMIC: Mapping[str, Mapping[str, Any]] = MappingProxyType({"dbw": {}, "dbw, times waited for": {"resample": False}})
"""Parameters of the rule by the word in tables."""

ACCURACIES = (0.8, 0.85, 0.9, 0.93)


@dataclass(frozen=True)
class Scale:
    """How much is simulated: scenarios, numbers k by learning rate rule, seeds, samples, the accuracy if not served's."""

    scenarios: tuple[str, ...] = tuple(STEPS)
    numbers: Mapping[str, tuple[int, ...]] = field(default_factory=lambda: {"constant": (3, 4, 5, 8), "k/n": (4, 8)})
    seeds: tuple[int, ...] = (1, 2, 3, 4, 5)
    judged: float | None = None
    samples: int | None = None
    test_samples: int = 2000
    most: int = 1500
    processes: int = 2


QUICK = Scale(
    scenarios=("transient",), numbers={"constant": (4, 8)}, seeds=(1,), judged=0.6, samples=SAMPLES, test_samples=500, processes=1
)


class Steps(Stream):
    """A worker's steps: those drawn, ``SLOWER`` times as long from the ``BEFORE``-th on if it slows down, and the overhead."""

    def __init__(self, drawn: Stream, slows: bool) -> None:
        super().__init__(self._longer(drawn, slows))

    @staticmethod
    def _longer(drawn: Stream, slows: bool) -> Iterator[float]:
        for number, seconds in enumerate(drawn):
            yield OVERHEAD + seconds * (SLOWER if slows and number >= BEFORE else 1.0)


def streams(scenario: str, seed: int) -> Streams:
    """The steps of all workers; where some slow down, the first half does."""
    model = STEPS[scenario]
    slow = WORKERS // 2 if scenario == "slowing" else 0
    return lambda kernel: [Steps(model.stream(worker, seed), worker < slow) for worker in range(WORKERS)]


@dataclass(frozen=True)
class Case:
    """One training: ``k`` gradients an update in all scenarios of a learning rate, or a rule in one."""

    folder: Path
    scenarios: tuple[str, ...]
    seed: int
    judged: float
    samples: int | None
    test_samples: int
    most: int
    k: int | None = None
    rule: str = ""


def simulate(case: Case) -> list[dict[str, Any]]:
    """Train; a row for each scenario: seconds to each accuracy up to the one that is judged."""
    like = SCENARIOS[case.scenarios[0]]
    factor = build_rate(RATES[like.rate])
    with one_thread():
        learner = Tested(case.folder, BATCH, like.lr, case.judged, case.seed, samples=case.samples, shown=case.test_samples)
        if case.k is not None:
            learn(learner, case.k, factor(case.k, WORKERS), case.most)
            rule = build_server("backup", b=WORKERS - case.k)
            made = {name: versions(rule, streams(name, case.seed), learner.updates) for name in case.scenarios}
        else:
            (name,) = case.scenarios
            rule = build_server("dbw", **DYNAMIC[case.rule])
            made = {name: train(rule, streams(name, case.seed), learner, factor=factor, most=case.most).times}
    updates = {a: reached(learner.losses, 1.0 - a) for a in {*ACCURACIES, case.judged} if a <= case.judged}
    return [
        {
            "scenario": name,
            "seed": case.seed,
            "rule": case.rule or f"k = {case.k}",
            "seconds": {str(a): times[math.ceil(count)] if count < math.inf else None for a, count in updates.items()},
        }
        for name, times in made.items()
    ]


def run(scale: Scale, folder: Path) -> dict[str, Any]:
    """Simulate; what comes out is a function of ``scale`` alone."""
    cases = []
    for seed in scale.seeds:
        for rate, numbers in scale.numbers.items():
            alike = tuple(name for name in scale.scenarios if SCENARIOS[name].rate == rate)
            if alike:
                goal = scale.judged or float(SCENARIOS[alike[0]].judged)
                common = (seed, goal, scale.samples, scale.test_samples, scale.most)
                cases += [Case(folder, alike, *common, k=k) for k in numbers]
                cases += [Case(folder, (name,), *common, rule=rule) for name in alike for rule in DYNAMIC]
    say(f"served_simulated: {len(cases)} trainings by {scale.processes} processes")
    if scale.processes == 1:
        rows = [row for case in cases for row in simulate(case)]
    else:
        with ProcessPoolExecutor(scale.processes, mp_context=multiprocessing.get_context("spawn")) as pool:
            rows = [row for made in pool.map(simulate, cases) for row in made]
    return {"mpi": "without MPI", "judged": scale.judged, "rows": rows}


def report(result: dict[str, Any]) -> str:
    """A table a scenario, in Markdown."""
    return "\n".join(_scenario(result, name) for name in dict.fromkeys(row["scenario"] for row in result["rows"]))


def _scenario(result: dict[str, Any], scenario: str) -> str:
    goal = str(result["judged"] or float(SCENARIOS[scenario].judged))
    runs: dict[str, dict[int, dict[str, float | None]]] = {}
    for row in result["rows"]:
        if row["scenario"] == scenario:
            runs.setdefault(row["rule"], {})[row["seed"]] = row["seconds"]
    static = [rule for rule in runs if rule not in DYNAMIC]
    tuned = min(static, key=lambda rule: _median([seconds[goal] for seconds in runs[rule].values()]))
    every = f"k = {WORKERS}"
    columns = sorted({a for seconds in runs[tuned].values() for a in seconds}, key=float)
    lines = []
    for rule, by_seed in runs.items():
        cells = [_median([seconds[a] for seconds in by_seed.values()]) for a in columns]
        paired = [_ratio(by_seed, runs[other], goal) for other in (tuned, every)]
        lines.append([rule, *(_short(cell) for cell in cells), *(_short(each) for each in paired)])
    header = ["rule", *(f"s to {float(a):.0%}" for a in columns), "/ best fixed", "/ all 8"]
    near = TO_EVERY_STATIC if SCENARIOS[scenario].settings is None else TO_TUNED
    to_tuned, to_all, fixed = (_ratio(runs[a], runs[b], goal) for a, b in (("dbw", tuned), ("dbw", every), (tuned, every)))
    claims = [
        [f"dbw / {tuned}, the best fixed", _short(to_tuned), f"{near:.2f}", verdict(to_tuned <= near), None],
        ["dbw / all 8", _short(to_all), f"{TO_BSP:.2f}", verdict(to_all <= TO_BSP), _short(fixed)],
    ]
    seeds = len(runs[tuned])
    words = f"{SCENARIOS[scenario].words}, and {1000 * OVERHEAD:g} ms more; {seeds} seeds, medians; ratios are of one seed"
    return "\n".join(
        [
            f"**{scenario}**: {words}", "", table(header, lines),
            table([f"to {float(goal):.0%}", "ratio", "at most", "", "best fixed's"], claims),
        ]
    )  # fmt: skip


def _median(times: list[float | None]) -> float:
    return statistics.median(math.inf if time is None else time for time in times)


def _ratio(of: dict[int, dict[str, float | None]], to: dict[int, dict[str, float | None]], goal: str) -> float:
    pairs = [(of[seed][goal], to[seed][goal]) for seed in of]
    return statistics.median(math.inf if a is None or b is None else a / b for a, b in pairs)


def _short(value: float) -> str | None:
    return f"{value:.2f}" if math.isfinite(value) else None
