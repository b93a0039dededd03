"""Jobs that are interrupted, with a stand-in for mpirun."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from consensus.cli.supervise import INTERRUPTED, Outcome, supervise
from consensus.launcher import Launch

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


def job(script: str) -> Launch:
    return Launch([sys.executable, "-c", script], dict(os.environ))


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_an_interrupt_asks_ranks_to_finish(name: str) -> None:
    before = signal.getsignal(signal.SIGINT)
    told: list[str] = []
    outcome = supervise(job(POLITE.format(name=name)), on_interrupt=lambda: told.append("told"), tee_errors=True)
    assert (outcome.code, outcome.errors, told) == (INTERRUPTED, "asked to finish\n", ["told"])
    assert signal.getsignal(signal.SIGINT) is before


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


def test_errors_are_shown_and_kept(capfd: pytest.CaptureFixture[str]) -> None:
    outcome = supervise(job("import sys; sys.stderr.write('trouble\\n')"), tee_errors=True)
    assert outcome.errors == "trouble\n"
    assert capfd.readouterr().err == "trouble\n"
