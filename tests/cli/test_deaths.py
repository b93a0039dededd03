"""What ``consensus run`` says when a rank has died and taken the job along, with a stand-in for mpirun."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from consensus import launcher
from consensus.cli import app
from consensus.cli.deaths import died
from consensus.cli.supervise import Outcome
from consensus.launcher import Launch

NOTICED = """
import pathlib, sys
pathlib.Path({folder!r}).mkdir()
sys.stderr.write(
    "-----\\nprterun noticed that process rank 1 with PID 24437 on node n7 exited on\\nsignal 9 (Killed).\\n-----\\n"
)
sys.exit(137)
"""


def told(monkeypatch: pytest.MonkeyPatch, script: str, out: Path) -> tuple[int, str]:
    monkeypatch.setattr(launcher, "command", lambda n, program, **_: Launch([sys.executable, "-c", script], dict(os.environ)))
    result = CliRunner().invoke(app, ["run", "digits", "--ranks", "2", "--out", str(out)])
    return result.exit_code, result.stderr


def test_the_rank_and_the_way_on_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "digits-20260101-000000").mkdir()
    folder = tmp_path / "digits-20260301-120000"
    code, said = told(monkeypatch, NOTICED.format(folder=str(folder)), tmp_path)
    assert code == 137
    assert said.count("prterun noticed") == 1
    words = f"error: rank 1 (process 24437 on n7) died of signal 9 (SIGKILL), and that ended the run. {folder} has no checkpoints"
    assert words in said


@pytest.mark.parametrize("code", [1, 2, 3])
def test_other_ends_are_left_to_those_who_know_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: int) -> None:
    assert told(monkeypatch, f"raise SystemExit({code})", tmp_path) == (code, "")


def test_what_other_launchers_tell() -> None:
    four = "mpirun noticed that process rank 3 with PID 0 on node c1 exited on signal 11 (Segmentation fault)."
    assert died(Outcome(139, four)) == "rank 3 (process 0 on c1) died of signal 11 (SIGSEGV)"
    assert died(Outcome(137)) == "a rank, or the launcher, died of signal 9 (SIGKILL)"
    assert died(Outcome(9), mpich=True) == "a rank died of signal 9 (SIGKILL)"
    assert died(Outcome(9)) is died(Outcome(1), mpich=True) is died(Outcome(130, four)) is None
    assert died(Outcome(1, four, killed=True)) is None
