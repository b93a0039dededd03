"""The what-if benchmark: what becomes of given numbers, and what it does with folders of runs."""

from __future__ import annotations

import doctest
from pathlib import Path
from typing import Any

import pytest
from made_runs import write_run
from recorded_runs import rings

from benchmarks import stragglers, whatif

TRUTH = {"full": [5000.0, 5400.0], "static_backup b=1": [8000.0, 8200.0], "dtur": [9900.0, 10100.0]}


def result(**predicted: float) -> dict[str, Any]:
    rules = dict(zip(TRUTH, predicted.values(), strict=True))
    case = {"recorded": "dtur", "own": 9950.0, "latency": 8e-4, "swap": 1.1e-3, "per_rank": 1.0, "overall": None}
    return {"measured": TRUTH, "cases": [{**case, "predicted": rules}]}


def test_examples() -> None:
    assert doctest.testmod(whatif).failed == 0


def test_good_predictions() -> None:
    lines = whatif.report(result(full=5200.0, backup=8910.0, dtur=9500.0)).splitlines()
    assert lines[2] == "| dtur | 10000 ± 100 | 9500 | -5.0% |"
    assert lines[3] == "| static_backup b=1 | 8100 ± 100 | 8910 | +10.0% |"
    assert lines[-1] == "| dtur | 9950 | 0.80 | 1.10 | 1 | any | 10.0% | met | none | met |"


def test_bad_predictions() -> None:
    text = whatif.report(result(full=6200.0, backup=9000.0, dtur=8900.0))
    assert "| 19.2% | missed | static_backup b=1 and dtur | missed |" in text


@pytest.mark.parametrize("scale", [whatif.Scale(), whatif.QUICK])
def test_rules_are_those_of_the_stragglers(scale: whatif.Scale) -> None:
    assert {*scale.rules, *scale.recorded} <= {name for name, settings in stragglers.RULES.items() if settings is not None}
    assert scale.recorded_seed not in scale.seeds


def test_what_is_done_with_the_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def launch(module: str, ranks: int, specification: dict[str, Any], *, limit: float) -> dict[str, Any]:
        names = [settings[1].removeprefix("rule.name=") for settings in specification["runs"]]
        folders = [write_run(tmp_path / str(k), rings(), rule=name) for k, name in enumerate(names)]
        return {"mpi": "Some MPI", "folders": list(map(str, folders))}

    monkeypatch.setattr(whatif, "launch", launch)
    scale = whatif.Scale(recorded=("dtur",), rules=("full", "dtur"), seeds=(1, 2), starts=1)
    found = whatif.run(scale, tmp_path)
    pace = pytest.approx(5000 / 41 / 0.013, rel=1e-2)
    assert found["measured"] == {"full": [pace, pace], "dtur": [pace, pace]}
    assert found["cases"][0]["predicted"]["full"] == pace
    assert found["cases"][0]["overall"] is None
    assert "| full |" in whatif.report(found)
