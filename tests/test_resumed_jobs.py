"""``consensus run`` with a parameter server on real ranks: interrupted, resumed, and left without its server."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from consensus import launcher
from consensus.run.checkpoints import FOLDER
from tests.experiments import summary_of
from tests.ranks import ROOT, needs_mpirun

RANKS = "3"
EVERY = 5
SETTINGS = [
    "rule.name=bsp", "model.name=logistic", "data.limit=200", "run.stop={ seconds = 300 }",
    "stragglers={ model = 'constant', seconds = 0.005 }", f"checkpoint.every='{EVERY} rounds'",
]  # fmt: skip


def start(out: Path, *arguments: str) -> subprocess.Popen[str]:
    words = ["run", "digits", "--ranks", RANKS, "--out", str(out), *arguments]
    words += [word for setting in SETTINGS for word in ("--set", setting)]
    return subprocess.Popen(
        [sys.executable, "-m", "consensus", *words],
        env={**launcher.without_launcher(os.environ), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def updates(job: subprocess.Popen[str], more_than: int) -> int:
    """Read what the server says of its progress until it has made so many updates."""
    assert job.stdout is not None
    while line := job.stdout.readline():
        told = re.search(r"samples, ([\d ]+) rounds", line)
        if told is not None and int(told[1].replace(" ", "")) > more_than:
            return int(told[1].replace(" ", ""))
    raise AssertionError(f"the run ended before it had made {more_than} updates: {job.communicate()}")


def server(out: Path) -> int:
    """The process of rank 0 of the job that writes there."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            line, variables = (process / "cmdline").read_bytes(), (process / "environ").read_bytes()
        except OSError:
            continue
        ranked = re.search(rb"(^|\0)(OMPI_COMM_WORLD_RANK|PMI_RANK)=0(\0|$)", variables)
        if ranked and str(out).encode() in line:
            return int(process.name)
    raise AssertionError("rank 0 is nowhere")


@needs_mpirun
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="ranks are found in /proc, which this system has not")
def test_a_served_run_is_interrupted_goes_on_and_tells_how_when_the_server_dies(tmp_path: Path) -> None:
    with start(tmp_path) as job:
        seen = updates(job, 2 * EVERY)
        job.send_signal(signal.SIGTERM)
        out, err = job.communicate(timeout=100)
    assert job.returncode == 130, (out, err)
    (first,) = tmp_path.glob("digits-*")
    before = summary_of(first)
    assert before["ended"] == "interrupted"
    assert before["server"]["updates"] >= seen

    with start(tmp_path, "--resume", "latest") as job:
        # A set is complete when the server has made another update: all have pushed since they wrote.
        seen = updates(job, before["server"]["updates"] + EVERY + 1)
        os.kill(server(tmp_path), signal.SIGKILL)
        out, err = job.communicate(timeout=100)
    assert job.returncode not in (0, 130), (out, err)
    (second,) = set(tmp_path.glob("digits-*")) - {first}
    newest = json.loads((second / FOLDER / "manifest.json").read_text())["sets"][0]
    assert newest["rounds"]["least"] >= seen // EVERY * EVERY - EVERY
    assert f"{second / FOLDER / newest['folder']}; to go on from it: consensus run {second}/config.toml --resume {second}" in err
    assert "rank 0, the server, has died" in err or "rank 0 (process" in err or "a rank died of signal 9" in err
