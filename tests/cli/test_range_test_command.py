"""``consensus range-test``."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from consensus.cli import app
from consensus.cli.ending import WRONG_USE
from tests.experiments import SMALL

QUICK = ("--ranks", "5", "--set", "rule.name=dbw", "--steps", "80", "--repetitions", "2")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "small.toml"
    path.write_text(SMALL.format(stop="rounds = 3"), encoding="utf-8")
    return path


def call(file: Path, *arguments: str) -> tuple[int, str]:
    """Exit code and what the command prints."""
    result = CliRunner().invoke(app, ["range-test", str(file), "--out", str(file.parent / "runs"), *arguments])
    return result.exit_code, result.output


def test_what_it_prints_can_be_run(file: Path) -> None:
    code, said = call(file, *QUICK)
    assert code == 0, said
    assert "small: range test" in said
    assert "has no server" not in said
    (folder,) = (file.parent / "runs").iterdir()
    assert folder.name.startswith("range-test-small-")
    assert sorted(path.name for path in folder.iterdir()) == ["range-test.json", "range-test.png"]
    section = said[said.index("[server]") :]
    assert "table = { 1 = " in section
    file.write_text(file.read_text(encoding="utf-8") + section, encoding="utf-8")
    simulated = CliRunner().invoke(
        app, ["sim", str(file), "--ranks", "5", "--set", "rule.name=dbw", "--out", str(file.parent / "served"), "--quiet"]
    )
    assert simulated.exit_code == 0, simulated.output


def test_a_rule_without_a_server_will_do(file: Path) -> None:
    code, said = call(file, "--ranks", "2", "--gradients", "2", "--steps", "80", "--repetitions", "1")
    assert code == 0, said
    assert "rule dtur has no server; the table is for rules that have one" in said
    assert "table = { 2 = " in said


def test_quiet(file: Path) -> None:
    assert call(file, *QUICK, "--gradients", "4", "--quiet") == (0, "")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--gradients", "0,2"], "k = 0 gradients, expected 1 to 4"),
        (["--gradients", "5"], "k = 5 gradients, expected 1 to 4"),
        (["--gradients", "1,2.5"], "'2.5', expected whole numbers"),
        (["--gradients", "1,-2"], "'-2', expected whole numbers"),
        (["--gradients", ""], "'', expected whole numbers"),
        (["--start", "2", "--stop", "1"], "expected 0 < start < stop"),
        (["--start", "1e-9", "--stop", "1e-6"], "the loss never falls"),
        (["--set", "optimizer.lr=0"], "optimizer.lr = 0"),
        (["--set", "rule.nam=dbw"], "has no parameter 'nam'"),
    ],
)
def test_bad_input_is_wrong_use_and_leaves_nothing(file: Path, arguments: list[str], words: str) -> None:
    code, said = call(file, *QUICK, *arguments)
    assert (code, words in said) == (WRONG_USE, True), said
    assert not (file.parent / "runs").exists()
