"""``consensus sim``."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from consensus.cli import app
from tests.experiments import SMALL, summary_of


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "small.toml"
    path.write_text(SMALL.format(stop="rounds = 5"), encoding="utf-8")
    return path


def sim(file: Path, *arguments: str) -> str:
    """What the command prints."""
    result = CliRunner().invoke(app, ["sim", str(file), "--out", str(file.parent / "runs"), *arguments])
    assert result.exit_code == 0, result.output
    return result.output


def test_a_training(file: Path) -> None:
    said = sim(file, "--ranks", "3", "--set", "rule.name=full", "--progress", "off")
    (folder,) = (file.parent / "runs").iterdir()
    assert summary_of(folder)["rounds"] == [5, 5, 5]
    assert "full on 3 ranks: 0.0 s, 120 samples; accuracy" in said
    assert "samples a second; a rank computed for" in said
    assert "Where the time went" in said


def test_timing_alone_of_many_ranks(file: Path) -> None:
    said = sim(file, "--ranks", "100", "--timing", "--set", "rule.name=full", "--set", "run.trace=false", "--progress", "lines")
    assert "Where the time went" not in said
    assert "full on 100 ranks" in said
    assert sim(file, "--ranks", "2", "--timing", "--quiet") == ""


def test_what_cannot_be_simulated(file: Path) -> None:
    result = CliRunner().invoke(app, ["sim", str(file), "--set", "stragglers.model=none"])
    assert result.exit_code == 2
    assert "run.ranks: missing" in result.output
    assert "stragglers.model = 'none'" in result.output
    assert CliRunner().invoke(app, ["sim", str(file), "--set", "network.latncy=1"]).exit_code == 2
