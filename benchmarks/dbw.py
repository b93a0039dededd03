"""(h) How many gradients to wait for: dynamic backup workers against every fixed number, simulated; real gradients of MNIST."""

from __future__ import annotations

import math
import multiprocessing
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from benchmarks.jobs import say
from benchmarks.markdown import replaced, table, verdict
from benchmarks.simulated.pictures import save
from benchmarks.simulated.served import Learner, Slowing, Streams, learn, one_thread, reached, round_trips, train, versions
from consensus.rules.rates import build_rate
from consensus.rules.serving import build_server
from consensus.sim.kernel import Kernel
from consensus.timing import Stream

WORKERS = 16

TARGET = 0.25
"""The training loss that is waited for: one gradient of 16 samples at a time gets there too, though hardly lower."""

LR: Mapping[str, float] = MappingProxyType({"constant": 0.1, "proportional": 0.2})
"""By learning rate rule; the second is that of all 16 gradients."""

MIXED, SLOWER = 0.2, 4.0
"""Where half of the workers slow down: a of the round trips, and by how much."""

DYNAMIC: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {"dbw": {}, "blind": {"blind": True}, "one ahead": {"horizon": 1}},
)
"""Parameters of the rule by the word in tables."""

NEAR, FASTER = 1.15, 1.5
"""dbw takes at most so much of the time of the best fixed k, and all k = n at least so much of dbw's where stragglers matter."""

MATTER = 0.5
"""a from which on they do."""

DRAWN = (("constant", 0.2), ("constant", 1.0), ("proportional", 1.0), ("proportional", None))
"""What the picture shows: the learning rate rule, and a; None: half slow down."""


@dataclass(frozen=True)
class Scale:
    """How much is simulated: seeds, and the numbers k that are tried, by batch."""

    seeds: Mapping[int, tuple[int, ...]]
    numbers: Mapping[int, tuple[int, ...]]
    spreads: tuple[float, ...] = (0.0, 0.2, 0.5, 1.0)
    rates: tuple[str, ...] = tuple(LR)
    ahead: tuple[int, ...] = (16,)
    target: float = TARGET
    most: int = 4000
    processes: int = 2


FULL = Scale(
    seeds={16: (1, 2, 3), 128: (1,), 500: (1,)},
    numbers={16: (1, 2, 4, 6, 8, 10, 12, 14, 16), 128: (1, 2, 4, 8, 12, 16), 500: (1, 4, 8, 12, 16)},
)

QUICK = Scale(
    seeds={16: (1,)}, numbers={16: (1, 4, 8, 16)}, spreads=(0.2, 1.0), rates=("proportional",), ahead=(), target=0.8, processes=1
)


@dataclass(frozen=True)
class Case:
    """One training: fixed ``k`` gradients, or the rule called ``rule``.

    With fixed k it does not matter for what is learnt when the updates are made: one training stands for all ``spreads``.
    ``slow_at``: when half of the workers slow down, if they do.
    """

    folder: Path
    batch: int
    rate: str
    seed: int
    target: float
    most: int
    spreads: tuple[float, ...]
    k: int | None = None
    rule: str = ""
    slow_at: float | None = None

    @property
    def work(self) -> float:
        """About how long it takes, in arbitrary units."""
        return self.batch * (WORKERS if self.rate == "proportional" or self.k is None else self.k)


def streams(a: float, seed: int, slow_at: float | None) -> Streams:
    """The workers' steps; every other worker is slower from ``slow_at`` on."""

    def drawn(kernel: Kernel) -> Sequence[Stream]:
        steps = [round_trips(a).stream(rank, seed) for rank in range(1, WORKERS + 1)]
        if slow_at is None:
            return steps
        return [Slowing(each, kernel, slow_at, SLOWER) if worker % 2 else each for worker, each in enumerate(steps)]

    return drawn


def simulate(case: Case) -> dict[str, Any]:
    """Train, and say how long it took: a row for each of the case's spreads."""
    told = {"batch": case.batch, "rate": case.rate, "seed": case.seed, "slow_at": case.slow_at}
    with one_thread():
        if case.k is not None:
            updates = learn(_learner(case), case.k, build_rate(case.rate)(case.k, WORKERS), case.most)
            return {**told, "k": case.k, "updates": updates, "seconds": fixed(case.k, updates, case)}
        (a,) = case.spreads
        learner = _learner(case)
        rule = build_server("dbw", **DYNAMIC[case.rule])
        made = train(rule, streams(a, case.seed, case.slow_at), learner, factor=build_rate(case.rate), most=case.most)
        updates = reached(learner.losses, case.target)
        taken = {str(a): _when(updates, made.times)}
        return {**told, "rule": case.rule, "updates": updates, "seconds": taken, "at": made.times[1:], "counts": made.counts[1:]}


def fixed(k: int, updates: float, case: Case) -> dict[str, float]:
    """When so many updates with k gradients have been made, by spread."""
    if updates == math.inf:
        return {str(a): math.inf for a in case.spreads}
    rule = build_server("backup", b=WORKERS - k)
    most = math.ceil(updates)
    return {str(a): _when(updates, versions(rule, streams(a, case.seed, case.slow_at), most)) for a in case.spreads}


def _when(updates: float, made: Sequence[float]) -> float:
    return float(np.interp(updates, range(len(made)), made)) if updates < math.inf else math.inf


def _learner(case: Case) -> Learner:
    return Learner(case.folder, case.batch, LR[case.rate], case.target, case.seed)


def run(scale: Scale, folder: Path) -> dict[str, Any]:
    """Simulate; what comes out is a function of ``scale`` alone."""

    def case(batch: int, rate: str, seed: int, spreads: tuple[float, ...], **more: Any) -> Case:
        return Case(folder, batch, rate, seed, scale.target, scale.most, spreads, **more)

    each = [(batch, rate, seed) for batch, seeds in scale.seeds.items() for rate in scale.rates for seed in seeds]
    cases = [case(*one, scale.spreads, k=k) for one in each for k in scale.numbers[one[0]]]
    for one in each:
        rules = [rule for rule in DYNAMIC if rule != "one ahead" or one[0] in scale.ahead]
        cases += [case(*one, (a,), rule=rule) for rule in rules for a in scale.spreads]
    rows = _all(simulate, cases, scale.processes)
    slowed = []
    for one in each:
        slow_at = best(rows, *one[:2], MIXED)[1] / 2
        for row in rows:
            if "k" in row and (row["batch"], row["rate"], row["seed"]) == one:
                seconds = fixed(row["k"], row["updates"], case(*one, (MIXED,), slow_at=slow_at))
                slowed.append({**row, "slow_at": slow_at, "seconds": seconds})
    cases = [
        case(*one, (MIXED,), rule=rule, slow_at=best(rows, *one[:2], MIXED)[1] / 2) for one in each for rule in ("dbw", "blind")
    ]
    slowed += _all(simulate, cases, scale.processes)
    return {"mpi": "without MPI", "target": scale.target, "rows": rows, "slowed": slowed}


def _all(work: Callable[[Case], dict[str, Any]], cases: Iterable[Case], processes: int) -> list[dict[str, Any]]:
    todo = sorted(cases, key=lambda case: -case.work)
    say(f"dbw: {len(todo)} trainings by {processes} processes")
    if processes == 1:
        return [work(case) for case in todo]
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        return list(pool.map(work, todo))


# -- what is made of it ---------------------------------------------------------------------------------------------------


def seconds(rows: Sequence[dict[str, Any]], batch: int, rate: str, a: float, name: int | str) -> float:
    """The median over seeds of the time to the target, with k gradients or by a rule; NaN if it was not simulated."""
    found = [
        row["seconds"][str(a)]
        for row in rows
        if (row["batch"], row["rate"]) == (batch, rate) and name in (row.get("k"), row.get("rule")) and str(a) in row["seconds"]
    ]
    return statistics.median(found) if found else math.nan


def best(rows: Sequence[dict[str, Any]], batch: int, rate: str, a: float) -> tuple[int, float]:
    """The fixed k that takes the least time, and that time."""
    numbers = sorted({row["k"] for row in rows if "k" in row and row["batch"] == batch})
    return min(((k, seconds(rows, batch, rate, a, k)) for k in numbers), key=lambda pair: pair[1])


def _grid(rows: Sequence[dict[str, Any]]) -> list[tuple[str, int, float]]:
    return sorted({(row["rate"], row["batch"], float(a)) for row in rows if "k" in row for a in row["seconds"]})


def races(result: dict[str, Any]) -> str:
    """dbw against the fixed numbers, where all workers stay as they are."""
    lines = []
    for rate, batch, a in _grid(result["rows"]):
        k, least = best(result["rows"], batch, rate, a)
        bsp, dbw, blind, ahead = (
            seconds(result["rows"], batch, rate, a, name) for name in (WORKERS, "dbw", "blind", "one ahead")
        )
        ratio = _short(bsp / dbw, 2) or "never"
        faster = f"{ratio}: {verdict(bsp / dbw >= FASTER)}" if a >= MATTER else ratio
        near = f"{dbw / least:.2f}: {verdict(dbw / least <= NEAR)}"
        lines.append([rate, batch, a, f"k = {k}", *map(_short, (least, bsp, blind, ahead, dbw)), near, faster])
    header = [
        "learning rate", "batch", "a", "best fixed", "its s", "all 16, s", "blind, s", "one ahead, s", "dbw, s",
        f"dbw / best <= {NEAR}", f"all / dbw >= {FASTER}",
    ]  # fmt: skip
    return table(header, lines)


def slowdowns(result: dict[str, Any]) -> str:
    """The same where half of the workers slow down."""
    lines = []
    for rate, batch, a in _grid(result["slowed"]):
        rows = result["slowed"]
        before, _ = best(result["rows"], batch, rate, a)
        k, least = best(rows, batch, rate, a)
        known, bsp, blind, dbw = (seconds(rows, batch, rate, a, name) for name in (before, WORKERS, "blind", "dbw"))
        share = f"{dbw / least:.2f}: {verdict(dbw < least)}"
        lines.append([rate, batch, f"k = {k}", *map(_short, (least, known, bsp, blind, dbw)), share])
    header = [
        "learning rate", "batch", "best fixed", "its s", "best before, s", "all 16, s", "blind, s", "dbw, s", "dbw / best < 1",
    ]  # fmt: skip
    return table(header, lines)


def updates(result: dict[str, Any]) -> str:
    """Updates that fixed numbers take."""
    numbers = sorted({row["k"] for row in result["rows"] if "k" in row})
    found: dict[tuple[str, int], dict[int, list[float]]] = {}
    for row in result["rows"]:
        if "k" in row:
            found.setdefault((row["rate"], row["batch"]), {}).setdefault(row["k"], []).append(row["updates"])
    lines = [
        [rate, batch, *(_short(statistics.median(taken[k]), 0) if k in taken else None for k in numbers)]
        for (rate, batch), taken in sorted(found.items())
    ]
    return table(["learning rate", "batch", *(f"k = {k}" for k in numbers)], lines)


def _short(value: float, digits: int = 1) -> str | None:
    return f"{value:.{digits}f}" if math.isfinite(value) else None


def report(result: dict[str, Any]) -> str:
    """All tables, in Markdown."""
    parts = (
        (f"Seconds to a loss of {result['target']}", races(result)),
        ("Half of the workers slow down midway", slowdowns(result)),
        ("Updates that fixed numbers of gradients take", updates(result)),
    )
    return "\n".join(f"**{title}**\n\n{text}" for title, text in parts)


def draw(result: dict[str, Any], folder: Path) -> list[Path]:
    """The numbers that dbw chose, with the smallest batch and the first seed."""
    from matplotlib.figure import Figure

    batch = min(row["batch"] for row in result["rows"])
    shown = []
    for rate, a in DRAWN:
        rows, spread = (result["slowed"], MIXED) if a is None else (result["rows"], a)
        chosen = [row for row in rows if (row["batch"], row["rate"], row.get("rule")) == (batch, rate, "dbw")]
        shown += [(rate, a, spread, row, rows) for row in chosen if str(spread) in row["seconds"]][:1]
    figure = Figure(figsize=(3.4 * max(len(shown), 1), 3.2), layout="constrained")
    for number, (rate, a, spread, row, rows) in enumerate(shown, 1):
        axes = figure.add_subplot(1, len(shown), number)
        k, _ = best(rows, batch, rate, spread)
        axes.step(row["at"], row["counts"], where="pre", color="tab:red", linewidth=0.8, label="dbw")
        axes.axhline(k, color="tab:gray", linestyle="--", label="best fixed")
        if row["slow_at"] is not None:
            axes.axvline(row["slow_at"], color="black", linestyle=":")
        axes.set(title=f"{rate}, " + (f"a = {a}" if a is not None else "half slow down"), xlabel="seconds", ylim=(0, WORKERS + 1))
        axes.set_ylabel("gradients waited for")
        axes.legend(loc="lower right")
    return [save(figure, folder / "dbw-choices.png")]


def publish(result: dict[str, Any], docs: Path) -> None:
    """Write the tables into ``docs/dbw.md``, and the picture beside it."""
    draw(result, docs / "images")
    page = docs / "dbw.md"
    page.write_text(replaced(page.read_text(encoding="utf-8"), "dbw", report(result)), encoding="utf-8")
