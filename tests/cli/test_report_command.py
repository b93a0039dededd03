"""``consensus report``: what it writes where, and what it says."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import pytest
from made_runs import in_step, write_run
from typer.testing import CliRunner, Result

from consensus.cli import app, ending


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["report", *(str(argument) for argument in arguments)])


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What is written to the working directory goes to a temporary one."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def full(tmp_path: Path) -> Path:
    return write_run(tmp_path / "made-1", in_step(rounds=6, compute=lambda rank, k: 0.02 if rank == 3 else 0.01))


def test_one_run_has_its_report_in_its_folder(full: Path) -> None:
    result = call(full)
    assert result.exit_code == 0, result.output
    assert "Rank 3: compute is slow, always (2.0 times the typical step)" in result.stdout
    assert "wrote" in result.stdout
    assert (full / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    assert sorted(path.name for path in full.iterdir() if path.name.startswith((".", "report"))) == ["report.html"]


def test_several_runs_have_theirs_here(full: Path, tmp_path: Path) -> None:
    write_run(tmp_path / "made-2", in_step(rounds=6), rule="dtur")
    assert call(full, "made-2").exit_code == 0
    assert "2 runs compared" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_a_folder_of_runs(full: Path, tmp_path: Path) -> None:
    full.rename(tmp_path / "compare-1")
    write_run(tmp_path / "compare-1" / "x" / "made-2", in_step(rounds=6))
    (tmp_path / "compare-1" / "config.toml").unlink()
    assert call("compare-1", "--out", "page.html").exit_code == 0
    assert (tmp_path / "page.html").exists()


def test_exports_stand_beside_the_page_or_where_they_are_told(full: Path, tmp_path: Path) -> None:
    assert call("--perfetto", full, "--out", "a.html").exit_code == 0
    assert json.loads((tmp_path / "a.perfetto.json").read_text())["traceEvents"]
    assert call(full, "--perfetto=b.json").exit_code == 0
    assert (tmp_path / "b.json").exists()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard(full: Path, tmp_path: Path) -> None:
    if find_spec("tensorboard") is None:
        pytest.skip("tensorboard is not installed; pip install 'consensus-sgd[tensorboard]'")
    assert call(full, "--tensorboard", "--out", "a.html").exit_code == 0
    assert list((tmp_path / "a.tensorboard" / "full").iterdir())
    assert call("--tensorboard=scalars", full).exit_code == 0
    assert list((tmp_path / "scalars" / "full").iterdir())


def test_an_unfinished_run_is_reported_on_and_said_to_be_so(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "made-1", in_step(rounds=6), finished=False)
    result = call(folder)
    assert result.exit_code == 0, result.output
    assert "not come to its end" in result.stdout
    assert (folder / "report.html").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["made-11"], ["no such folder", "did you mean 'made-1'?"]),
        (["made-1", "--perfetto", "out.json"], ["out.json: there is no such folder"]),
        (["made-1", "--out", "no/where.html"], ["cannot be written", "--out FILE"]),
        (["made-1", "--perfetto=no/where.json"], ["cannot be written", "--perfetto=FILE"]),
    ],
)
def test_a_mistake_is_one_clean_message(full: Path, arguments: list[str], words: list[str]) -> None:
    result = call(*arguments)
    assert result.exit_code == ending.WRONG_USE
    assert result.stderr.startswith("error: ")
    assert all(word in result.stderr for word in words), result.stderr


def test_help_shows_that_values_are_optional() -> None:
    result = call("--help")
    assert result.exit_code == 0
    assert "[=FILE]" in result.stdout
