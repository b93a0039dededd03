"""``consensus run`` with a parameter server on real ranks: interrupted, and resumed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

from consensus import launcher
from tests.experiments import summary_of
from tests.ranks import ROOT, needs_mpirun

EVERY = 5
SETTINGS = [
    "rule.name=bsp", "model.name=logistic", "data.limit=200", "evaluation.marks=1", f"checkpoint.every='{EVERY} rounds'",
    "stragglers={ model = 'constant', seconds = 0.005 }",
]  # fmt: skip


def start(out: Path, stop: str, *arguments: str) -> subprocess.Popen[str]:
    """A server and a worker."""
    words = ["run", "digits", "--ranks", "2", "--out", str(out), *arguments]
    words += [word for setting in (*SETTINGS, f"run.stop={{ {stop} }}") for word in ("--set", setting)]
    return subprocess.Popen(
        [sys.executable, "-m", "consensus", *words],
        env={**launcher.without_launcher(os.environ), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def updates(job: subprocess.Popen[str]) -> int:
    """How many the server has made when it first tells of its progress."""
    assert job.stdout is not None
    while line := job.stdout.readline():
        told = re.search(r"samples, ([\d ]+) rounds", line)
        if told is not None:
            return int(told[1].replace(" ", ""))
    raise AssertionError(f"the run ended before it showed progress: {job.communicate()}")


@needs_mpirun
def test_a_served_run_is_interrupted_and_goes_on(tmp_path: Path) -> None:
    with start(tmp_path, "seconds = 300") as job:
        seen = updates(job)
        job.send_signal(signal.SIGTERM)
        out, err = job.communicate(timeout=100)
    assert job.returncode == 130, (out, err)
    (first,) = tmp_path.glob("digits-*")
    before = summary_of(first)
    assert before["ended"] == "interrupted"
    made = before["server"]["updates"]
    assert made >= seen > 0

    with start(tmp_path, f"rounds = {made + 2 * EVERY}", "--resume", "latest") as job:
        out, err = job.communicate(timeout=100)
    assert job.returncode == 0, (out, err)
    (second,) = set(tmp_path.glob("digits-*")) - {first}
    after = summary_of(second)
    assert after["resumed"]["run"] == str(first)
    # The worker was told to stop, and took no step more: it goes on where the server does, to the sample.
    assert after["rounds"] == [made + 2 * EVERY] * 2
    assert after["server"]["gradients"] == after["server"]["updates"] == made + 2 * EVERY
    assert after["wall_seconds"] > before["wall_seconds"]
