"""(h) Time to a quality with a parameter server: MNIST, eight workers that are slow at times, and dtur without a server."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import Any

from benchmarks.jobs import launch, say
from benchmarks.markdown import table, verdict
from benchmarks.simulated.pictures import save
from benchmarks.stats import Bound, median_ratio, median_time
from benchmarks.stragglers import JUDGED, Target, median_curve
from consensus.run.results import Metrics, seconds_to
from consensus.timing import ShiftedExponential
from consensus.types import Seconds

ACCURACIES = (".85", ".9", ".93", ".95")

CONSTANT, PROPORTIONAL = "constant", "k/n"


@dataclass(frozen=True)
class Entry:
    """A rule, and whether a server applies it."""

    settings: tuple[str, ...]
    served: bool = True


RULES: Mapping[str, Entry] = MappingProxyType(
    {
        "bsp": Entry(("rule.name=bsp",)),
        **{f"backup b={b}": Entry(("rule.name=backup", f"rule.b={b}")) for b in range(1, 8)},
        "dbw": Entry(("rule.name=dbw",)),
        "asp": Entry(("rule.name=asp",)),
        "ssp s=3": Entry(("rule.name=ssp", "rule.s=3")),
        "elastic R=15": Entry(("rule.name=elastic", "rule.R=15")),
        "dtur": Entry(("rule.name=dtur",), served=False),
    }
)
"""By the name of the row."""

STATIC = tuple(name for name in RULES if name == "bsp" or name.startswith("backup"))
"""Those that wait for so many gradients, always: bsp is backup with b = 0."""

AGAIN = ("bsp", *(f"backup b={b}" for b in range(1, 6)), "dbw")
"""Those whose ratios are judged, so that they are measured with every seed; the others with the first."""

ONE_BY_ONE = ("asp", "ssp s=3", "elastic R=15")
"""Those that apply single gradients. With full steps they diverge, so theirs are k/n as long everywhere."""

STEPS, BEFORE, SLOWER = 1000, 50, 4.0
"""Steps that are written down for a worker that slows down, after how many of its own that is, and how many times slower."""

STEADY = ShiftedExponential(shift=0.036, mean=0.004)
"""Its steps until then: nobody has much to wait for."""


def slowing(workers: int, seed: int) -> list[str]:
    """Straggler settings: the first half of the workers becomes slower, all at the same step of theirs."""
    durations = []
    for worker in range(workers):
        stream = STEADY.stream(worker, seed)
        factors = [SLOWER if worker < workers // 2 and step >= BEFORE else 1.0 for step in range(STEPS)]
        durations.append([round(factor * stream.next(), 5) for factor in factors])
    return ["stragglers.model=replay", f"stragglers.durations={json.dumps(durations)}"]


@dataclass(frozen=True)
class Scenario:
    """Stragglers, in words and as settings (``None``: :func:`slowing`); learning rate, its rule for synchronous rules, goal."""

    words: str
    settings: tuple[str, ...] | None
    rate: str
    lr: float = 0.5
    judged: str = JUDGED

    def stragglers(self, workers: int, seed: int) -> list[str]:
        """Settings of the run file."""
        return slowing(workers, seed) if self.settings is None else list(self.settings)


SCENARIOS: Mapping[str, Scenario] = MappingProxyType(
    {
        "exponential": Scenario(
            "a step takes 40 ms times 0.5 + Exp(0.5)",
            ("stragglers.model=shifted_exponential", "stragglers.shift=0.02", "stragglers.mean=0.02"),
            CONSTANT,
        ),
        "transient": Scenario(
            "a step takes 30 ms, and one in twenty 300 ms",
            ("stragglers.model=transient", "stragglers.seconds=0.03", "stragglers.probability=0.05", "stragglers.factor=10"),
            CONSTANT,
        ),
        "slowing": Scenario(
            f"a step takes 40 ms times 0.9 + Exp(0.1); from the {BEFORE}th step on four of the eight are {SLOWER:g} times slower",
            None,
            PROPORTIONAL,
            lr=0.2,
            judged=".9",
        ),
    }
)
"""Round trips are long enough that nine ranks on two processors spend most of their time asleep, as nine machines would."""

RATES: Mapping[str, str] = MappingProxyType(
    {
        CONSTANT: 'server.learning_rate={ name = "constant" }',
        PROPORTIONAL: 'server.learning_rate={ name = "proportional" }',
    }
)
"""Settings by learning rate rule."""

TO_TUNED, TO_BSP, TO_EVERY_STATIC = 1.15, 1 / 1.5, 1.0
"""At most so much of the time of the best static number of backups for dbw, of bsp's, and of the best's where half slow down."""

TO_ALL = "dbw / bsp"
"""What the second of these is about; what the best static number reaches stands beside it."""

DRAWN = ("bsp", "asp", "ssp s=3", "dbw", "elastic R=15", "dtur")
"""In the pictures, beside the best static number of backups."""


@dataclass(frozen=True)
class Scale:
    """How much is measured: scenarios, rules, seeds, workers, seconds of training, and settings beside them.

    With seeds after the first only the rules of ``again`` are measured.
    """

    scenarios: tuple[str, ...] = tuple(SCENARIOS)
    rules: tuple[str, ...] = tuple(RULES)
    again: tuple[str, ...] = AGAIN
    seeds: tuple[int, ...] = (1, 2, 3, 4, 5)
    workers: int = 8
    seconds: float = 12.0
    file: str = "mnist"
    extra: tuple[str, ...] = ("topology.kind=torus", "evaluation.test_samples=4000")


QUICK = Scale(
    scenarios=("transient",),
    rules=("bsp", "backup b=1", "dbw", "asp", "dtur"),
    again=("bsp", "backup b=1", "dbw"),
    seeds=(1, 2),
    workers=2,
    seconds=1.0,
    file="digits",
    extra=("topology.kind=complete",),
)
"""Digits: no files are needed."""


NEIGHBOURS_RATE = "each its own"
"""In place of a learning rate rule: neighbours make their own steps, each with the whole learning rate, and average models."""


def rate(scenario: str, rule: str) -> str:
    """The learning rate rule that a rule has in a scenario, for the table.

    Examples
    --------
    >>> rate("transient", "dbw"), rate("transient", "asp"), rate("slowing", "dbw")
    ('constant', 'k/n', 'k/n')
    """
    if not RULES[rule].served:
        return NEIGHBOURS_RATE
    return PROPORTIONAL if rule in ONE_BY_ONE else SCENARIOS[scenario].rate


def settings(scenario: str, rule: str, workers: int) -> list[str]:
    """What a rule changes in the run file, the number of its ranks included."""
    entry = RULES[rule]
    if not entry.served:
        return [*entry.settings, f"run.ranks={workers}"]
    return [*entry.settings, RATES[rate(scenario, rule)], f"run.ranks={workers + 1}"]


def run(scale: Scale, data_dir: Path | None) -> dict[str, Any]:
    """Measure: for each scenario and seed an MPI job of the workers and a server, and one of the workers alone."""
    cases = []
    mpi = ""
    for number, seed in enumerate(scale.seeds):
        for scenario in scale.scenarios:
            common = [
                f"run.seed={seed}", f"run.stop={{ seconds = {scale.seconds} }}", "run.trace=false", "run.record=false",
                f"optimizer.lr={SCENARIOS[scenario].lr}", *scale.extra, *SCENARIOS[scenario].stragglers(scale.workers, seed),
            ]  # fmt: skip
            for served in (True, False):
                names = [name for name in (scale.again if number else scale.rules) if RULES[name].served is served]
                if not names:
                    continue
                ranks = scale.workers + served
                say(f"served: {scenario}, seed {seed}, {len(names)} rules of {scale.seconds:g} s on {ranks} ranks")
                specification = {
                    "file": scale.file,
                    "data_dir": None if data_dir is None else str(data_dir),
                    "settings": common,
                    "rules": {name: settings(scenario, name, scale.workers) for name in names},
                }
                result = launch("served", ranks, specification, limit=120 + len(names) * (3 * scale.seconds + 30))
                mpi = result["mpi"]
                cases += [{"scenario": scenario, "seed": seed, "rule": name, **row} for name, row in result["rules"].items()]
    return {"mpi": mpi, "seconds": scale.seconds, "workers": scale.workers, "cases": cases}


def row(metrics: list[Metrics], limit: Seconds, batch: int, makers: int) -> dict[str, Any]:
    """What is kept of a run, up to its limit.

    Parameters
    ----------
    metrics
        Its lines.
    limit
        When the workers stop, seconds; what is reached after that is not counted for anybody.
    batch
        Samples of a gradient.
    makers
        Ranks that make updates: 1 with a server, otherwise all, and ``updates`` is then the mean of their rounds.
    """
    lines = [line for line in metrics if line.seconds <= limit]
    start = Metrics(0.0, 0, 0, 0.0, 0.0, 0.0, 0.0)
    backups = sum((now.rounds - before.rounds) * now.mean_backups for before, now in pairwise([start, *lines]))
    last = lines[-1]
    return {
        "targets": seconds_to(lines),
        "seconds": last.seconds,
        "updates": round(last.rounds / makers, 1),
        "gradients": round(last.samples / batch),
        "backups": round(backups / last.rounds, 3) if last.rounds else 0.0,
        "curve": [[round(line.seconds, 3), round(line.accuracy, 4)] for line in lines],
        "backups_at": [[round(line.seconds, 3), round(line.mean_backups, 2)] for line in lines],
    }


Times = Mapping[str, Mapping[int, float | None]]
"""By rule and seed: the seconds to an accuracy; None if they were not enough."""


def times(result: dict[str, Any], scenario: str, accuracy: str) -> Times:
    """The times of a scenario's runs."""
    return {rule: {case["seed"]: case["targets"][accuracy] for case in runs} for rule, runs in _cases(result, scenario).items()}


def ratio(judged: Times, rule: str, other: str | None, limit: Seconds) -> Bound | None:
    """The median over seeds of a rule's time in units of another's, each run with the one of the same seed.

    Examples
    --------
    >>> str(ratio({"dbw": {1: 4.0, 2: 5.0, 3: 6.0}, "bsp": {1: 8.0, 2: 8.0, 3: 24.0}, "asp": {2: 2.5}}, "dbw", "bsp", 30.0))
    '0.50'
    >>> str(ratio({"dbw": {1: 4.0, 2: 5.0}, "asp": {2: 2.5}}, "asp", "dbw", 30.0))
    '0.50'
    """
    if rule not in judged or other not in judged:
        return None
    seeds = [seed for seed in judged[rule] if seed in judged[other]]
    return median_ratio(*([judged[name][seed] for seed in seeds] for name in (rule, other)), limit) if seeds else None


def best(judged: Times) -> str | None:
    """The static number of backups of the smallest median time, of those that have as many seeds as bsp; None if none came."""
    most = max((len(judged[name]) for name in STATIC if name in judged), default=0)
    medians = {name: _median(judged[name]) for name in STATIC if name in judged and len(judged[name]) == most}
    came = {name: time for name, time in medians.items() if time is not None}
    return min(came, key=lambda name: came[name]) if came else None


def targets(result: dict[str, Any], scenario: str) -> list[Target]:
    """What dbw has to show, as far as the rules were measured."""
    judged, limit = times(result, scenario, SCENARIOS[scenario].judged), result["seconds"]
    tuned = best(judged)
    slows = SCENARIOS[scenario].settings is None
    to_tuned = f"dbw / {tuned}, the best static one"
    claims = []
    for name, words, at_most in ((tuned, to_tuned, TO_EVERY_STATIC if slows else TO_TUNED), ("bsp", TO_ALL, TO_BSP)):
        if "dbw" in judged and name in judged:
            claims.append(Target(words, ratio(judged, "dbw", name, limit), at_most, _median(judged[name]) is not None))
    return claims


def report(result: dict[str, Any]) -> str:
    """A table a scenario, and the targets, in Markdown."""
    return "\n".join(_scenario(result, name) for name in dict.fromkeys(case["scenario"] for case in result["cases"]))


def _scenario(result: dict[str, Any], scenario: str) -> str:
    limit, workers = result["seconds"], result["workers"]
    cases = _cases(result, scenario)
    by_accuracy = {accuracy: times(result, scenario, accuracy) for accuracy in ACCURACIES}
    goal = SCENARIOS[scenario].judged
    judged = by_accuracy[goal]
    tuned = best(judged)
    against = {"bsp": "bsp", "best static": tuned, "dbw": "dbw"}
    rows: list[list[object]] = []
    for rule, runs in cases.items():
        pace = {key: statistics.median(case[key] / case["seconds"] for case in runs) for key in ("updates", "gradients")}
        rows.append(
            [
                rule, rate(scenario, rule), len(runs), f"{pace['updates']:.1f}", f"{pace['gradients']:.0f}",
                f"{statistics.median(case['backups'] for case in runs):.2f}" if rule not in ONE_BY_ONE else None,
                *(_seconds(_median(found[rule])) for found in by_accuracy.values()),
                *(ratio(judged, rule, name, limit) for name in against.values()),
            ]
        )  # fmt: skip
    header = [
        "rule", "learning rate", "seeds", "updates/s", "gradients/s", "mean backups",
        *(f"s to {float(accuracy):.0%}" for accuracy in ACCURACIES),
        *(f"/ {words}" for words in against),
    ]  # fmt: skip
    length = f"{workers} workers, {limit:g} s, medians over seeds; ratios of the times to {float(goal):.0%}"
    lines = [f"**{scenario}**: {SCENARIOS[scenario].words}; {length}", "", table(header, rows)]
    static = ratio(judged, tuned, "bsp", limit) if tuned is not None else None
    claims = [
        [t.words, t.ratio, f"{t.at_most:.2f}", verdict(t.met), static if t.words == TO_ALL else None]
        for t in targets(result, scenario)
    ]
    if "dtur" in judged and "dbw" in judged:
        claims.append(["dtur / dbw: what leaving the server buys", ratio(judged, "dtur", "dbw", limit), None, None, None])
    return "\n".join([*lines, table([f"to {float(goal):.0%}", "ratio", "at most", "", "best static's"], claims)])


def _cases(result: dict[str, Any], scenario: str) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for case in result["cases"]:
        if case["scenario"] == scenario:
            found.setdefault(case["rule"], []).append(case)
    return found


def _median(by_seed: Mapping[int, float | None]) -> float | None:
    return median_time(list(by_seed.values()))


def _seconds(time: float | None) -> str | None:
    return None if time is None else f"{time:.2f}"


def draw(result: dict[str, Any], folder: Path) -> list[Path]:
    """A picture a scenario: accuracy against seconds, and below it how many backups dbw has."""
    from matplotlib.figure import Figure

    drawn = []
    for scenario in dict.fromkeys(case["scenario"] for case in result["cases"]):
        figure = Figure(figsize=(8, 6.5), layout="constrained")
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=[4, 1])
        cases = _cases(result, scenario)
        tuned = best(times(result, scenario, SCENARIOS[scenario].judged))
        for rule in (name for name in cases if name in (*DRAWN, tuned)):
            points = median_curve([case["curve"] for case in cases[rule]])
            wide = 2.4 if rule in ("dbw", "dtur") else 1.3
            above.plot(*zip(*points, strict=True), label=rule, linewidth=wide, linestyle="-" if RULES[rule].served else "--")
        for case in cases.get("dbw", []):
            below.step(*zip(*case["backups_at"], strict=True), where="pre", color="tab:gray")
        above.set(ylabel="test accuracy", ylim=(0.6, 1.0), xlim=(0, result["seconds"]))
        above.set_title(f"MNIST, {result['workers']} workers, {scenario}:\n{SCENARIOS[scenario].words}", fontsize=9)
        above.legend(loc="lower right", fontsize=8)
        below.set(xlabel="seconds", ylabel="backups of dbw", ylim=(-0.2, result["workers"]))
        for axes in (above, below):
            axes.grid(alpha=0.3)
        drawn.append(save(figure, folder / f"served-{scenario}.png"))
    return drawn
