"""(j) What gradient coding is worth: seven schemes in a system with slow workers and a slow edge; MNIST, CIFAR-10, simulated."""

from __future__ import annotations

import math
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from types import MappingProxyType
from typing import Any, ParamSpec, TypeVar

import numpy as np
import torch

from benchmarks.elastic_cifar import until
from benchmarks.jobs import say
from benchmarks.markdown import replaced, table, verdict
from benchmarks.simulated.coded import WORKERS, Regime, part_weights
from benchmarks.simulated.coded_race import JNCSS, Entry, Race, tolerances
from benchmarks.simulated.coded_training import Lesson, deviation, learn
from benchmarks.simulated.pictures import save
from consensus.coding import construct
from consensus.coding.runtime import Tolerance
from consensus.errors import ConsensusError

P = ParamSpec("P")
T = TypeVar("T")

EXACT = ("uncoded", "worker", "edge", "flat", "hgc")
"""Schemes whose updates are exact, so that all learn the same from as many updates."""

GREEDY = "greedy"
"""The one that is not."""

GIVEN: Tolerance = (1, 1)
"""The tolerance of those that choose none, next to the best one of each."""

FASTER, NEAR, PUBLISHED = 2.0, 1.03, 4.37
"""hgc-jncss should be so much faster than uncoded, take at most so much of the time of the best other exact scheme; the
largest gain over uncoded that the paper reports."""

SAME = 1e-4
"""By so much may a loss of the real master differ, relative, from that of one process that computes each part once."""

LINES: Mapping[str, str] = MappingProxyType(
    {
        "uncoded": "black",
        "greedy": "tab:gray",
        "worker": "tab:blue",
        "edge": "tab:cyan",
        "flat": "tab:orange",
        "hgc": "tab:green",
        JNCSS: "tab:red",
    }
)
"""Colours of the picture."""


@dataclass(frozen=True)
class Subject:
    """What is learnt, how many updates of it, how often it is judged, and the accuracies that are waited for."""

    lesson: Lesson
    updates: int
    accuracies: tuple[float, ...]
    every: int = 10
    samples: int = 2000
    greedy: tuple[Tolerance, ...] = (GIVEN, (1, 2), (2, 3))


@dataclass(frozen=True)
class Scale:
    """How much is simulated: subjects; regimes; updates of a measurement, and of a trial of a tolerance; how many times as many
    where all workers are alike, and chance has more of a say; tolerances that are tried of a scheme, in the first system and
    in regimes; updates of the real models."""

    subjects: tuple[Subject, ...]
    regimes: tuple[Regime, ...]
    updates: int = 500
    regime_updates: int = 200
    trial: int = 80
    alike: int = 5
    tried: int = 24
    regime_tried: int = 3
    real: int = 4
    seed: int = 1


MNIST = Subject(Lesson("mnist", "2nn", batch=16, lr=0.3), updates=500, accuracies=(0.9, 0.95))
FULL = Scale(
    subjects=(
        MNIST,
        Subject(Lesson("mnist", "2nn", batch=16, lr=0.3, partition="by-class"), updates=500, accuracies=(0.9, 0.95)),
        Subject(Lesson("cifar10", "cnn", batch=4, lr=0.1), updates=500, accuracies=(0.35, 0.45), every=20, samples=1000),
    ),
    regimes=(
        *(Regime(slow=slow, edge=edge) for slow in (5.0, 10.0, 20.0) for edge in (1.0, 10.0, 40.0)),
        Regime(share=0.1, slow=20.0),
        Regime(share=0.3),
        Regime(parts=2),
        Regime(parts=4),
        Regime(lost=0.4),
        Regime(slow=1.0, edge=1.0, scatter=0.04),
        Regime(passing=True),
        Regime(passing=True, edge=1.0),
        Regime(passing=True, edge=1.0, share=0.05),
    ),
)

QUICK = Scale(
    subjects=(
        Subject(Lesson("digits", "2nn", batch=4, lr=0.2), updates=60, accuracies=(0.5, 0.7), samples=200, greedy=(GIVEN,)),
    ),
    regimes=(Regime(), Regime(edge=1.0)),
    updates=60,
    regime_updates=30,
    trial=20,
    alike=1,
    tried=3,
    regime_tried=2,
    real=2,
)


# -- what is measured -----------------------------------------------------------------------------------------------------


def given(scheme: str) -> Tolerance:
    """:data:`GIVEN` as far as a scheme makes something of it.

    Examples
    --------
    >>> given("hgc"), given("edge")
    ((1, 1), (1, 0))
    """
    return max(tolerance for tolerance in tolerances(scheme, WORKERS) if tolerance[0] <= GIVEN[0] and tolerance[1] <= GIVEN[1])


def race(scale: Scale) -> list[Entry]:
    """All schemes in the first system, each at the given tolerance and at its best one."""
    contest = Race(Regime(), scale.updates, scale.trial, scale.tried, scale.seed)
    entries = [contest.measure("uncoded", "uncoded", (0, 0))]
    for scheme in EXACT[1:]:
        own, best = given(scheme), contest.best(scheme)
        entries.append(contest.measure(scheme, scheme, own))
        entries.append(contest.measure(f"{scheme}, best", scheme, best))
    greedy = dict.fromkeys(tolerance for subject in scale.subjects for tolerance in subject.greedy)
    entries += [contest.measure(GREEDY, GREEDY, tolerance) for tolerance in greedy]
    return [*entries, contest.selected(), contest.dropped(False), contest.dropped(True)]


def regime_row(regime: Regime, scale: Scale) -> dict[str, Any]:
    """hgc-jncss against uncoded and against the best other exact scheme in a regime."""
    longer = scale.alike if regime.alike else 1
    contest = Race(regime, longer * scale.regime_updates, longer * scale.trial, scale.regime_tried, scale.seed)
    others = [contest.measure(scheme, scheme, contest.best(scheme)) for scheme in EXACT]
    chosen, dropped = contest.selected(), contest.dropped(False)
    best = min(others, key=lambda entry: entry.made.pace)
    return {
        "regime": asdict(regime),
        "uncoded": others[0].made.pace,
        "chosen": {"tolerance": chosen.tolerance, "seconds": chosen.made.pace, "model": chosen.model},
        "best": {"scheme": best.scheme, "tolerance": best.tolerance, "seconds": best.made.pace},
        "dropped": dropped.made.pace,
    }


# -- learning -------------------------------------------------------------------------------------------------------------


def lesson(subject: Subject, entries: Sequence[Entry], scale: Scale, folder: Path | None) -> dict[str, Any]:
    """Train with exact gradients and with greedy's, and hold both against real models."""
    learning, updates = subject.lesson, subject.updates
    config = learning.config(WORKERS, Regime().count, scale.seed, folder)
    judged = subject.every, subject.samples
    exact = learn(config, [np.ones(Regime().count)] * updates, *judged)
    greedy = []
    for entry in entries:
        if entry.scheme == GREEDY and entry.tolerance in subject.greedy:
            weights = [part_weights(entry.code, used) for used in entry.made.used[:updates]]
            greedy.append({"tolerance": entry.tolerance, "accuracy": learn(config, weights, *judged)})
    system = Regime().system()
    real = {
        scheme: deviation(config, construct(scheme, WORKERS, Regime().count, *GIVEN), system, scale.real)
        for scheme in ("hgc", GREEDY)
    }
    return {
        **asdict(learning),
        "every": subject.every,
        "updates": updates,
        "accuracies": subject.accuracies,
        "exact": exact,
        "greedy": greedy,
        "deviation": real,
    }


def run(scale: Scale, folders: Mapping[str, Path | None]) -> dict[str, Any]:
    """Simulate; what comes out is a function of ``scale`` and the data alone.

    Parameters
    ----------
    scale
        How much.
    folders
        Where each data set is, by name.
    """
    most = max(subject.updates for subject in scale.subjects)
    if most > scale.updates:
        raise ConsensusError(f"updates = {scale.updates}: expected {most} or more, as many as are learnt from")
    # What becomes of one system, or of one subject, does not depend on the others.
    with ProcessPoolExecutor(len(os.sched_getaffinity(0)), get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        racing = pool.submit(_timed, "schemes", race, scale)
        measuring = [pool.submit(_timed, str(regime), regime_row, regime, scale) for regime in scale.regimes]
        entries = racing.result()
        learning = [
            pool.submit(
                _timed, f"{subject.lesson.data}, {subject.lesson.partition}", lesson, subject, entries, scale,
                folders[subject.lesson.data],
            )
            for subject in scale.subjects
        ]  # fmt: skip
        regimes, lessons = ([future.result() for future in futures] for futures in (measuring, learning))
    return {
        "mpi": "without MPI",
        "schemes": [_row(entry, lessons) for entry in entries],
        "regimes": regimes,
        "lessons": lessons,
        "inexact": max(_inexact(entry) for entry in entries if entry.scheme != GREEDY),
    }


def _timed(what: str, do: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
    began = time.process_time()
    done = do(*arguments, **options)
    say(f"coded: {what}: {time.process_time() - began:.0f} s of a processor")
    return done


def _row(entry: Entry, lessons: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    every = math.gcd(*(learnt["every"] for learnt in lessons))
    return {**entry.told(), "every": every, "at": [round(when, 5) for when in entry.made.times[every - 1 :: every]]}


def _inexact(entry: Entry) -> float:
    """How far from 1 what any part's gradient was multiplied by was, at most, over all updates."""
    return float(max(np.abs(part_weights(entry.code, used) - 1.0).max() for used in entry.made.used))


# -- what is made of it ---------------------------------------------------------------------------------------------------


def seconds_to(row: Mapping[str, Any], learnt: Mapping[str, Any], accuracy: float) -> float | None:
    """When a scheme's model is that good: the time of the update at which it is; None if it never is, or was not trained.

    Examples
    --------
    >>> learnt = {"every": 2, "exact": [0.1, 0.6, 0.7, 0.8], "greedy": []}
    >>> row = {"scheme": "hgc", "tolerance": [1, 1], "every": 1, "at": [0.5 * update for update in range(1, 9)]}
    >>> seconds_to(row, learnt, 0.65), seconds_to(row, learnt, 0.9)
    (3.0, None)
    """
    curve = accuracies(row, learnt)
    if curve is None:
        return None
    updates = [learnt["every"] * mark for mark in range(1, len(curve) + 1)]
    update = until({"accuracy": curve, "updates": updates}, accuracy, "updates")
    return None if update is None else float(row["at"][int(update) // row["every"] - 1])


def accuracies(row: Mapping[str, Any], learnt: Mapping[str, Any]) -> list[float] | None:
    """The curve of a scheme, against updates; None if it was not trained."""
    if row["scheme"] != GREEDY:
        return list(learnt["exact"])
    return next((list(one["accuracy"]) for one in learnt["greedy"] if list(one["tolerance"]) == list(row["tolerance"])), None)


def name_of(learnt: Mapping[str, Any]) -> str:
    """What is learnt, in words."""
    return f"{learnt['data']}, parts {'alike' if learnt['partition'] == 'iid' else learnt['partition']}"


def schemes(result: Mapping[str, Any]) -> str:
    """All schemes in the first system."""
    rows = result["schemes"]
    uncoded = _labelled(rows, "uncoded")["seconds"]
    goals = [(learnt, accuracy) for learnt in result["lessons"] for accuracy in learnt["accuracies"]]
    lines = []
    for row in rows:
        kappa = None if row["scheme"] == GREEDY else f"{'' if row['kappa_exact'] else 'over '}{row['kappa']:g}"
        cells = [row["label"], _pair(row["tolerance"]), row["load"], kappa, f"{row['seconds']:.3f}", _short(row["model"], 3)]
        cells.append(f"{uncoded / row['seconds']:.2f}")
        lines.append(cells + [_short(seconds_to(row, learnt, accuracy), 1) for learnt, accuracy in goals])
    header = ["scheme", "s_e, s_w", "D", "kappa", "s/update", "by the model", "uncoded / it"]
    return table(header + [f"s to {accuracy:.0%}: {name_of(learnt)}" for learnt, accuracy in goals], lines)


def _labelled(rows: Sequence[Mapping[str, Any]], label: str) -> Mapping[str, Any]:
    return next(row for row in rows if row["label"] == label)


def verdicts(result: Mapping[str, Any]) -> str:
    """The targets."""
    rows = result["schemes"]
    chosen, uncoded = (_labelled(rows, label) for label in (JNCSS, "uncoded"))
    others = [row for row in rows if row["label"].partition(",")[0] in EXACT]
    best = min(others, key=lambda row: row["seconds"])
    gain, lag = uncoded["seconds"] / chosen["seconds"], chosen["seconds"] / best["seconds"]
    told = f"{best['label']} ({_pair(best['tolerance'])})"
    lines: list[list[object]] = [
        [f"uncoded / {JNCSS}, s/update", f"{gain:.2f}", f">= {FASTER:g}", verdict(gain >= FASTER)],
        [f"{JNCSS} / best other exact scheme: {told}", f"{lag:.3f}", f"<= {NEAR:g}", verdict(lag <= NEAR)],
        ["a part's weight in an exact update, distance from 1", f"{result['inexact']:.0e}", "<= 1e-9",
         verdict(result["inexact"] <= 1e-9)],
    ]  # fmt: skip
    for learnt in result["lessons"]:
        for scheme, off in learnt["deviation"].items():
            what = f"{name_of(learnt)}: losses of real {scheme} models and of the training, relative difference"
            lines.append([what, f"{off:.0e}", f"<= {SAME:g}", verdict(off <= SAME)])
    return table(["", "", "target", ""], lines)


def learning(result: Mapping[str, Any]) -> str:
    """What exact and greedy updates learn, time apart."""
    lines = []
    for learnt in result["lessons"]:
        curves = [("exact", learnt["exact"])]
        curves += [(f"greedy ({_pair(one['tolerance'])})", one["accuracy"]) for one in learnt["greedy"]]
        for what, curve in curves:
            lines.append([name_of(learnt), what, learnt["updates"], f"{statistics.fmean(curve[-3:]):.3f}"])
    return table(["", "updates", "number", "accuracy after them"], lines)


def regimes(result: Mapping[str, Any]) -> str:
    """hgc-jncss against uncoded and against the best other scheme, by regime."""
    lines = []
    for row in result["regimes"]:
        regime, chosen, best = Regime(**row["regime"]), row["chosen"], row["best"]
        gain, lag = row["uncoded"] / chosen["seconds"], chosen["seconds"] / best["seconds"]
        lines.append([
            slow_ones(regime), f"{regime.edge:g}", f"{1000 * regime.scatter:g}",
            f"{regime.lost:.0%}", regime.count, _pair(chosen["tolerance"]), f"{row['uncoded']:.3f}", f"{chosen['seconds']:.3f}",
            f"{gain:.2f}",
            f"{best['scheme']} ({_pair(best['tolerance'])})", f"{lag:.3f}: {verdict(lag <= NEAR)}",
            f"{row['uncoded'] / row['dropped']:.2f}",
        ])  # fmt: skip
    header = [
        "slow workers", "slow edge x", "scatter, ms", "lost", "K", "chosen s_e, s_w", "uncoded, s", f"{JNCSS}, s",
        f"uncoded / {JNCSS}", "best other", f"{JNCSS} / it <= {NEAR:g}", "uncoded / slow ones dropped",
    ]  # fmt: skip
    return table(header, lines) + "\n" + reached(result)


def slow_ones(regime: Regime) -> str:
    """Who is slow, and how slow.

    Examples
    --------
    >>> slow_ones(Regime()), slow_ones(Regime(passing=True)), slow_ones(Regime(slow=1.0))
    ('7 x 10', '20% of steps x 10', 'none')
    """
    if regime.slow == 1.0:
        return "none"
    if regime.passing:
        return f"{regime.share:.0%} of steps x {regime.slow:g}"
    return f"{sum(round(regime.share * workers) for workers in WORKERS)} x {regime.slow:g}"


def reached(result: Mapping[str, Any]) -> str:
    """In how many regimes the targets are met, and where the published gain is reached."""
    rows = result["regimes"]
    gains = [row["uncoded"] / row["chosen"]["seconds"] for row in rows]
    near = sum(row["chosen"]["seconds"] <= NEAR * row["best"]["seconds"] for row in rows)
    return (
        f"Of {len(rows)} regimes, {JNCSS} is at least {FASTER:g} times as fast as uncoded in {sum(g >= FASTER for g in gains)}, "
        f"at least {PUBLISHED} times in {sum(g >= PUBLISHED for g in gains)} (at most {max(gains):.2f} times), and within "
        f"{NEAR - 1:.0%} of the best other exact scheme in {near}.\n"
    )


def _pair(tolerance: Sequence[int]) -> str:
    return ", ".join(map(str, tolerance))


def _short(value: float | None, digits: int) -> str | None:
    return None if value is None else f"{value:.{digits}f}"


def report(result: dict[str, Any]) -> str:
    """All tables, in Markdown."""
    parts = (
        ("Seven schemes in one system", schemes(result)),
        ("Targets", verdicts(result)),
        ("What is learnt from as many updates", learning(result)),
        ("Other systems", regimes(result)),
    )
    return "\n".join(f"**{title}**\n\n{text}" for title, text in parts)


def draw(result: dict[str, Any], folder: Path) -> list[Path]:
    """A picture for each thing learnt: accuracy against the clock, of seven schemes."""
    return [_picture(result, learnt, folder) for learnt in result["lessons"]]


def _picture(result: Mapping[str, Any], learnt: Mapping[str, Any], folder: Path) -> Path:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.8), layout="constrained")
    axes = figure.add_subplot()
    rows = result["schemes"]
    greedy = [row for row in rows if row["scheme"] == GREEDY]
    quickest = min(greedy, key=lambda row: seconds_to(row, learnt, learnt["accuracies"][-1]) or math.inf)
    shown = [_labelled(rows, "uncoded"), quickest, *(_labelled(rows, f"{scheme}, best") for scheme in ("worker", "edge", "flat"))]
    for row in (*shown, _labelled(rows, "hgc"), _labelled(rows, JNCSS)):
        curve = accuracies(row, learnt)
        if curve is None:
            continue
        step = learnt["every"] // row["every"]
        name = row["label"].partition(",")[0]
        # Some lie on each other: schemes of the same tolerance are the same.
        line = "--" if name in ("worker", "edge") else "-"
        label = f"{name} ({_pair(row['tolerance'])})"
        axes.plot(row["at"][step - 1 :: step][: len(curve)], curve, color=LINES[name], label=label, linewidth=1.5, linestyle=line)
    axes.set(xscale="log", xlabel="virtual seconds", ylabel="test accuracy", title=name_of(learnt))
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right", fontsize=8)
    return save(figure, folder / f"coded-{learnt['data']}-{learnt['partition']}.png")


def publish(result: dict[str, Any], docs: Path) -> None:
    """Write the tables about time into ``docs/coding.md``, and the first picture beside it."""
    _picture(result, result["lessons"][0], docs / "images")
    page = docs / "coding.md"
    tables = f"{schemes(result)}\n{regimes(result)}"
    page.write_text(replaced(page.read_text(encoding="utf-8"), "coded", tables), encoding="utf-8")
