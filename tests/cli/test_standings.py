"""Medians, ratios and words of a comparison."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from consensus.cli.demo import verdict
from consensus.cli.standings import Attempt, cells, representative, standings, telling, to_markdown


def summary(label: str, targets: dict[str, float | None], wall: float = 10.0, wait: float = 1.0) -> dict[str, Any]:
    rank = {"compute_seconds": 2.0, "wait_seconds": wait, "mix_seconds": 1.0, "mean_backups": 0.5}
    return {
        "rule": {"name": label},
        "wall_seconds": wall,
        "rounds": [30, 50],
        "targets": targets,
        "final": {"accuracy": 0.9, "loss": 0.1},
        "consensus_distance": 0.25,
        "per_rank": [{**rank, "rounds": 30}, {**rank, "rounds": 50}],
    }


def attempts(label: str, *runs: dict[str, float | None], **more: float) -> list[Attempt]:
    return [Attempt(label, seed, Path(str(seed)), summary(label, targets, **more)) for seed, targets in enumerate(runs, 1)]


FULL = attempts("full", {".9": 4.0, ".95": 8.0}, {".9": 5.0, ".95": None}, {".9": 6.0, ".95": 9.0})
DTUR = attempts("dtur", {".9": 2.0, ".95": None}, {".9": 3.0, ".95": None}, {".9": 2.5, ".95": 4.0}, wall=5.0, wait=0.0)


def test_medians_over_seeds() -> None:
    full, dtur = standings(FULL + DTUR)
    assert full.targets == {".9": 5.0, ".95": 9.0}
    assert (full.wait_share, full.rounds_per_second, full.backups, full.distance) == (0.25, 8.0, 0.5, 0.25)
    assert (dtur.wait_share, dtur.rounds_per_second) == (0.0, 16.0)


def test_a_target_that_most_runs_missed_has_no_median() -> None:
    assert standings(DTUR)[0].targets == {".9": 2.5, ".95": None}


def test_the_ratio_is_at_the_highest_target_that_both_reach() -> None:
    full, dtur = standings(FULL + DTUR)
    assert (dtur.ratio, dtur.ratio_target) == (0.5, ".9")
    assert (full.ratio, full.ratio_target) == (1.0, ".95")


def test_a_failed_run_does_not_lose_the_others() -> None:
    broken = [Attempt("gap", 1, None, None, "rank 1 failed"), *attempts("gap", {".9": 1.0, ".95": 2.0})]
    _, gap, nothing = standings([*FULL, *broken, Attempt("deadline", 1, None, None, "no")])
    assert (gap.runs, gap.failed, gap.targets[".9"]) == (1, 1, 1.0)
    assert (nothing.runs, nothing.failed) == (0, 1)
    assert math.isnan(nothing.seconds)
    headings, (_, words, none) = cells(standings([*FULL, *broken, Attempt("deadline", 1, None, None, "no")]))
    assert len(headings) == len(words) == len(none)
    assert words[0] == "gap (1 failed)"


def test_columns_are_the_highest_targets_reached() -> None:
    targets = dict.fromkeys((".5", ".6", ".7", ".8"), 1.0) | {".9": None}
    assert telling(standings(attempts("full", targets))) == [".6", ".7", ".8"]


def test_the_run_in_the_middle_is_drawn() -> None:
    assert {label: attempt.seed for label, attempt in representative(FULL + DTUR).items()} == {"full": 3, "dtur": 1}
    assert representative([Attempt("full", 1, None, None, "failed")]) == {}


def test_markdown_has_a_line_per_rule() -> None:
    lines = to_markdown(standings(FULL + DTUR)).splitlines()
    assert [line.split(" | ")[0] for line in lines[:4]] == ["| rule", "| ---", "| full", "| dtur"]
    assert len({line.count("|") for line in lines[:4]}) == 1


@pytest.mark.parametrize(
    ("wall", "words"), [(5.0, "2.00 times faster than full (5.0 s against 10.0 s)"), (20.0, "2.00 times slower")]
)
def test_the_verdict_says_what_was_measured(wall: float, words: str) -> None:
    rows = standings(attempts("full", {".9": 4.0}) + attempts("dtur", {".9": 2.0}, wall=wall))
    assert words in verdict(rows)


def test_no_verdict_without_a_comparison() -> None:
    assert "Too few" in verdict(standings([*FULL, Attempt("dtur", 1, None, None, "failed")]))
