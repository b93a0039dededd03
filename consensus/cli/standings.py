"""Many runs in one table: medians over seeds, a row for each rule, and how it compares with the first."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from rich.box import SIMPLE_HEAD
from rich.table import Table

from consensus.run.rows import mean_backups, trainers

TELLING = 3
"""How many targets have a column: the highest that anybody reached."""

LEGEND = (
    "Seconds until the averaged model reached an accuracy (-: it did not); seconds of the run; accuracy at its end; rounds per "
    "second of all ranks; share of their time spent waiting; neighbours not waited for per round; consensus distance; time to "
    "the highest accuracy that both reached, against the first rule's (below 1 is faster)."
)
"""What the columns are."""

_NOT_REACHED = math.inf


class Attempt(NamedTuple):
    """One run of a comparison.

    Attributes
    ----------
    label : str
        Which rule.
    seed : int
        Of the run.
    folder : Path or None
        Where its results are, if it came to its end.
    summary : mapping or None
        Its ``summary.json``.
    error : str
        What went wrong, if something did.
    """

    label: str
    seed: int
    folder: Path | None
    summary: Mapping[str, Any] | None
    error: str = ""


@dataclass(frozen=True)
class Row:
    """A rule's medians over its runs.

    Attributes
    ----------
    label : str
        Which rule.
    runs, failed : int
        How many came to their end, and how many did not.
    seconds : float
        Length of a run.
    targets : dict
        Accuracy to seconds; None if half of the runs or more did not reach it.
    accuracy : float or None
        At the end.
    rounds_per_second : float
        Over all ranks.
    wait_share : float
        Fraction of the ranks' time spent waiting for others.
    backups : float
        Neighbours not waited for, per round.
    distance : float or None
        Consensus distance at the end.
    ratio : float or None
        Time to ``ratio_target`` against that of the first rule; below 1 is faster.
    ratio_target : str
        The highest accuracy that both reach; empty if there is none.
    """

    label: str
    runs: int
    failed: int
    seconds: float
    targets: dict[str, float | None]
    accuracy: float | None
    rounds_per_second: float
    wait_share: float
    backups: float
    distance: float | None
    ratio: float | None = None
    ratio_target: str = ""

    def to_table(self) -> dict[str, Any]:
        """As what JSON can hold."""
        return asdict(self)


def standings(attempts: Sequence[Attempt]) -> list[Row]:
    """The rows, in the order in which rules first appear. A rule all of whose runs failed has a row that says so.

    Parameters
    ----------
    attempts : sequence of Attempt
        All runs.
    """
    labels = dict.fromkeys(attempt.label for attempt in attempts)
    rows: list[Row] = []
    for label in labels:
        own = [attempt for attempt in attempts if attempt.label == label]
        row = _row(label, [attempt.summary for attempt in own if attempt.summary is not None], len(own))
        rows.append(_against(rows[0] if rows else row, row))
    return rows


def _row(label: str, runs: Sequence[Mapping[str, Any]], attempts: int) -> Row:
    if not runs:
        return Row(label, 0, attempts, math.nan, {}, None, math.nan, math.nan, math.nan, None)
    targets = {name: _median_time([run["targets"][name] for run in runs]) for name in runs[0]["targets"]}
    return Row(
        label,
        len(runs),
        attempts - len(runs),
        median(run["wall_seconds"] for run in runs),
        targets,
        _median_known([run["final"]["accuracy"] for run in runs]),
        median(sum(rank["rounds"] for rank in trainers(run)) / run["wall_seconds"] for run in runs),
        median(_wait_share(trainers(run)) for run in runs),
        median(mean_backups(run) for run in runs),
        _median_known([run["consensus_distance"] for run in runs]),
    )


def _median_time(times: Sequence[float | None]) -> float | None:
    # A run that did not get there would have at a later time: it counts as later than all others, not as missing.
    middle = median(_NOT_REACHED if seconds is None else seconds for seconds in times)
    return middle if math.isfinite(middle) else None


def _median_known(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None


def _wait_share(ranks: Sequence[Mapping[str, Any]]) -> float:
    wait = sum(rank["wait_seconds"] for rank in ranks)
    total = wait + sum(rank["compute_seconds"] + rank["mix_seconds"] for rank in ranks)
    return wait / total if total else 0.0


def _against(first: Row, row: Row) -> Row:
    both = [name for name, seconds in row.targets.items() if seconds and first.targets.get(name)]
    if not both:
        return row
    ratio = (row.targets[both[-1]] or math.nan) / (first.targets[both[-1]] or math.nan)
    return Row(**{**asdict(row), "ratio": ratio, "ratio_target": both[-1]})


def telling(rows: Sequence[Row]) -> list[str]:
    """The targets worth a column: the highest that a rule reached."""
    names = dict.fromkeys(name for row in rows for name in row.targets)
    return [name for name in names if any(row.targets.get(name) is not None for row in rows)][-TELLING:]


def representative(attempts: Sequence[Attempt]) -> dict[str, Attempt]:
    """For each rule the run to draw: the one in the middle by time to the highest target that one of its runs reached."""
    chosen = {}
    for label in dict.fromkeys(attempt.label for attempt in attempts):
        runs = [
            (attempt, attempt.summary["targets"])
            for attempt in attempts
            if attempt.label == label and attempt.summary is not None
        ]
        if not runs:
            continue
        reached = [name for name in runs[0][1] if any(targets[name] is not None for _, targets in runs)]
        key = reached[-1] if reached else None
        ordered = sorted(runs, key=lambda run: _NOT_REACHED if key is None or run[1][key] is None else run[1][key])
        chosen[label] = ordered[(len(ordered) - 1) // 2][0]
    return chosen


def cells(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Headings and words of the table.

    Parameters
    ----------
    rows : sequence of Row
        From :func:`standings`.
    """
    names = telling(rows)
    first = rows[0].label if rows else ""
    headings = ["rule", *(f"{name}, s" for name in names), "run, s", "final", "rounds/s", "wait", "backups", "distance"]
    return [*headings, f"/ {first}"], [_words(row, names) for row in rows]


def _words(row: Row, names: Sequence[str]) -> list[str]:
    label = f"{row.label} ({row.failed} failed)" if row.failed else row.label
    if not row.runs:
        return [label, *("-" for _ in range(len(names) + 7))]
    times = ("-" if row.targets[name] is None else f"{row.targets[name]:.2f}" for name in names)
    ratio = "-" if row.ratio is None else f"{row.ratio:.2f} at {row.ratio_target}"
    accuracy = "-" if row.accuracy is None else f"{row.accuracy:.3f}"
    distance = "-" if row.distance is None else f"{row.distance:.3g}"
    figures = (f"{row.rounds_per_second:.0f}", f"{100 * row.wait_share:.0f} %", f"{row.backups:.2f}")
    return [label, *times, f"{row.seconds:.1f}", accuracy, *figures, distance, ratio]


def to_rich(rows: Sequence[Row], title: str) -> Table:
    """For a terminal."""
    headings, lines = cells(rows)
    table = Table(
        *headings, title=title, title_justify="left", caption=LEGEND, caption_justify="left", box=SIMPLE_HEAD, pad_edge=False
    )
    for column in table.columns[1:]:
        column.justify = "right"
    for line in lines:
        table.add_row(*line)
    return table


def to_markdown(rows: Sequence[Row]) -> str:
    """For a page."""
    headings, lines = cells(rows)
    ruler = ["---", *("---:" for _ in headings[1:])]
    return "".join(f"| {' | '.join(line)} |\n" for line in [headings, ruler, *lines]) + f"\n{LEGEND}\n"
