"""The scripts in launch/, run by bash with stand-ins for the commands they call: what they do at which signal and exit code."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from consensus.run import results

LAUNCH = Path(__file__).resolve().parents[2] / "launch"

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")

# Says that it is there and waits for a TERM, after which it takes its time: a second one would kill it.
UNTIL_TERM = """
exec {python} -ISc '
import signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
print("ready", flush=True)
signal.sigwait([signal.SIGTERM])
signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
open("{pipe}").read()
sys.exit(130)'
"""


class Site:
    """A folder with stand-ins, in which scripts are run; ``calls`` has a line for each stand-in's call."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.calls = folder / "calls"
        self.calls.touch()
        os.mkfifo(folder / "pipe")
        (folder / "bin").mkdir()
        self.stand_in("scontrol")
        self.stand_in("qsub")

    def stand_in(self, name: str, body: str = "") -> None:
        program = self.folder / "bin" / name
        body = body.format(python=sys.executable, pipe=self.folder / "pipe")
        program.write_text(f'#!/bin/bash\necho "{name} $@" >> {self.calls}\n{body}\n')
        program.chmod(0o755)

    def start(self, script: Path, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        path = f"{self.folder / 'bin'}:{os.environ['PATH']}"
        # Tests that were started in the background ignore interrupts, and so would the script, whatever traps it sets.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            return subprocess.Popen(
                ["bash", str(script), *arguments],
                cwd=self.folder, env={"PATH": path, **environment}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
            )  # fmt: skip
        finally:
            signal.signal(signal.SIGINT, before)

    def slurm(self, *arguments: str, restarts: int = 0) -> subprocess.Popen[str]:
        variables = {"SLURM_JOB_ID": "17", "SLURM_NTASKS": "8"} | ({"SLURM_RESTART_COUNT": str(restarts)} if restarts else {})
        return self.start(LAUNCH / "slurm.sbatch", *arguments, **variables)

    def pbs(self, seconds: int, **environment: str) -> subprocess.Popen[str]:
        text = (LAUNCH / "pbs.sh").read_text(encoding="utf-8")
        (self.folder / "pbs.sh").write_text(text.replace("\nseconds=3480\n", f"\nseconds={seconds}\n"))
        given = {"PBS_JOBID": "17.host", "PBS_O_WORKDIR": str(self.folder), "PBS_NODEFILE": "nodes"}
        return self.start(self.folder / "pbs.sh", **given, **environment)

    def finished(self, ended: str, folder: str, age: int = 0) -> None:
        """Leave a run's folder there that has not been touched for ``age`` seconds."""
        run = self.folder / folder
        run.mkdir(parents=True)
        (run / "summary.json").write_text(results.dumps({"ended": ended, "ranks": []}, indent=2))
        then = time.time() - age
        os.utime(run, (then, then))

    @property
    def called(self) -> list[str]:
        return self.calls.read_text().splitlines()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    return Site(tmp_path)


RUN = 'consensus run digits --set checkpoint.every="60 s" --resume latest --ranks 8 '


def until_ready(job: subprocess.Popen[str]) -> None:
    assert job.stdout is not None
    assert job.stdout.readline() == "ready\n"


def let_it_end(site: Site, job: subprocess.Popen[str]) -> tuple[int, str]:
    with (site.folder / "pipe").open("w") as pipe:
        pipe.write("go\n")
    said, _ = job.communicate(timeout=20)
    return job.returncode, said


def test_slurm_queues_an_interrupted_run_anew(site: Site) -> None:
    site.stand_in("consensus", UNTIL_TERM)
    job = site.slurm()
    until_ready(job)
    job.send_signal(signal.SIGUSR1)
    code, said = let_it_end(site, job)
    assert (code, site.called) == (130, [f"{RUN}--out runs/job-17", "scontrol requeue 17"])
    assert "goes on from runs/job-17" in said


@pytest.mark.parametrize(("ended", "again"), [("interrupted", True), ("rounds", False)])
def test_slurm_asks_the_newest_summary_whether_the_run_is_through(site: Site, ended: str, again: bool) -> None:
    site.finished("interrupted", "runs/job-17/digits-1", age=60)
    site.finished(ended, "runs/job-17/digits-2")
    site.stand_in("consensus", UNTIL_TERM)
    job = site.slurm()
    until_ready(job)
    job.send_signal(signal.SIGUSR1)
    code, _ = let_it_end(site, job)
    assert (code, "scontrol requeue 17" in site.called) == (130 if again else 0, again)


def test_slurm_gives_up_after_a_hundred_starts(site: Site) -> None:
    site.stand_in("consensus", UNTIL_TERM)
    job = site.slurm(restarts=100)
    until_ready(job)
    job.send_signal(signal.SIGUSR1)
    assert (let_it_end(site, job), len(site.called)) == ((130, ""), 1)


def test_slurm_interrupted_by_the_user_is_not_queued_anew(site: Site) -> None:
    site.stand_in("consensus", UNTIL_TERM)
    job = site.slurm()
    until_ready(job)
    job.send_signal(signal.SIGINT)
    assert (let_it_end(site, job), len(site.called)) == ((130, ""), 1)


@pytest.mark.parametrize("code", [0, 1, 2, 130])
def test_slurm_passes_the_exit_code_on(site: Site, code: int) -> None:
    site.stand_in("consensus", f"exit {code}")
    job = site.slurm("elsewhere")
    job.communicate(timeout=20)
    assert (job.returncode, site.called) == (code, [f"{RUN}--out elsewhere"])


def test_a_run_that_fails_near_the_limit_is_not_queued_anew(site: Site) -> None:
    site.stand_in("consensus", UNTIL_TERM.replace("130", "1"))
    job = site.slurm()
    until_ready(job)
    job.send_signal(signal.SIGUSR1)
    assert (let_it_end(site, job), len(site.called)) == ((1, ""), 1)


@pytest.mark.skipif(shutil.which("timeout") is None, reason="no timeout(1)")
@pytest.mark.parametrize("given", [{}, {"consensus_out": "elsewhere"}])
def test_pbs_submits_an_interrupted_run_again(site: Site, given: dict[str, str]) -> None:
    site.stand_in("consensus", UNTIL_TERM)
    out = given.get("consensus_out", "runs/job-17.host")
    job = site.pbs(seconds=1, **given)
    until_ready(job)
    code, said = let_it_end(site, job)
    assert (code, site.called) == (130, [f"{RUN}--hostfile nodes --out {out}", f"qsub -v consensus_out={out} launch/pbs.sh"])
    assert f"goes on from {out}" in said


@pytest.mark.skipif(shutil.which("timeout") is None, reason="no timeout(1)")
def test_pbs_leaves_a_run_that_came_to_its_end_alone(site: Site) -> None:
    site.finished("rounds", "runs/job-17.host/digits-1")
    site.stand_in("consensus", UNTIL_TERM)
    job = site.pbs(seconds=1)
    until_ready(job)
    assert (let_it_end(site, job), len(site.called)) == ((0, ""), 1)


@pytest.mark.skipif(shutil.which("timeout") is None, reason="no timeout(1)")
@pytest.mark.parametrize("code", [0, 1, 130])
def test_pbs_passes_the_exit_code_on(site: Site, code: int) -> None:
    site.stand_in("consensus", f"exit {code}")
    job = site.pbs(seconds=60)
    job.communicate(timeout=20)
    assert (job.returncode, len(site.called)) == (code, 1)


def test_local_passes_everything_on(site: Site) -> None:
    site.stand_in("consensus", "exit 3")
    job = site.start(LAUNCH / "local.sh", "digits", "--set", "run.ranks=4")
    job.communicate(timeout=20)
    assert (job.returncode, site.called) == (3, ["consensus run digits --set run.ranks=4"])


def test_the_job_of_a_script_starts_it_in_the_place_of_the_shell(site: Site) -> None:
    site.stand_in("consensus", "kill -USR1 $$")
    job = site.start(LAUNCH / "script.sbatch", SLURM_NTASKS="8")
    job.communicate(timeout=20)
    assert (job.returncode, site.called) == (-signal.SIGUSR1, ["consensus launch -n 8 train.py"])
