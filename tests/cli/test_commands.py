"""The command line without ranks: what is refused before any is started, with which words and exit code."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from consensus import launcher
from consensus.cli import app, contest, ending, run, supervise
from consensus.cli.options import Mode
from consensus.launcher import Launch
from consensus.transport.endings import MARK


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Outputs go to a temporary folder; and the tests themselves may have been started by srun."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "digits", "--set", "run.rnaks=2"], ["run.rnaks = 2: unknown key", "'ranks'"]),
        (["run", "digits", "--set", "rule.name=dtru"], ["rule.name = 'dtru'", "'dtur'"]),
        (["run", "digits", "--set", "model.name=2mn"], ["unknown model '2mn'", "'2nn'"]),
        (["run", "digits", "--set", "optimizer.name=sdg"], ["unknown optimizer 'sdg'", "'sgd'"]),
        (["run", "digts"], ["no file and no launch name 'digts'", "'digits'"]),
        (["run", "digits", "--set", "nonsense"], ["expected KEY.PATH=VALUE"]),
        (["run", "digits", "--set", "data.name=mnist", "--data-dir", "nowhere"], ["nowhere"]),
        (["compare", "digits", "--rule", "full,dtru"], ["rule dtru: ", "'dtur'"]),
        (["compare", "digits", "--rule", "full,full"], ["full twice"]),
        (["launch", "-n", "2", "trian.py"], ["no script 'trian.py'"]),
        (["topology", "show", "rnig", "-n", "8"], ["'ring'"]),
    ],
)
def test_a_mistake_is_one_clean_message(arguments: list[str], words: list[str]) -> None:
    result = call(*arguments)
    assert (result.exit_code, result.stdout) == (ending.WRONG_USE, "")
    assert result.stderr.startswith("error: ")
    assert all(word in result.stderr for word in words), result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    "arguments", [["run"], ["run", "digits", "--ranks", "0"], ["nonsense"], ["launch", "x.py"], ["topology", "shwo"]]
)
def test_wrong_arguments_are_wrong_use(arguments: list[str]) -> None:
    assert call(*arguments).exit_code == ending.WRONG_USE


@pytest.mark.parametrize("command", ["run", "compare", "demo", "doctor", "launch", "topology", "range-test"])
def test_every_command_has_help(command: str) -> None:
    result = call(command, "--help")
    assert result.exit_code == 0
    assert "Usage: " in result.stdout


def test_the_list_of_commands_loads_nothing_heavy() -> None:
    script = (
        "import sys; sys.argv = ['consensus', '--help']\n"
        "from consensus.cli import main\n"
        "try: main()\n"
        "except SystemExit: print('LOADED', *{'torch', 'mpi4py', 'networkx', 'pydantic', 'matplotlib'} & set(sys.modules))"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "LOADED", done


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = call("run", "digits", "--out", tmp_path / "file" / "runs")
    assert result.exit_code == ending.WRONG_USE
    assert "is no folder; give a folder that you may write to: --out FOLDER" in result.stderr


def test_a_folder_that_may_not_be_written_to(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # The administrator may write anywhere, so the tests may run as one.
    monkeypatch.setattr(run.os, "access", lambda path, mode: not mode & os.W_OK)
    result = call("run", "digits", "--out", tmp_path)
    assert result.exit_code == ending.WRONG_USE
    assert "may not be written to" in result.stderr


def test_no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launcher, "library", lambda: None)
    monkeypatch.setenv("PATH", "/nowhere")
    result = call("run", "digits")
    assert result.exit_code == ending.FAILED
    assert "no mpirun found" in result.stderr
    assert "pip install 'consensus-sgd[mpi]'" in result.stderr


def test_srun_without_its_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "8")
    result = call("run", "digits")
    assert result.exit_code == ending.FAILED
    assert "the launcher started 8 ranks, but each of them is alone" in result.stderr
    assert "srun --mpi=pmix" in result.stderr


def test_an_interrupt_has_its_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "check", interrupt)
    assert call("run", "digits").exit_code == supervise.INTERRUPTED


@pytest.mark.usefixtures("hangups")
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGUSR1"])
def test_a_request_to_end_is_an_interrupt_before_there_are_ranks(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    number = signal.Signals[name]
    before = signal.getsignal(number)

    def loads(*_: object) -> None:
        os.kill(os.getpid(), number)

    monkeypatch.setattr(run, "check", loads)
    assert call("run", "digits").exit_code == supervise.INTERRUPTED
    assert signal.getsignal(number) is before


FAILED = f"import os, pathlib; pathlib.Path(os.environ['{MARK}']).touch()"


def test_ranks_are_told_where_to_say_that_they_fail(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def command(n: int, program: list[str], mark: Path, **_: object) -> Launch:
        return Launch([sys.executable, "-c", FAILED], {**os.environ, MARK: str(mark)})

    monkeypatch.setattr(launcher, "command", command)
    result = call("run", "digits", "--ranks", "2", "--out", str(tmp_path))
    assert (result.exit_code, result.stderr) == (1, "")
    assert not list(tmp_path.iterdir())


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The programs that were to be started as ranks; they end with code 3."""
    programs: list[list[str]] = []

    def command(n: int, program: list[str], **_: object) -> Launch:
        programs.append([str(n), *program])
        return Launch([sys.executable, "-c", "raise SystemExit(3)"], dict(os.environ))

    monkeypatch.setattr(launcher, "command", command)
    return programs


def test_ranks_are_started_with_the_same_options(
    started: list[list[str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    result = call("run", "digits", "--ranks", "2", "--set", "rule.name=full", "--out", "o u t", "--quiet")
    assert result.exit_code == 3
    (program,) = started
    at = program.index("--receipt")
    assert Path(program[at + 1]).parent == tmp_path / "o u t"
    del program[at : at + 2]
    changes = ["--set", "rule.name=full", "--set", "run.ranks=2", "--set", 'run.out="o u t"']
    assert program == ["2", "-m", "consensus", "run", "digits", "--progress", "off", *changes, "--quiet"]


RECEIVED = "import pathlib, sys; pathlib.Path(sys.argv[sys.argv.index('--receipt') + 1]).touch()"


@pytest.mark.parametrize(("ranks", "code"), [("pass", 1), (RECEIVED, 0)])
def test_a_launcher_that_ends_with_0_is_believed_if_there_are_results(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, ranks: str, code: int
) -> None:
    def command(n: int, program: list[str], **_: object) -> Launch:
        return Launch([sys.executable, "-c", ranks, *program], dict(os.environ))

    monkeypatch.setattr(launcher, "command", command)
    result = call("run", "digits", "--ranks", "2", "--out", str(tmp_path))
    assert (result.exit_code, "no results: a host was lost" in result.stderr) == (code, bool(code)), result.output
    assert not list(tmp_path.iterdir())


def test_ranks_that_draw_are_told_the_width(started: list[list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "77")
    assert run.rank_job("digits", [], None, 2, Mode.LIVE).env["COLUMNS"] == "77"


def summary(rule: str, seconds: float) -> dict[str, Any]:
    rank = {"rounds": 5, "compute_seconds": 1.0, "wait_seconds": 1.0, "mix_seconds": 0.0, "mean_backups": 0.0, "bytes_sent": 10}
    return {
        "rule": {"name": rule},
        "ranks": 2,
        "ended": "samples",
        "wall_seconds": seconds,
        "samples": 100,
        "rounds": [5, 5],
        "targets": {".9": seconds / 2},
        "final": {"accuracy": 0.95, "loss": 0.1},
        "consensus_distance": 0.0,
        "per_rank": [rank, rank],
    }


METRICS = {
    "seconds": 1.0,
    "samples": 9,
    "rounds": 9,
    "accuracy": 0.5,
    "loss": 1.0,
    "consensus_distance": 0.0,
    "mean_backups": 0.0,
}


@pytest.fixture
def raced(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[str, int]]:
    """Runs of a comparison, which take no time: dtur twice as fast as full, and gap failing."""
    order: list[tuple[str, int]] = []

    def rank_job(file: str, changes: list[str], *_: object, **__: object) -> Launch:
        settings = dict(change.split("=", 1) for change in changes)
        rule, seed, out = settings["rule.name"], int(settings["run.seed"]), Path(json.loads(settings["run.out"]))
        order.append((rule, seed))
        if rule == "gap":
            return Launch([sys.executable, "-c", "raise SystemExit('the loss of rank 1 is nan')"], dict(os.environ))
        folder = out / "digits-1"
        folder.mkdir(parents=True)
        (folder / "summary.json").write_text(json.dumps(summary(rule, {"full": 4.0, "dtur": 2.0}[rule])))
        (folder / "metrics.jsonl").write_text(json.dumps(METRICS) + "\n")
        return Launch([sys.executable, "-c", ""], dict(os.environ))

    monkeypatch.setattr(contest, "rank_job", rank_job)
    return order


def test_compare_takes_turns_and_survives_a_failure(raced: list[tuple[str, int]], tmp_path: Path) -> None:
    result = call(
        "compare", "digits", "--rule", "full,gap:quorum=1,dtur", "--seeds", "2", "--set", "run.seed=4", "--out", tmp_path
    )
    assert result.exit_code == ending.FAILED
    assert raced == [("full", 4), ("gap", 4), ("dtur", 4), ("full", 5), ("gap", 5), ("dtur", 5)]
    assert "the loss of rank 1 is nan" in result.stdout
    (folder,) = tmp_path.glob("compare-digits-*")
    written = json.loads((folder / "compare.json").read_text())
    full, gap, dtur = written["rows"]
    assert (full["ratio"], gap["failed"], dtur["ratio"], dtur["ratio_target"]) == (1.0, 2, 0.5, ".9")
    assert [run["error"] for run in written["runs"]][:2] == [None, "the loss of rank 1 is nan"]
    assert "| dtur | 1.00 | 2.0 | 0.950 |" in (folder / "compare.md").read_text()
    assert (folder / "compare.png").stat().st_size > 1000


def test_interrupting_a_comparison_keeps_what_was_run(
    raced: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    codes = iter([0, supervise.INTERRUPTED])
    monkeypatch.setattr(contest, "supervise", lambda *_, **__: supervise.Outcome(next(codes)))
    assert call("compare", "digits", "--seeds", "1", "--out", tmp_path).exit_code == supervise.INTERRUPTED
    (folder,) = tmp_path.glob("compare-digits-*")
    assert [row["label"] for row in json.loads((folder / "compare.json").read_text())["rows"]] == ["full"]
