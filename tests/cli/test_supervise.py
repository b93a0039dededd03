"""Jobs that are interrupted, with a stand-in for mpirun."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from consensus.cli.supervise import INTERRUPTED, Outcome, supervise
from consensus.launcher import Launch
from tests.ranks import ROOT

# Interrupts its parent, the supervisor, once it is ready to hear of it.
POLITE = """
import os, signal, sys
def stop(number, frame):
    print("asked to finish", file=sys.stderr)
    sys.exit(0)
signal.signal(signal.SIGUSR1, stop)
os.kill(os.getppid(), signal.{name})
while True: signal.pause()
"""

STUBBORN = """
import os, signal
def again(number, frame): os.kill(os.getppid(), signal.SIGINT)
signal.signal(signal.SIGUSR1, again)
signal.signal(signal.SIGTERM, signal.{term})
os.kill(os.getppid(), signal.SIGINT)
while True: signal.pause()
"""

# A launcher whose one rank is stopped; it is in a process group of its own, and waits for it whatever it is told.
STOPPED = """
import fcntl, os, pathlib, signal, sys
folder = pathlib.Path(sys.argv[1])
for number in (signal.SIGTERM, signal.SIGHUP): signal.signal(number, signal.SIG_IGN)
rank = os.fork()
if rank == 0:
    os.setpgid(0, 0)
    lock = open(folder / "lock", "w")
    fcntl.flock(lock, fcntl.LOCK_EX)
    os.kill(os.getpid(), signal.SIGSTOP)
    while True: signal.pause()
os.waitpid(rank, os.WUNTRACED)
(folder / "failed").touch()
os.waitpid(rank, 0)
"""

# Kills its parent, the supervisor.
ORPHAN = """
import fcntl, os, signal, sys
lock = open(sys.argv[1], "w")
fcntl.flock(lock, fcntl.LOCK_EX)
os.kill(os.getppid(), signal.SIGKILL)
while True: signal.pause()
"""

SUPERVISOR = """
import os, sys
from consensus.cli.supervise import supervise
from consensus.launcher import Launch
supervise(Launch([sys.executable, "-c", *sys.argv[1:]], dict(os.environ)))
"""


def job(script: str, *arguments: str) -> Launch:
    return Launch([sys.executable, "-c", script, *arguments], dict(os.environ))


def wait_for_the_end_of_who_has_locked(path: Path) -> None:
    with path.open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)


@pytest.mark.usefixtures("hangups")
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_an_interrupt_asks_ranks_to_finish(name: str) -> None:
    before = signal.getsignal(signal.SIGINT)
    told: list[str] = []
    outcome = supervise(job(POLITE.format(name=name)), on_interrupt=lambda: told.append("told"), tee_errors=True)
    assert (outcome.code, outcome.errors, told) == (INTERRUPTED, "asked to finish\n", ["told"])
    assert signal.getsignal(signal.SIGINT) is before


def test_under_nohup_a_hangup_is_nothing() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        outcome = supervise(job("import os, signal; os.kill(os.getppid(), signal.SIGHUP); raise SystemExit(3)"))
    finally:
        signal.signal(signal.SIGHUP, before)
    assert outcome == Outcome(3)


@pytest.mark.parametrize("term", ["SIG_DFL", "SIG_IGN"])
def test_a_second_interrupt_ends_the_job(term: str) -> None:
    assert supervise(job(STUBBORN.format(term=term)), patience=0.2).interrupted


def test_the_job_is_out_of_reach_of_the_terminal(tmp_path: Path) -> None:
    script = f"import os; open({str(tmp_path / 'session')!r}, 'w').write(str(os.getsid(0)))"
    assert supervise(job(script)).code == 0
    assert int((tmp_path / "session").read_text()) != os.getsid(0)


@pytest.mark.parametrize(("script", "code"), [("", 0), ("raise SystemExit(2)", 2), ("import os; os.kill(os.getpid(), 9)", 137)])
def test_exit_codes_are_passed_on(script: str, code: int) -> None:
    assert supervise(job(script)).code == code


def test_a_launcher_that_goes_on_when_all_is_done_is_ended() -> None:
    asked: list[int] = []
    ready = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
    assert supervise(job(ready), done=lambda: bool(asked.append(1) or True), linger=0, patience=0.2) == Outcome(0)
    assert asked


def test_a_stopped_rank_does_not_hold_up_the_end_of_a_job_in_which_another_has_failed(tmp_path: Path) -> None:
    outcome = supervise(job(STOPPED, str(tmp_path)), failed=(tmp_path / "failed").exists, grace=0, patience=0.2)
    assert outcome == Outcome(1, killed=True)
    wait_for_the_end_of_who_has_locked(tmp_path / "lock")


def test_a_launcher_that_ends_with_0_though_a_rank_has_failed() -> None:
    assert supervise(job(""), failed=lambda: True) == Outcome(1)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems end no process with its parent")
def test_no_job_outlives_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    done = subprocess.run([sys.executable, "-c", SUPERVISOR, ORPHAN, str(lock)], cwd=ROOT, timeout=60)
    assert done.returncode == -signal.SIGKILL
    wait_for_the_end_of_who_has_locked(lock)


def test_errors_are_shown_and_kept(capfd: pytest.CaptureFixture[str]) -> None:
    outcome = supervise(job("import sys; sys.stderr.write('trouble\\n')"), tee_errors=True)
    assert outcome.errors == "trouble\n"
    assert capfd.readouterr().err == "trouble\n"
