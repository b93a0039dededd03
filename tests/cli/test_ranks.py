"""The command line with real ranks: two of them, as few as can disagree."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from consensus import launcher
from consensus.coding.system import System
from consensus.errors import LaunchError

ROOT = Path(__file__).resolve().parents[2]

SHORT = ["--ranks", "2", "--set", "stragglers.model=none", "--set", "run.stop={ rounds = 20 }"]

# Takes the experiment's place, which costs a rank seconds to load.
TROUBLE = """
import sys, types
stub = types.ModuleType("consensus.run.experiment")
def run(config, transport, *, report=None, resume=None):
    if transport.rank == 1:
        raise {error}
    transport.gather(None)
stub.run = run
sys.modules[stub.__name__] = stub
import consensus.run
consensus.run.experiment = stub
from consensus.cli import main
main()
"""

# A launcher of another make than the MPI library: its ranks do not find each other.
STRANGER = """
import os, subprocess, sys
if "--version" in sys.argv:
    print("mpirun (Open MPI) 5.0.0")
    sys.exit()
program = sys.argv[sys.argv.index(sys.executable):]
world = {**os.environ, "OMPI_COMM_WORLD_SIZE": "2"}
ranks = [subprocess.Popen(program, env={**world, "OMPI_COMM_WORLD_RANK": str(rank)}) for rank in range(2)]
sys.exit(max(rank.wait() for rank in ranks))
"""


@pytest.fixture(autouse=True)
def _needs_mpirun() -> None:
    try:
        launcher.find()
    except LaunchError as error:
        pytest.skip(str(error))


def environment() -> dict[str, str]:
    return {**launcher.without_launcher(os.environ), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def consensus(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "consensus", *map(str, arguments)]


def call(argv: Sequence[str], env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        argv, env=env or environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=100, errors="replace"
    )


def test_run_launches_its_ranks(tmp_path: Path) -> None:
    done = call(consensus("run", "digits", *SHORT, "--out", tmp_path))
    assert done.returncode == 0, done
    (folder,) = tmp_path.iterdir()
    assert json.loads((folder / "summary.json").read_text())["rounds"] == [20, 20]
    for said in ("dtur on 2 ranks", "compute, s", f"results are in {folder}", "curves.png"):
        assert done.stdout.count(said) == 1, done.stdout
    # Open MPI gives ranks a pseudo-terminal; nothing drawn for one may end up in a file.
    assert "\x1b" not in done.stdout + done.stderr


def test_ctrl_c_ends_in_good_order(tmp_path: Path) -> None:
    argv = consensus("run", "digits", "--ranks", "2", "--set", "run.stop={ seconds = 90 }", "--out", tmp_path)
    with subprocess.Popen(
        argv, env=environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as job:
        assert job.stdout is not None
        while "samples" not in (line := job.stdout.readline()):
            assert line, "the run ended before it showed progress"
        job.send_signal(signal.SIGINT)
        out, err = job.communicate(timeout=100)
    assert job.returncode == 130, (out, err)
    assert "interrupted: ranks finish their round and keep what they have" in err
    (folder,) = tmp_path.glob("digits-*")
    assert f"interrupted; partial results are in {folder}" in out
    assert json.loads((folder / "summary.json").read_text())["ended"] == "interrupted"


def test_another_number_of_ranks_than_the_file_says(tmp_path: Path) -> None:
    job = launcher.command(2, ["-m", "consensus", "run", "digits", "--out", str(tmp_path)], environment=environment())
    done = call(job.argv, job.env)
    assert done.returncode not in (0, None)
    assert done.stderr.count("run.ranks = 8: 2 ranks were started; start 8 or leave the key out") == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("error", "said", "unsaid"),
    [
        ("RuntimeError('boom')", ["rank 1 failed", "[rank 1] RuntimeError: boom", "[rank 1] Traceback"], "error:"),
        ("__import__('consensus').errors.NonFiniteLoss('the loss is nan')", ["error: rank 1: the loss is nan"], "Traceback"),
    ],
)
def test_a_rank_that_raises_ends_the_job_and_is_named(tmp_path: Path, error: str, said: list[str], unsaid: str) -> None:
    script = tmp_path / "trouble.py"
    script.write_text(TROUBLE.format(error=error))
    arguments = ["run", "digits", "--set", "run.ranks=2", "--out", str(tmp_path)]
    done = call(consensus("launch", "-n", "2", script, *arguments))
    assert done.returncode == 1, done
    assert all(words in done.stderr for words in said), done.stderr
    assert unsaid not in done.stderr


def test_launch_passes_arguments_and_codes_on(tmp_path: Path) -> None:
    script = tmp_path / "own.py"
    script.write_text(
        "import sys\n"
        "from consensus.transport.launched import default_transport\n"
        "transport = default_transport()\n"
        "print('arguments of', transport.gather(transport.rank), *sys.argv[1:], flush=True)\n"
    )
    done = call(consensus("launch", "-n", "2", script, "--ranks", "7", "-x", "word"))
    assert done.returncode == 0, done
    assert done.stdout.count("arguments of [0, 1] --ranks 7 -x word") == 2


def test_compare_tabulates_what_a_run_writes(tmp_path: Path) -> None:
    done = call(consensus("compare", "digits", "--rule", "static_backup:b=1", "--seeds", "1", *SHORT, "--out", tmp_path))
    assert done.returncode == 0, done
    (folder,) = tmp_path.glob("compare-digits-*")
    (row,) = json.loads((folder / "compare.json").read_text())["rows"]
    assert (row["label"], row["runs"], row["failed"]) == ("static_backup:b=1", 1, 0)
    assert (folder / "compare.png").exists()


def test_doctor_finds_ranks_and_edges_and_measures_them(tmp_path: Path) -> None:
    system = tmp_path / "system.json"
    asked = consensus("doctor", "--ranks", "3", "--out", tmp_path / "runs", "--measure", system)
    done = call(asked, env={**environment(), "COLUMNS": "400"})
    assert done.returncode == 0, done
    for said in ("latency", "0 - 1", "1 - 2", "0 - 2", "models arrive as they were sent", "3 files at once", "consensus select"):
        assert said in done.stdout, done.stdout
    assert System.read(system).workers_per_edge == (1,)
    assert [path.name for path in tmp_path.iterdir()] == ["system.json"]


def test_doctor_among_ranks_speaks_once(tmp_path: Path) -> None:
    job = launcher.command(2, ["-m", "consensus", "doctor", "--out", str(tmp_path)], environment=environment())
    done = call(job.argv, job.env)
    assert done.returncode == 0, done
    assert done.stdout.count("consensus doctor") == 1
    assert "\x1b" not in done.stdout
    assert "forks while MPI is in use" not in done.stderr


def test_doctor_sees_that_a_launcher_starts_ranks_one_by_one(tmp_path: Path) -> None:
    other = tmp_path / "mpirun"
    other.write_text(f"#!{sys.executable}\n{STRANGER}")
    other.chmod(0o755)
    done = call(consensus("doctor", "--ranks", "2", "--mpirun", other, "--out", tmp_path))
    assert done.returncode == 1, done
    assert "1 seen, 2 started" in done.stdout


@pytest.mark.parametrize("task", [0, 1])
def test_doctor_under_srun_without_its_plugin(tmp_path: Path, task: int) -> None:
    slurm = {"SLURM_JOB_ID": "1", "SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": str(task)}
    done = call(consensus("doctor", "--out", tmp_path), env={**environment(), **slurm, "COLUMNS": "400"})
    assert done.returncode == 1 - task, done
    assert done.stdout.count("tells its 2 tasks nothing about MPI") == 1 - task
