"""The stall regime: which rule gets how far on which graph, in units of the all-reduce."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from benchmarks.markdown import table
from benchmarks.simulated.descent import ALLREDUCE, GRAPHS, RULES, Case
from benchmarks.simulated.pictures import COLOURS, key, save, style, tick_at
from benchmarks.stats import median_time

PART = "stalls"

TARGETS = (0.1, 0.02, 0.05)
"""Losses, in units of the first one; the last one is judged."""

JUDGED = str(TARGETS[-1])

EASIER = str(TARGETS[0])
"""What sparse graphs reach, too."""

CROWDED = "pathsearch"
"""Cut short with more than 256 workers: it has most messages by far, each of which goes to every worker."""

PUBLISHED: Mapping[int, tuple[float, float]] = MappingProxyType({64: (2.1, 2.5), 128: (2.6, 2.7), 256: (2.6, 3.3)})
"""Throughput of hierarchical SGD over synchronous data-parallel training in this regime, as published."""

SKETCH: Mapping[tuple[str, int], float] = MappingProxyType(
    {
        ("full", 64): 1.87,
        ("full", 256): 2.49,
        ("static_backup b=1", 64): 5.64,
        ("static_backup b=1", 256): 10.5,
        ("static_backup b=2", 64): 8.68,
        ("static_backup b=2", 256): 13.0,
        ("dtur", 64): 6.53,
        ("dtur", 256): 12.2,
        ("gap", 64): 8.58,
        ("gap", 256): 12.9,
    }
)
"""Throughput over all-reduce on 4-regular graphs in a sketch without the engines, where transfers took no time at all."""


@dataclass(frozen=True)
class Scale:
    """How much is simulated: seeds by number of workers, and where steps of exactly equal length are tried, too."""

    seeds: Mapping[int, Sequence[int]]
    even: Sequence[int]
    graphs: Sequence[str] = tuple(GRAPHS)
    references: Sequence[int] = tuple(range(1, 8))
    least: float = 8.0
    least_reference: float = 300.0
    most: int = 220
    most_crowded: int = 120


FULL = Scale(seeds={64: (1, 2, 3), 128: (1,), 256: (1,), 1024: (1,)}, even=(64, 256))
QUICK = Scale(seeds={16: (1,), 32: (1,)}, even=(16,), graphs=("ring", "4-regular"), references=(1, 2, 3), least_reference=60.0)


def probability(workers: int) -> float:
    """That a step stalls: as in the published figures.

    Examples
    --------
    >>> probability(64), probability(128)
    (0.02, 0.01)
    """
    return 0.02 if workers <= 64 else 0.01


def cases(scale: Scale) -> list[Case]:
    """What to simulate."""
    wanted = []
    for workers, seeds in scale.seeds.items():
        for seed in scale.references:
            wanted.append(_case(scale, workers, ALLREDUCE, "all", seed, least=scale.least_reference))
        for graph in scale.graphs:
            for rule in RULES:
                if graph == "ring" and rule == "static_backup b=2":  # as b=1: a rank waits for one exchange at least
                    continue
                wanted += [_case(scale, workers, rule, graph, seed) for seed in seeds]
        if workers in scale.even:
            wanted += [_case(scale, workers, rule, "4-regular", 1, spread=0.0) for rule in RULES]
    return wanted


def _case(scale: Scale, workers: int, rule: str, graph: str, seed: int, least: float | None = None, spread: float = 0.05) -> Case:
    crowded = workers > 256 and rule == CROWDED
    return Case(
        part=PART,
        workers=workers,
        rule=rule,
        graph=graph,
        probability=probability(workers),
        lr=0.03,
        noise=1.0,
        targets=TARGETS,
        awaits="workers",
        least=scale.least if least is None else least,
        most=scale.most_crowded if crowded else scale.most,
        spread=spread,
        seed=seed,
    )


class Outcome(NamedTuple):
    """A rule on a graph, medians over seeds; ``pace`` ``easier`` and the two ``sooner`` are in units of the all-reduce.

    ``seconds`` and ``sooner`` are to the judged loss of the workers' models, ``easier`` to the easier one, ``mean_sooner`` to
    the judged loss of the models' mean; None where it was not reached. ``told`` is control messages per worker and second.
    """

    pace: float
    exchanges: float
    wait: float
    messages: float
    told: float
    consensus: float
    seconds: float | None
    sooner: float | None
    easier: float | None
    mean_sooner: float | None
    simulated: float


def outcomes(result: dict[str, Any], spread: float = 0.05) -> dict[tuple[int, str, str], Outcome]:
    """By (workers, graph, rule).

    The time to a loss is divided into the median of the all-reduce's times over all of its seeds: one run of it has some hundred
    rounds, of which each is long or short by chance.
    """
    rows: dict[tuple[int, str, str], list[dict[str, Any]]] = {}
    references: dict[int, list[dict[str, Any]]] = {}
    for row in result["cases"]:
        if row["part"] == PART and row["rule"] == ALLREDUCE:
            references.setdefault(row["workers"], []).append(row)
        elif row["part"] == PART and row["spread"] == spread:
            rows.setdefault((row["workers"], row["graph"], row["rule"]), []).append(row)
    return {key: _outcome(same, references[key[0]]) for key, same in rows.items()}


def _outcome(same: Sequence[dict[str, Any]], references: Sequence[dict[str, Any]]) -> Outcome:
    def middle(key: str) -> float:
        return float(statistics.median(row[key] for row in same))

    def sooner(whose: str, target: str) -> float | None:
        ours, other = _time(same, whose, target), _time(references, whose, target)
        return None if ours is None or other is None else other / ours

    return Outcome(
        middle("pace") / statistics.fmean(row["pace"] for row in references),
        middle("exchanges"),
        middle("wait"),
        middle("messages"),
        statistics.median(row["messages"] * row["pace"] for row in same),
        middle("consensus"),
        _time(same, "workers", JUDGED),
        sooner("workers", JUDGED),
        sooner("workers", EASIER),
        sooner("mean", JUDGED),
        middle("seconds"),
    )


def _time(rows: Sequence[dict[str, Any]], whose: str, target: str) -> float | None:
    return median_time([row["reached"][whose].get(target, (None, None))[0] for row in rows])


def _times(ratio: float | None) -> str | None:
    return None if ratio is None else f"{ratio:.1f}x" if ratio < 9.95 else f"{ratio:.0f}x"


def _sizes(known: Mapping[tuple[int, str, str], Outcome]) -> list[int]:
    return sorted({workers for workers, _, _ in known})


def across(known: Mapping[tuple[int, str, str], Outcome], field: str) -> str:
    """A table of one number of the outcomes: a row for each graph and rule, a column for each number of workers."""
    sizes = _sizes(known)
    rows = []
    for graph, rule in dict.fromkeys((graph, rule) for _, graph, rule in known):
        values = [known.get((workers, graph, rule)) for workers in sizes]
        rows.append([f"{graph}, {rule}", *(None if value is None else _times(getattr(value, field)) for value in values)])
    return table(["graph, rule", *(f"{workers:,}" for workers in sizes)], rows)


def tuned(known: Mapping[tuple[int, str, str], Outcome]) -> str:
    """Times to the judged loss in units of that of the best b that was tried, where any reached it."""
    rows = []
    for workers, graph in sorted({at[:2] for at in known}, key=lambda at: (at[0], list(GRAPHS).index(at[1]))):
        here = {rule: outcome for (n, g, rule), outcome in known.items() if (n, g) == (workers, graph)}
        reached = {rule: o.seconds for rule, o in here.items() if rule.startswith("static") and o.seconds is not None}
        best = min(reached, key=lambda rule: reached[rule]) if reached else None
        cells = []
        for rule in ("dtur", "pathsearch", "gap"):
            ours = here[rule].seconds if rule in here else None
            cells.append(None if ours is None or best is None else f"{ours / reached[best]:.2f}")
        rows.append([f"{workers:,} on {graph}", None if best is None else best.removeprefix("static_backup "), *cells])
    return table(["workers", "better b", "dtur / b", "pathsearch / b", "gap / b"], rows)


def flood(known: Mapping[tuple[int, str, str], Outcome], graph: str = "4-regular") -> str:
    """Control messages that a worker sends, per round and per second."""
    sizes = _sizes(known)
    rows = []
    for rule in RULES:
        here = [known[workers, graph, rule] for workers in sizes]
        cells = [f"{o.messages:.1f} ({o.told:,.0f}/s)" for o in here]
        rows.append([rule, *cells, *(f"{o.exchanges:.2f}" for o in here)])
    sent = [f"messages at {workers:,}" for workers in sizes]
    return table(["rule", *sent, *(f"exchanges at {workers:,}" for workers in sizes)], rows)


def agreement(known: Mapping[tuple[int, str, str], Outcome]) -> str:
    """Throughput on 4-regular graphs beside what was known before."""
    sizes = [workers for workers in _sizes(known) if workers in PUBLISHED]
    rows: list[list[str | None]] = [["hierarchical SGD, published", *("{} to {}x".format(*PUBLISHED[n]) for n in sizes)]]
    for rule in RULES:
        cells = []
        for workers in sizes:
            ours, before = _times(known[workers, "4-regular", rule].pace), SKETCH.get((rule, workers))
            cells.append(ours if before is None else f"{ours} ({_times(before)})")
        rows.append([rule, *cells])
    return table(["rule (in brackets: the sketch)", *(f"{workers}" for workers in sizes)], rows)


def details(known: Mapping[tuple[int, str, str], Outcome], workers: int) -> str:
    """All there is about one number of workers."""
    rows = [
        [
            f"{graph}, {rule}",
            _times(o.pace),
            f"{o.exchanges:.2f}",
            f"{1e3 * o.wait:.0f}",
            f"{o.messages:.1f}",
            f"{o.consensus:.3f}",
            None if o.seconds is None else f"{o.seconds:.1f}",
            _times(o.sooner),
            _times(o.mean_sooner),
            f"{o.simulated:.0f}",
        ]
        for (n, graph, rule), o in known.items()
        if n == workers
    ]
    header = [
        "graph, rule", "throughput", "exchanges a round", "ms waited a round", "messages a round", "consensus error",
        "s to 5 %", "sooner", "sooner, mean model", "s simulated",
    ]  # fmt: skip
    return table(header, rows)


def summary(result: dict[str, Any]) -> list[tuple[str, str]]:
    """Titles and tables that fit on a page."""
    known, even = outcomes(result), outcomes(result, spread=0.0)
    parts = [
        ("Time to 5 % of the first loss: how many times sooner than all-reduce", across(known, "sooner")),
        ("The same to 10 %", across(known, "easier")),
        ("Throughput: local steps per second, times all-reduce", across(known, "pace")),
        ("Time to 5 % in units of the better b, of 1 and 2", tuned(known)),
        ("Control messages a worker sends per round, per second, and exchanges per round; 4-regular graph", flood(known)),
        ("Throughput over all-reduce on 4-regular graphs, and what was known before", agreement(known)),
    ]
    if even:
        parts.append(("Steps of exactly equal length, as they never are: throughput", across(even, "pace")))
        parts.append(("Steps of exactly equal length: time to 5 %, times sooner than all-reduce", across(even, "sooner")))
    return parts


def report(result: dict[str, Any]) -> list[tuple[str, str]]:
    """All titles and tables."""
    known = outcomes(result)
    by_size = [(f"{workers:,} workers, {_references(result, workers)}", details(known, workers)) for workers in _sizes(known)]
    return [*summary(result), *by_size]


def _references(result: dict[str, Any], workers: int) -> str:
    same = [row for row in result["cases"] if (row["part"], row["workers"], row["rule"]) == (PART, workers, ALLREDUCE)]
    pace = statistics.fmean(row["pace"] for row in same)
    time = _time(same, "workers", JUDGED)
    reached = "not" if time is None else f"in {time:.0f} s"
    return f"stalls with probability {same[0]['probability']:g}; all-reduce: {pace:.2f} steps a second, 5 % {reached}"


def draw(result: dict[str, Any], folder: Path) -> list[Path]:
    """Against the number of workers, a panel a graph: how much sooner, and throughput."""
    known = outcomes(result)
    sooner = f"times sooner than all-reduce to {float(JUDGED):.0%} of the first loss"
    return [
        _panels(known, "sooner", sooner, folder / "scale-time.png"),
        _panels(known, "pace", "throughput, times all-reduce", folder / "scale-throughput.png"),
    ]


def _panels(known: Mapping[tuple[int, str, str], Outcome], field: str, words: str, path: Path) -> Path:
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    graphs = list(dict.fromkeys(graph for _, graph, _ in known))
    sizes = _sizes(known)
    figure = Figure(figsize=(10, 6.4), layout="constrained")
    panels = figure.subplots(-(-len(graphs) // 2), 2, sharex=True, sharey=True, squeeze=False)
    for axes, graph in zip(panels.flat, graphs, strict=False):
        axes.axhline(1.0, color="black", linewidth=0.8, linestyle=":")
        for rule in RULES:
            points = [(n, getattr(known[n, graph, rule], field)) for n in sizes if (n, graph, rule) in known]
            shown = [(n, value) for n, value in points if value is not None]
            if shown:
                axes.plot(*zip(*shown, strict=True), **style(rule))
            missed = [n for n, value in points if value is None]
            # Side by side, so that all of them are seen.
            aside = 2.0 ** (0.12 * (list(RULES).index(rule) - 2.5))
            axes.plot([n * aside for n in missed], [0.8] * len(missed), "x", color=COLOURS[rule], markersize=6)
        axes.set_title(graph, fontsize=11)
        axes.set_xscale("log", base=2)
        axes.set_yscale("log", base=2)
        axes.grid(alpha=0.3)
    tick_at(panels[0][0].xaxis, sizes, "{:,}")
    tick_at(panels[0][0].yaxis, [1, 2, 4, 8, 16], "{}x")
    figure.supxlabel("workers", fontsize=11)
    figure.supylabel(words, fontsize=11)
    lines = key(list(RULES))
    if any(getattr(outcome, field) is None for outcome in known.values()):
        lines["not reached"] = Line2D([], [], linestyle="", marker="x", color="black", markersize=6)
    figure.legend(lines.values(), lines.keys(), loc="outside upper center", ncols=len(lines), frameon=False)
    return save(figure, path)
