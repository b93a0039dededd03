"""A run under a real Slurm that meets its time limit, is queued anew, and goes on: ``make slurm-test``.

Starts two nodes on this machine (packages slurm-wlm and munge), submits a run with ``consensus submit`` that is longer than its
time limit, waits until it is through, and compares it with a run that nobody interrupted. Steps are slowed down by sleeping in
the one and not in the other: under ``full``, for a number of rounds, the models are the same. Takes some minutes, most of them
spent waiting for the time limit.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.slurm.cluster import Cluster, missing, until

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 2
"""Minutes that a start may take."""

ROUNDS_A_SECOND = 12
"""Rounds of the run for each second of the limit: they take longer than that."""

TASKS = 2
TOLERANCE = 0.005
"""Between final accuracies: models are summed up in the order in which they come, so rounding differs."""

RUN = """
[run]
name = "digits"
stop = {{ rounds = {rounds} }}
[topology]
kind = "ring"
[rule]
name = "full"
[checkpoint]
every = "20 s"
[data]
name = "digits"
[model]
name = "2nn"
[optimizer]
name = "sgd"
lr = 0.01
"""
ENDED = {"CANCELLED", "COMPLETED", "FAILED", "NODE_FAIL", "TIMEOUT"}
SLOW = '\n[stragglers]\nmodel = "transient"\nseconds = 0.04\nprobability = 0.05\nfactor = 3\n'


def main() -> None:
    """Run the test; the exit code is 0 if all is as promised."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", type=Path, help="a new folder for all files, which stays; by default they are removed")
    parser.add_argument("--limit", type=int, default=LIMIT, help="minutes that a start may take; more on a busy machine")
    options = parser.parse_args()
    keep, limit = options.keep, options.limit
    # Where distributions keep daemons.
    os.environ["PATH"] += os.pathsep + os.pathsep.join(("/usr/local/sbin", "/usr/sbin", "/sbin"))
    # Killed or not, it leaves no daemons behind.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    os.environ["PYTHONPATH"] = str(ROOT)
    if absent := missing():
        sys.exit(f"not found: {', '.join(absent)}; install Slurm and munge, as in: apt-get install slurm-wlm munge")
    if keep is not None:
        keep.mkdir(parents=True)
        check(keep.absolute(), limit)
        return
    with tempfile.TemporaryDirectory() as folder:
        check(Path(folder), limit)


def check(folder: Path, limit: int) -> None:
    """Do it all in ``folder``, with a time limit of so many minutes."""
    text = RUN.format(rounds=ROUNDS_A_SECOND * 60 * limit)
    (folder / "slow.toml").write_text(text + SLOW)
    (folder / "fast.toml").write_text(text)
    (folder / "slurm").mkdir(mode=0o755)
    with Cluster(folder / "slurm") as cluster:
        said = consensus(
            "submit", "slow.toml", "--nodes", "2", "--ntasks-per-node", TASKS, "--time", limit, "--notice", 15 * limit,
            "--out", folder / "runs", folder=folder, environment=cluster.environment,
        )  # fmt: skip
        print(said, flush=True)
        number = said.split("job ")[1].split(";")[0]
        until(lambda: cluster.job(number).get("JobState") in ENDED, 1200 * limit, "the job's end")
        job = cluster.job(number)
    log = (folder / "runs" / f"digits-{number}.log").read_text()
    print(log, flush=True)
    beside = folder / "runs" / "whole"
    consensus("run", "fast.toml", "--ranks", 2 * TASKS, "--out", beside, folder=folder, environment=dict(os.environ))
    (whole,) = summaries(beside)
    starts = summaries(folder / "runs" / f"job-{number}")
    problems = complaints(job, starts, whole)
    for summary in (*starts, whole):
        print(summary["ended"], summary["rounds"], summary["final"])
    if problems:
        sys.exit("\n".join(problems))
    print(f"the limit struck, the job was queued anew {job['Restarts']} times, and the run ended as if nobody had interrupted it")


def complaints(job: dict[str, str], starts: list[dict[str, Any]], whole: dict[str, Any]) -> list[str]:
    """What is not as promised."""
    *cut, last = starts
    accuracies = [summary["final"]["accuracy"] for summary in (last, whole)]
    promised = {
        f"the job's state is {job['JobState']}": job["JobState"] == "COMPLETED",
        f"the job was queued anew {job['Restarts']} times, and left {len(starts)} runs": 1 <= int(job["Restarts"]) == len(cut),
        f"runs cut short ended: {[run['ended'] for run in cut]}": all(run["ended"] == "interrupted" for run in cut),
        f"the last run ended: {last['ended']}": last["ended"] == whole["ended"],
        f"rounds are {last['rounds']}, not {whole['rounds']}": last["rounds"] == whole["rounds"],
        f"the last run went on from {last['resumed']}": last["resumed"] is not None,
        f"final accuracies are {accuracies}": abs(accuracies[0] - accuracies[1]) <= TOLERANCE,
    }
    return [complaint for complaint, kept in promised.items() if not kept]


def consensus(*arguments: object, folder: Path, environment: dict[str, str]) -> str:
    """What the command prints."""
    argv = [sys.executable, "-m", "consensus", *map(str, arguments)]
    return subprocess.run(argv, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, check=True, timeout=900).stdout


def summaries(folder: Path) -> list[dict[str, Any]]:
    """Of the runs in ``folder``, in the order of their start."""
    return [json.loads(path.read_text()) for path in sorted(folder.glob("digits-*/summary.json"))]


if __name__ == "__main__":
    main()
