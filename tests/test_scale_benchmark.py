"""The scale benchmark: that what is simulated is what it says, and what becomes of given outcomes."""

from __future__ import annotations

import doctest
import importlib
import math

import pytest

from benchmarks import scale
from benchmarks.jobs import ROOT
from benchmarks.simulated import speedup, stalls
from benchmarks.simulated.descent import ALLREDUCE, LATENCY, RULES, STALL, STEP, Case, Stalls, adjacency, descend, problem
from benchmarks.simulated.sharing import shared
from consensus.protocol.rounds import RoundRecord
from consensus.rules import build
from consensus.sim.network import Network
from consensus.timing import Link


@pytest.mark.parametrize("name", ["descent", "pictures", "sharing", "stalls"])
def test_examples_in_docstrings(name: str) -> None:
    result = doctest.testmod(importlib.import_module(f"benchmarks.simulated.{name}"))
    assert result.attempted > 0
    assert result.failed == 0


@pytest.mark.parametrize("rule", RULES)
def test_sharing_decides_nothing_otherwise(rule: str) -> None:
    name, parameters = RULES[rule]

    def history(used) -> list[tuple[int, RoundRecord]]:
        rounds: list[tuple[int, RoundRecord]] = []
        Network(
            adjacency("4-regular", 24),
            used,
            [Stalls(0.05, 0.05).stream(rank, 3) for rank in range(24)],
            Link(LATENCY, math.inf),
            stop=lambda rank, done: False,
            on_round=lambda rank, record, compute: rounds.append((rank, record)),
        ).run(until=6.0)
        return rounds

    shared_rounds = history(shared(name, **parameters))
    assert len(shared_rounds) > 24 * 10
    assert shared_rounds == history(build(name, **parameters))


def case(rule: str, **changes) -> Case:
    return Case(
        **{
            "part": stalls.PART, "workers": 8, "rule": rule, "graph": "4-regular", "probability": 0.02, "lr": 0.1, "noise": 1.0,
            "targets": stalls.TARGETS, "awaits": "workers", "least": 2.0, "most": 300, **changes,
        }
    )  # fmt: skip


def test_a_problem_starts_at_distance_one_whatever_its_size() -> None:
    for workers in (1, 2, 64):
        drawn = problem(case("full", workers=workers))
        assert drawn.distance() == pytest.approx(1.0)
        assert drawn.curvatures.mean() == pytest.approx(0.5)
        assert drawn.curvatures.max() / drawn.curvatures.min() <= 4.0


def test_the_all_reduce_lasts_as_long_as_its_slowest_step() -> None:
    row = descend(case(ALLREDUCE, workers=16, least=200.0, spread=0.0))
    expected = STEP + STALL * (1 - 0.98**16)
    assert 1 / row["pace"] == pytest.approx(expected, rel=0.15)
    assert row["consensus"] == 0.0
    assert row["reached"]["workers"] == row["reached"]["mean"]


def test_a_row_is_a_function_of_its_case() -> None:
    rows = [descend(case("dtur")) for _ in range(2)]
    for row in rows:
        del row["processor_seconds"]
    assert rows[0] == rows[1]
    assert rows[0] != {**descend(case("dtur", seed=2)), "seed": 1}


def test_workers_can_be_no_nearer_than_their_mean() -> None:
    row = descend(case("gap", workers=12))
    for target, (seconds, steps) in row["reached"]["workers"].items():
        assert row["reached"]["mean"][target][0] <= seconds
        assert 0 < steps <= row["pace"] * row["seconds"]
    assert str(stalls.TARGETS[-1]) in row["reached"]["workers"]


def test_a_simulation_without_success_ends() -> None:
    row = descend(case("static_backup b=1", targets=(1e-9,), most=20, least=0.0))
    assert row["reached"] == {"workers": {}, "mean": {}}
    assert 20 <= row["pace"] * row["seconds"] < 40


def row(rule: str, seconds: float | None, *, workers: int = 64, graph: str = "4-regular", pace: float = 1.0, **changes) -> dict:
    reached = {} if seconds is None else {stalls.JUDGED: [seconds, 10.0], stalls.EASIER: [seconds / 2, 5.0]}
    return {
        "part": stalls.PART, "workers": workers, "graph": graph, "rule": rule, "probability": 0.02, "spread": 0.05, "seed": 1,
        "lr": 0.03, "seconds": 30.0, "pace": pace, "exchanges": 2.0, "wait": 0.0125, "messages": 7.0, "consensus": 0.08,
        "reached": {"workers": reached, "mean": reached}, "processor_seconds": 1.0, **changes,
    }  # fmt: skip


def made(**times: float | None) -> dict:
    rules = [row(rule, seconds, pace=8.0) for rule, seconds in times.items()]
    return {"cases": [*(row(ALLREDUCE, seconds, graph="all") for seconds in (70.0, 80.0, 90.0)), *rules]}


def test_outcomes_are_in_units_of_the_all_reduce() -> None:
    outcome = stalls.outcomes(made(dtur=10.0))[64, "4-regular", "dtur"]
    assert (outcome.pace, outcome.seconds, outcome.sooner, outcome.easier) == (8.0, 10.0, 8.0, 8.0)
    assert outcome.told == 56.0


def test_a_loss_that_was_not_reached_is_a_dash() -> None:
    known = stalls.outcomes(made(dtur=None, gap=2.0))
    lines = stalls.across(known, "sooner").splitlines()
    assert lines[2:] == ["| 4-regular, dtur | – |", "| 4-regular, gap | 40x |"]
    assert "| 8.0x | 2.00 | 12 | 7.0 | 0.080 | – | – | – | 30 |" in stalls.details(known, 64)


def test_medians_over_seeds_and_steps_of_equal_length_apart() -> None:
    result = made(dtur=10.0)
    result["cases"] += [row("dtur", 20.0, seed=2), row("dtur", 40.0, seed=3), row("dtur", 1.0, spread=0.0)]
    assert stalls.outcomes(result)[64, "4-regular", "dtur"].seconds == 20.0
    assert stalls.outcomes(result, spread=0.0)[64, "4-regular", "dtur"].seconds == 1.0


def test_the_best_b_is_found() -> None:
    result = made(dtur=12.0, gap=8.0, pathsearch=None)
    result["cases"] += [row("static_backup b=1", 10.0), row("static_backup b=2", 8.0)]
    assert "| 64 on 4-regular | b=2 | 1.50 | – | 1.00 |" in stalls.tuned(stalls.outcomes(result))


def test_a_size_without_published_figures_has_no_column() -> None:
    result = made(**dict.fromkeys(RULES, 10.0))
    result["cases"] += [{**each, "workers": 1024} for each in result["cases"]]
    lines = stalls.agreement(stalls.outcomes(result)).splitlines()
    assert lines[0].endswith("sketch) | 64 |")
    assert "| full | 8.0x (1.9x) |" in lines


def race(**seconds_by_workers: list[float]) -> dict:
    return {
        "cases": [
            {
                **row(rule, None, workers=2**k, part=speedup.PART, seed=seed),
                "reached": {"mean": {str(speedup.TARGET): [seconds + seed, 10 * (seconds + seed)]}, "workers": {}},
            }
            for rule, times in seconds_by_workers.items()
            for k, seconds in enumerate(times)
            for seed in (-1, 1)
        ]
    }


def test_speed_up_is_counted_from_one_worker() -> None:
    result = race(full=[80.0, 40.0, 20.0], dtur=[80.0, 50.0, 10.0])
    (_, text), (_, apart) = speedup.report(result)
    assert "| 4 | 200 (4.0x) | 20.0 (4.0x) | 100 (8.0x) | 10.0 (8.0x) |" in text
    assert "| 4 | 0.08 | 0.08 |" in apart


def test_a_seed_that_did_not_get_there_leaves_no_point() -> None:
    result = race(full=[80.0, 40.0], dtur=[80.0, 20.0])
    result["cases"][2]["reached"]["mean"] = {}
    assert ("full", 2) not in speedup.points(result)
    assert "| 2 | – | – | 200 (4.0x) | 20.0 (4.0x) |" in speedup.report(result)[0][1]


def whole() -> dict:
    return {"cases": made(**dict.fromkeys(RULES, 10.0))["cases"] + race(full=[80.0, 40.0], dtur=[80.0, 30.0])["cases"]}


def test_report_and_pictures(tmp_path) -> None:
    text = scale.report(whole())
    assert "64 workers, stalls with probability 0.02; all-reduce: 1.00 steps a second, 5 % in 80 s" in text
    pictures = scale.draw(whole(), tmp_path / "figures")
    assert [path.name for path in pictures] == ["scale-time.png", "scale-throughput.png", "scale-linear.png"]
    assert all(path.stat().st_size > 5000 for path in pictures)


def test_the_page_gets_its_tables_and_pictures(tmp_path) -> None:
    page = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
    (tmp_path / "scale.md").write_text(page, encoding="utf-8")
    scale.publish(whole(), tmp_path)
    written = (tmp_path / "scale.md").read_text(encoding="utf-8")
    assert "| 4-regular, dtur | 8.0x |" in written
    assert "| 2 | 400 (2.0x) | 40.0 (2.0x) | 300 (2.7x) | 30.0 (2.7x) |" in written
    assert (tmp_path / "images" / "scale-linear.png").exists()


def test_every_case_is_simulated_once_and_in_order() -> None:
    for size in (scale.Scale(), scale.QUICK):
        cases = [*stalls.cases(size.stalls), *speedup.cases(size.speedup)]
        assert len(set(cases)) == len(cases)


def test_a_small_run(capsys) -> None:
    tiny = scale.Scale(
        stalls=stalls.Scale(
            seeds={8: (1,)}, even=(8,), graphs=("ring", "4-regular"), references=(1,), least=1.0, least_reference=5.0, most=20
        ),
        speedup=speedup.Scale(workers=(32,), seeds=(1,)),
        processes=1,
    )
    result = scale.run(tiny)
    rows = result["cases"]
    assert [each["rule"] for each in rows[:3]] == [ALLREDUCE, "full", "static_backup b=1"]
    assert len(rows) == 1 + 11 + 6 + 4
    text = scale.report(result)
    assert "| 8 on 4-regular |" in text
    assert "| 32 | – |" in text
