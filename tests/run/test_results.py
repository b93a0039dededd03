"""metrics.jsonl and summary.json, written and read again."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from consensus.errors import ConfigError
from consensus.run.evaluation import Evaluated
from consensus.run.results import (
    ACCURACIES,
    Metrics,
    dumps,
    read_metrics,
    read_summary,
    seconds_to,
    to_metrics,
    write_metrics,
    write_summary,
)

LINE = Metrics(0.25, 320, 10, 0.5, 1.5, 0.01, 0.75)


def test_metrics_round_trip(tmp_path: Path) -> None:
    lines = [LINE, replace(LINE, seconds=0.5, accuracy=1 / 3)]
    write_metrics(tmp_path, lines)
    assert read_metrics(tmp_path) == read_metrics(tmp_path / "metrics.jsonl") == lines


def test_a_loss_that_is_no_number_is_null_in_the_file(tmp_path: Path) -> None:
    write_metrics(tmp_path, [replace(LINE, loss=math.nan, consensus_distance=math.inf)])
    text = (tmp_path / "metrics.jsonl").read_text()
    assert json.loads(text)["loss"] is None
    (line,) = read_metrics(tmp_path)
    assert math.isnan(line.loss)
    assert math.isnan(line.consensus_distance)
    assert line.accuracy == 0.5


def test_no_line_at_all(tmp_path: Path) -> None:
    write_metrics(tmp_path, [])
    assert read_metrics(tmp_path) == []


def test_a_summary_round_trip(tmp_path: Path) -> None:
    write_summary(tmp_path, {"final": {"loss": math.nan}, "rounds": (1, 2), "nothing": None})
    assert read_summary(tmp_path) == {"final": {"loss": None}, "rounds": [1, 2], "nothing": None}
    assert [path.name for path in tmp_path.iterdir()] == ["summary.json"]


@pytest.mark.parametrize("text", ["{", "[1]\n", '{"seconds": 1}\n', '{"seconds": 1, "what": 2}\n'])
def test_damaged_metrics(tmp_path: Path, text: str) -> None:
    (tmp_path / "metrics.jsonl").write_text(text)
    with pytest.raises(ConfigError, match=r"metrics\.jsonl: damaged"):
        read_metrics(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "3"])
def test_a_damaged_summary(tmp_path: Path, text: str) -> None:
    (tmp_path / "summary.json").write_text(text)
    with pytest.raises(ConfigError, match=r"summary\.json: damaged"):
        read_summary(tmp_path)


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the run did not come to its end"):
        read_summary(tmp_path)
    (tmp_path / "metrics.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_metrics(tmp_path)


def test_lists_in_lists() -> None:
    assert dumps([1.5, [math.inf, {"a": -math.inf}]]) == '[1.5, [null, {"a": null}]]'


def test_backups_are_those_since_the_line_before() -> None:
    def evaluated(rounds: int, backups: int) -> Evaluated:
        return Evaluated(None, 32 * rounds, rounds, backups, 0.5, 1.0, 0.1)

    lines = to_metrics([(0.25, evaluated(4, 2)), (0.5, evaluated(4, 2)), (0.75, evaluated(10, 11))])
    # Of no rounds there is no mean, and a picture is not to fall to 0 there.
    assert [line.mean_backups for line in lines] == pytest.approx([0.5, math.nan, 1.5], nan_ok=True)
    assert [line.rounds for line in lines] == [4, 4, 10]


def test_seconds_to_accuracies() -> None:
    lines = [replace(LINE, seconds=second, accuracy=accuracy) for second, accuracy in ((1.0, 0.55), (2.0, 0.91), (3.0, 0.89))]
    times = seconds_to(lines)
    assert list(times) == [".5", ".6", ".7", ".8", ".85", ".9", ".93", ".95", ".96", ".97", ".98"]
    assert len(times) == len(ACCURACIES)
    assert (times[".5"], times[".6"], times[".9"], times[".93"]) == (1.0, 2.0, 2.0, None)
