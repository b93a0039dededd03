"""How long ZipLine takes to find the next barrier, beside the two searches it is compared with in the papers."""

from __future__ import annotations

import random
import time
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.jobs import say
from benchmarks.markdown import table, verdict
from benchmarks.stats import spread
from consensus.rules.zipline import zipline

TARGETS: Mapping[tuple[int, int], float] = {(1000, 15): 20.0, (1000, 150): 250.0}
"""Milliseconds, by workers and ends of each."""

PUBLISHED: Mapping[tuple[int, int], float] = {
    (10, 15): 0.149,
    (100, 15): 6.37,
    (1000, 15): 253.0,
    (10, 150): 1.32,
    (100, 150): 49.9,
    (1000, 150): 2380.0,
}
"""The papers' search in C++ on another machine, milliseconds."""

PUBLISHED_BEST: Mapping[tuple[int, int], float] = {(1000, 15): 77.0, (1000, 150): 560.0}
"""The best of their variants, where it was told."""

MOST_LOOKUPS = 20_000_000
"""A baseline that has to find more nearest ends than this would take longer than about ten seconds, and is left out."""

Ends = Mapping[int, Sequence[float]]


@dataclass(frozen=True)
class Scale:
    """How much is measured: sizes, and the times a search is repeated at most, within so many seconds."""

    workers: tuple[int, ...] = (10, 100, 1000, 10_000)
    ahead: tuple[int, ...] = (15, 150)
    passes: int = 25
    seconds: float = 2.0


QUICK = Scale(workers=(10, 100), passes=3, seconds=0.5)


def predictions(workers: int, ahead: int, seed: int = 1) -> dict[int, list[float]]:
    """Ends of iterations that take from 1 to 1.5 seconds, each worker its own, the last push some time within the last one."""
    draw = random.Random(seed)
    predicted = {}
    for worker in range(workers):
        interval = draw.uniform(1.0, 1.5)
        last = draw.uniform(0.0, interval)
        predicted[worker] = [last + i * interval for i in range(1, ahead + 1)]
    return predicted


def grid_scan(predicted: Ends, reference: int) -> float:
    """The least spread over the ends of one worker, each with the nearest end of every other worker.

    Examples
    --------
    >>> grid_scan({0: [10, 20, 70], 1: [14, 70], 2: [17, 68]}, reference=0)
    2
    >>> grid_scan({0: [4], 1: [1, 6], 2: [2, 7]}, reference=0)
    4
    """
    others = [ends for worker, ends in predicted.items() if worker != reference]
    least = float("inf")
    for end in predicted[reference]:
        low = high = end
        for ends in others:
            at = bisect_left(ends, end)
            near = ends[at] if at == 0 or (at < len(ends) and ends[at] - end <= end - ends[at - 1]) else ends[at - 1]
            if near < low:
                low = near
            elif near > high:
                high = near
        least = min(least, high - low)
    return least


def slowest(predicted: Ends) -> int:
    """The worker whose last end is the latest."""
    return max(predicted, key=lambda worker: predicted[worker][-1])


def full_grid_scan(predicted: Ends) -> float:
    """The same with every worker in turn as the one whose ends are gone through.

    Examples
    --------
    >>> full_grid_scan({0: [4], 1: [1, 6], 2: [2, 7]})
    3
    """
    return min(grid_scan(predicted, reference) for reference in predicted)


def run(scale: Scale) -> dict[str, Any]:
    """Measure; in this process alone."""
    cases = []
    for ahead in scale.ahead:
        for workers in scale.workers:
            say(f"zipline: {workers} workers, {ahead} ends each")
            cases.append(_case(workers, ahead, scale))
    return {"mpi": "without MPI", "cases": cases}


def _case(workers: int, ahead: int, scale: Scale) -> dict[str, Any]:
    predicted = predictions(workers, ahead)
    searches: dict[str, tuple[int, Callable[[], float]]] = {
        "zipline": (0, lambda: zipline(predicted).spread),
        "rate": (0, lambda: zipline(predicted, "rate").spread),
        "grid": (ahead * workers, lambda: grid_scan(predicted, slowest(predicted))),
        "full_grid": (ahead * workers**2, lambda: full_grid_scan(predicted)),
    }
    found = {name: _timed(search, scale) for name, (lookups, search) in searches.items() if lookups <= MOST_LOOKUPS}
    seconds = {name: taken for name, (taken, _) in found.items()}
    return {
        "workers": workers,
        "ahead": ahead,
        "seconds": seconds,
        "spreads": {name: least for name, (_, least) in found.items()},
    }


def _timed(search: Callable[[], float], scale: Scale) -> tuple[list[float], float]:
    """Processor seconds of every pass, and what was found."""
    taken: list[float] = []
    while True:
        began = time.process_time()
        found = search()
        taken.append(time.process_time() - began)
        if len(taken) >= scale.passes or sum(taken) >= scale.seconds:
            return taken, found


def report(result: dict[str, Any]) -> str:
    """The table, in Markdown."""
    rows: list[list[object]] = []
    for case in result["cases"]:
        size = (case["workers"], case["ahead"])
        milliseconds = {name: spread([1e3 * each for each in taken]) for name, taken in case["seconds"].items()}
        ours = milliseconds["zipline"]
        target = TARGETS.get(size)
        rows.append(
            [
                f"{size[0]:,}",
                size[1],
                f"{_short(ours.middle)} ({_short(ours.low)} to {_short(ours.high)})",
                f"{1e3 * ours.middle / (size[0] * size[1]):.2f}",
                None if target is None else f"{verdict(ours.middle < target)}: < {target:g}",
                _short(milliseconds["rate"].middle),
                *_baseline("grid", case, milliseconds),
                *_baseline("full_grid", case, milliseconds),
                *(_short(told[size]) if size in told else None for told in (PUBLISHED, PUBLISHED_BEST)),
            ]
        )
    header = [
        "workers", "ends each", "ZipLine, ms (quartiles)", "µs an end", "target", "rate, ms", "GridScan, ms", "its spread / ours",
        "FullGridScan, ms", "its spread / ours", "published, ms", "published best, ms",
    ]  # fmt: skip
    return table(header, rows)


def _baseline(name: str, case: dict[str, Any], milliseconds: Mapping[str, Any]) -> list[object]:
    if name not in milliseconds:
        return [None, None]
    return [_short(milliseconds[name].middle), f"{case['spreads'][name] / case['spreads']['zipline']:.2f}"]


def _short(milliseconds: float) -> str:
    """Three digits that matter, and no exponent."""
    return f"{milliseconds:,.0f}" if milliseconds >= 100 else f"{milliseconds:.3g}"
