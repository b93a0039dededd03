"""``consensus submit``: the script that is rendered, what is refused, and what sbatch is told."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from consensus import slurm
from consensus.cli import app, ending
from consensus.errors import ConfigError

GOLDEN = Path(__file__).with_name("rendered.sbatch")
GOLDEN_SCRIPT = Path(__file__).with_name("rendered_script.sbatch")

RUN = """
[run]
name = "mine"
stop = { rounds = 6 }
[checkpoint]
every = "60 s"
[data]
name = "digits"
[topology]
kind = "ring"
[model]
name = "logistic"
"""
TWO_BY_TWO = ["--nodes", "2", "--ntasks-per-node", "2"]


@pytest.fixture(autouse=True)
def _in_a_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.toml").write_text(RUN, encoding="utf-8")


@pytest.fixture
def sbatch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], Path]:
    """Puts a program in the place of sbatch; returns the file in which it keeps its arguments."""

    def make(body: str) -> Path:
        bin_ = tmp_path / "bin"
        bin_.mkdir()
        program, arguments = bin_ / "sbatch", tmp_path / "arguments"
        program.write_text(f'#!/bin/sh\necho "$@" > {arguments}\n{body}\n')
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{bin_}:/usr/bin:/bin")
        return arguments

    return make


def call(*arguments: str | Path, command: str = "submit") -> Result:
    return CliRunner().invoke(app, [command, *map(str, arguments)])


def test_the_rendered_script(tmp_path: Path) -> None:
    result = call(
        "mine.toml", *TWO_BY_TWO, "--time", "1-12", "--partition", "gpu", "--notice", "300", "--sbatch-option", "--account=x",
        "--set", "rule.name=full", "--script", "job.sbatch", "--no-submit",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    expected = GOLDEN.read_text(encoding="utf-8").replace("@FOLDER@", str(tmp_path)).replace("@PYTHON@", sys.executable)
    assert (tmp_path / "job.sbatch").read_text(encoding="utf-8") == expected


@pytest.mark.parametrize("slurm_option", [["--slurm", "mine.toml", *TWO_BY_TWO], [*TWO_BY_TWO, "--slurm", "mine.toml"]])
def test_launch_renders_a_run_file_as_submit_does(tmp_path: Path, slurm_option: list[str]) -> None:
    further = ["--time", "1-12", "-p", "gpu", "--sbatch-option", "--account=x", "--notice", "300", "--set", "rule.name=full"]
    further += ["--lost-after", "9", "--mpi-option", "--mca a b", "--mpirun", "mpirun"]
    assert call("mine.toml", *TWO_BY_TWO, *further, "--script", "one", "--no-submit").exit_code == 0
    result = call(*slurm_option, *further, "--script", "two", "--no-submit", command="launch")
    assert result.exit_code == 0, result.output
    text = (tmp_path / "two").read_text(encoding="utf-8")
    assert text == (tmp_path / "one").read_text(encoding="utf-8")
    assert "--mpirun mpirun --mpi-option '--mca a b' --lost-after 9.0" in text


def test_the_rendered_job_of_a_script(tmp_path: Path) -> None:
    (tmp_path / "train.py").touch()
    result = call(
        "--slurm", "train.py", *TWO_BY_TWO, "--time", "2", "--partition", "gpu", "--mpi-option", "--mca btl_tcp_if_include e0",
        "--script", "job.sbatch", "--no-submit", "--epochs", "3", "it's",
        command="launch",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    expected = GOLDEN_SCRIPT.read_text(encoding="utf-8").replace("@FOLDER@", str(tmp_path)).replace("@PYTHON@", sys.executable)
    assert (tmp_path / "job.sbatch").read_text(encoding="utf-8") == expected


def test_sbatch_gets_the_job_of_a_script(sbatch: Callable[[str], Path], tmp_path: Path) -> None:
    (tmp_path / "train.py").touch()
    arguments = sbatch("echo 17")
    result = call("--slurm", "train.py", *TWO_BY_TWO, "--script", "job", command="launch")
    assert (result.exit_code, arguments.read_text()) == (0, "--parsable job\n"), result.output
    assert f"job 17; it prints to {tmp_path / 'train-17.log'}" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--slurm", "mine.toml", "--nodes", "2"], ["--ntasks-per-node missing"]),
        (["--slurm", "mine.toml", *TWO_BY_TWO, "-n", "4"], ["-n does not go with --slurm", "leave it out"]),
        (["--slurm", "mine.toml", *TWO_BY_TWO, "--hostfile", "hosts"], ["--hostfile does not go with --slurm"]),
        (["--slurm", "mine.toml", *TWO_BY_TWO, "--epochs", "3"], ["'--epochs 3'", "takes no arguments", "--set KEY=VALUE"]),
        (["--slurm", "trian.py", *TWO_BY_TWO], ["no script 'trian.py'"]),
        (["--slurm", "trian", *TWO_BY_TWO], ["no file and no launch name 'trian'"]),
        (["--slurm", "train.py", *TWO_BY_TWO, "--set", "rule.name=gap"], ["--set: only with a run file", "train.py is a script"]),
        (["--slurm", "train.py", "--nodes", "0", "--ntasks-per-node", "2"], ["--nodes 0", "1 or more"]),
        (["-n", "2", "--nodes", "2", "train.py"], ["--nodes: only with --slurm"]),
        (["-n", "2", "--set", "a=b", "train.py"], ["--set: only with --slurm"]),
        (["train.py"], ["expected -n RANKS SCRIPT", "--slurm FILE"]),
    ],
)
def test_nonsense_to_launch_is_refused(
    sbatch: Callable[[str], Path], tmp_path: Path, arguments: list[str], words: list[str]
) -> None:
    (tmp_path / "train.py").touch()
    told = sbatch("echo 17")
    result = call(*arguments, command="launch")
    assert (result.exit_code, result.stdout) == (ending.WRONG_USE, ""), result.output
    assert all(word in result.stderr for word in words), result.stderr
    assert not told.exists()


def test_a_script_lies_among_the_results(tmp_path: Path) -> None:
    result = call("mine.toml", *TWO_BY_TWO, "--out", "here", "--no-submit")
    (script,) = (tmp_path / "here").glob("mine-*.sbatch")
    assert f"2 x 2 ranks, 01:00:00 at a time: {script}" in result.stdout
    assert "no checkpoints" not in result.stdout


def test_a_run_without_checkpoints_is_not_queued_anew(tmp_path: Path) -> None:
    result = call("digits", "--nodes", "2", "--ntasks-per-node", "4", "--script", "job", "--no-submit")
    text = (tmp_path / "job").read_text(encoding="utf-8")
    assert "\nrequeues=0\n" in text
    assert "--resume latest)" not in text
    assert "there are no checkpoints" in result.stdout


def test_words_of_any_kind_stay_what_they_are(tmp_path: Path) -> None:
    results = tmp_path / "50 %j's"
    assert call("mine.toml", *TWO_BY_TWO, "--out", results, "--script", "job", "--no-submit").exit_code == 0
    lines = (tmp_path / "job").read_text(encoding="utf-8").splitlines()
    assert f"""#SBATCH --output='{tmp_path}/50 %%j'"'"'s/mine-%j.log'""" in lines
    assert f"""results='{tmp_path}/50 %j'"'"'s'""" in lines


def test_sbatch_gets_the_script(sbatch: Callable[[str], Path], tmp_path: Path) -> None:
    arguments = sbatch("echo '17;there'")
    result = call("mine.toml", *TWO_BY_TWO, "--script", "job")
    assert (result.exit_code, arguments.read_text()) == (0, "--parsable job\n"), result.output
    assert f"job 17; it prints to {tmp_path / 'runs' / 'mine-17.log'}" in result.stdout


def test_what_sbatch_refuses_is_said(sbatch: Callable[[str], Path]) -> None:
    sbatch("echo 'sbatch: error: invalid partition specified: gpu' >&2; exit 1")
    result = call("mine.toml", *TWO_BY_TWO, "--script", "job")
    assert (result.exit_code, "sbatch refused job: sbatch: error: invalid partition" in result.stderr) == (ending.FAILED, True)


def test_without_sbatch_the_script_is_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    result = call("mine.toml", *TWO_BY_TWO, "--script", "job")
    assert (result.exit_code, "no sbatch found on PATH" in result.stderr) == (ending.FAILED, True)
    assert "sbatch job;" in result.stderr
    assert (tmp_path / "job").is_file()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["mine.toml", "--nodes", "0", "--ntasks-per-node", "2"], ["--nodes 0", "1 or more"]),
        (["mine.toml", "--nodes", "2", "--ntasks-per-node", "-1"], ["--ntasks-per-node -1", "1 or more"]),
        (["mine.toml", *TWO_BY_TWO, "--notice", "0"], ["--notice 0"]),
        (["mine.toml", *TWO_BY_TWO, "--time", "1h"], ["--time 1h", "expected minutes", "01:30:00"]),
        (["mine.toml", *TWO_BY_TWO, "--time", "3"], ["--time 3", "180 s", "--notice"]),
        (["mine.toml", *TWO_BY_TWO, "--sbatch-option", "account=x"], ["'account=x'", "--account=physics"]),
        (["mien.toml", *TWO_BY_TWO], ["'mien.toml'"]),
        (["mine.toml", *TWO_BY_TWO, "--set", "rule.name=dtru"], ["rule.name = 'dtru'", "'dtur'"]),
        (["mine.toml", *TWO_BY_TWO, "--set", "model.name=2mn"], ["unknown model '2mn'", "'2nn'"]),
        (["digits", *TWO_BY_TWO], ["are 4 ranks", "run.ranks is 8", "run.ranks=4"]),
        (["mine.toml", *TWO_BY_TWO, "--script", "nowhere/job"], ["nowhere/job cannot be written", "--script"]),
    ],
)
def test_a_mistake_is_one_clean_message_and_nothing_is_submitted(
    sbatch: Callable[[str], Path], arguments: list[str], words: list[str]
) -> None:
    told = sbatch("echo 17")
    result = call(*arguments)
    assert (result.exit_code, result.stdout) == (ending.WRONG_USE, ""), result.output
    assert all(word in result.stderr for word in words), result.stderr
    assert not told.exists()


def test_nodes_are_not_optional() -> None:
    assert call("mine.toml").exit_code == ending.WRONG_USE


@pytest.mark.parametrize(
    ("time", "seconds"),
    [("5", 300), ("5:30", 330), ("1:00:01", 3601), ("2-0", 172_800), ("1-1:1", 90_060), ("1-0:0:9", 86_409)],
)
def test_time_limits(time: str, seconds: int) -> None:
    assert slurm.seconds_of(time) == seconds


@pytest.mark.parametrize("time", ["", "-5", "1:2:3:4", "1-", "infinite", "5.5", "1-2:3:4:5", " 5"])
def test_no_time_limits(time: str) -> None:
    with pytest.raises(ConfigError, match="no time limit of Slurm's"):
        slurm.seconds_of(time)
