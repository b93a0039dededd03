"""ElasticBSP's benchmark: the steps it simulates, a small run of it, and what becomes of given curves."""

from __future__ import annotations

import doctest
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks import elastic_cifar
from benchmarks.__main__ import Skipped, cifar10
from consensus import config as run_files


def test_examples() -> None:
    result = doctest.testmod(elastic_cifar)
    assert result.attempted > 0
    assert result.failed == 0


def test_speeds_are_spread_evenly() -> None:
    rows = elastic_cifar.durations(3, seed=1)
    assert [sum(row) / len(row) for row in rows] == pytest.approx([0.102, 0.1275, 0.153], rel=0.01)


@pytest.mark.parametrize("rule", elastic_cifar.RULES)
def test_rules_are_run_files(rule: str) -> None:
    config = run_files.load("digits", elastic_cifar.settings(elastic_cifar.Scale(), rule, 1, "runs"))
    config.check(5)
    assert rule.startswith(config.rule.name)


def test_no_mark_is_thinned_out() -> None:
    scale = elastic_cifar.Scale()
    config = run_files.load("digits", elastic_cifar.settings(scale, "bsp", 1, "runs"))
    assert scale.seconds / scale.every < config.evaluation.marks


def test_asp_does_not_wait() -> None:
    scale = replace(elastic_cifar.QUICK, rules=("bsp", "asp"), seconds=2.0)
    result = elastic_cifar.run(scale, None)
    bsp, asp = result["cases"]
    assert bsp["gradients"][-1] == pytest.approx(2 * bsp["updates"][-1], abs=2)
    assert asp["gradients"][-1] == pytest.approx(asp["updates"][-1], abs=2)
    assert asp["gradients"][-1] > bsp["gradients"][-1]
    assert max(asp["accuracy"]) > 0.2


def curve(rule: str, *accuracy: float) -> dict[str, Any]:
    marks = range(1, len(accuracy) + 1)
    seconds = [10.0 * mark for mark in marks]
    counts = {"updates": [20 * mark for mark in marks], "gradients": [80 * mark for mark in marks]}
    return {"rule": rule, "seed": 1, "seconds": seconds, **counts, "accuracy": list(accuracy)}


def test_table_and_picture(tmp_path: Path) -> None:
    cases = [curve("bsp", 0.1, 0.3, 0.4, 0.5, 0.6), curve("asp", 0.1, 0.5, 0.6, 0.7, 0.7)]
    result = {"limit": 50.0, "accuracies": [0.35], "cases": cases}
    text = elastic_cifar.report(result)
    assert "| bsp | 8.0 | 2.0 | 30 | 240 | 0.500 | 1.00 |" in text
    assert "| asp | 8.0 | 2.0 | 20 | 160 | 0.667 | 0.67 |" in text
    (picture,) = elastic_cifar.draw(result, tmp_path / "figures")
    assert picture.stat().st_size > 1000


def test_without_images_it_is_skipped(tmp_path: Path) -> None:
    with pytest.raises(Skipped, match="no CIFAR-10 files in .*; give the folder with the unpacked data set"):
        cifar10(tmp_path)


@pytest.mark.parametrize("below", [".", "cifar-10-batches-bin", "cifar-10-batches-py"])
def test_images_are_found(tmp_path: Path, below: str) -> None:
    folder = tmp_path / below
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "data_batch_1.bin").touch()
    assert cifar10(tmp_path) == folder.resolve()
