"""A job that is killed as a whole again and again, and goes on each time: ``make stress-resume``.

The ranks of `consensus run FILE --resume latest` and their launcher are killed by SIGKILL at a random time after their first
step, and started again, until there have been as many kills as wanted; a run that comes to its end is compared with one that
nobody killed, and another one begins. After every kill all sets of checkpoints that a manifest names have to read back whole, and
the newest has to be no older than one interval: the slowest rank, whose part makes a set complete, repeats no more rounds.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from consensus.checkpoint.store import Store
from consensus.errors import CheckpointError
from tests.support.checkpoint_check import damages, states
from tests.support.forkserver import ForkServer, kill
from tests.support.watched_run import Place, places

RANKS = 4
ROUNDS, EVERY = 300, 5
SECONDS = 1.0
"""Within so many after the first step the job is killed."""
TOLERANCE = 1e-5
"""Relative, of the final loss: models are summed up in the order in which they come, so rounding differs. It stays as small only
where the loss is smooth: one that takes a ReLU across its kink grows, and two of eight undisturbed runs came out 0.08 % apart."""
MODULES = ["tests.support.rehearsal", "tests.support.watched_run", "mpi4py.run"]
PROGRAM = ["-c", "from tests.support.watched_run import main; main()"]

RUN = """
[run]
name = "run"
stop = {{ rounds = {rounds} }}
out = "{out}"
[topology]
kind = "ring"
[rule]
name = "full"
[data]
name = "digits"
batch = 16
[model]
name = "logistic"
[optimizer]
name = "sgd"
lr = 0.05
momentum = 0.9
[checkpoint]
every = "{every} rounds"
"""


class Sequel:
    """A run and its resumed ones, in a folder of their own.

    Parameters
    ----------
    server
        Forks the ranks.
    folder
        New.
    patience
        Seconds after which a start counts as hanging.
    """

    def __init__(self, server: ForkServer, folder: Path, patience: float) -> None:
        self._server, self._patience = server, patience
        self._places, self._out = folder / "places", folder / "runs"
        self._places.mkdir(parents=True)
        self._file = folder / "run.toml"
        self._file.write_text(RUN.format(rounds=ROUNDS, every=EVERY, out=self._out))

    def start(self) -> subprocess.Popen[str]:
        """Begin, or go on."""
        for path in self._places.iterdir():
            path.unlink()
        return self._server.start(RANKS, [*PROGRAM, str(self._file), str(self._places)])

    def strike(self, delay: float) -> dict[int, Place] | None:
        """Start, and kill everything ``delay`` seconds after all ranks have taken a step.

        Returns
        -------
        dict or None
            Where the ranks were; None if the run came to its end before.
        """
        job = self.start()
        limit = time.monotonic() + self._patience
        while len(places(self._places)) < RANKS and job.poll() is None and time.monotonic() < limit:
            time.sleep(0.01)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._end(job, delay)
            return None
        kill(job)
        job.communicate()
        for place in places(self._places).values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(place.pid, signal.SIGKILL)
            while Path(f"/proc/{place.pid}").exists():
                time.sleep(0.01)
        return places(self._places)

    def finish(self) -> None:
        """Let it come to its end."""
        job = self.start()
        try:
            self._end(job, self._patience)
        except subprocess.TimeoutExpired:
            kill(job)
            raise

    def _end(self, job: subprocess.Popen[str], patience: float) -> None:
        _, errors = job.communicate(timeout=patience)
        if job.returncode:
            raise RuntimeError(f"a start of {self._file} ended with {job.returncode}:\n{errors}")

    def summary(self) -> dict[str, Any]:
        """Of the start that came to its end; another one may have been killed when it had just written its own."""
        path = max(self._out.glob("*/summary.json"), key=lambda path: path.stat().st_mtime)
        return dict(json.loads(path.read_bytes()))

    def newest(self) -> dict[int, tuple[int, int]]:
        """Rounds and samples of the newest complete set, by rank; empty if there is none."""
        for path in sorted(self._out.glob("*/checkpoints"), key=lambda path: path.stat().st_mtime, reverse=True):
            if (moment := Store(path, 0, 1).newest()) is not None:
                found = states(path, moment)
                return {rank: (state["statistics"]["rounds"], state["samples"]) for rank, state in found.items()}
        return {}

    def damages(self) -> list[str]:
        """What is wrong with any set that is named by a manifest."""
        return [words for path in self._out.glob("*/checkpoints") for words in damages(path)]


def judge(sequel: Sequel, killed: dict[int, Place]) -> tuple[int, list[str]]:
    """After a kill: how many rounds the slowest rank loses, and what is wrong."""
    wrong = sequel.damages()
    slowest = min(place.rounds for place in killed.values())
    try:
        saved = sequel.newest()
    except CheckpointError as error:
        return 0, [*wrong, str(error)]
    kept = min((rounds for rounds, _ in saved.values()), default=0)
    if slowest - kept > EVERY:
        wrong.append(f"ranks were at {killed}, and the newest set is at {saved}: more than {EVERY} rounds are lost")
    if saved and saved.keys() != killed.keys():
        wrong.append(f"the newest set has ranks {[*saved]}")
    return slowest - kept, wrong


def differences(summary: dict[str, Any], whole: dict[str, Any]) -> list[str]:
    """What a run that was killed again and again has otherwise than one that was not."""
    wrong = [
        f"{key} is {summary[key]}, {whole[key]} without kills"
        for key in ("rounds", "samples", "ended", "lost")
        if summary[key] != whole[key]
    ]
    losses = summary["final"]["loss"], whole["final"]["loss"]
    if abs(losses[0] - losses[1]) > TOLERANCE * losses[1]:
        wrong.append(f"the final losses are {losses}")
    return wrong


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0, help="of the times")
    parser.add_argument("--patience", type=float, default=120.0, help="seconds after which a start counts as hanging")
    options = parser.parse_args(arguments)
    began, chance, problems, losses, ends = time.monotonic(), random.Random(options.seed), [], [], 0
    with ForkServer(MODULES) as server, tempfile.TemporaryDirectory() as folder:
        undisturbed = Sequel(server, Path(folder) / "undisturbed", options.patience)
        undisturbed.finish()
        whole = undisturbed.summary()
        sequel = Sequel(server, Path(folder) / "0", options.patience)
        while len(losses) < options.kills:
            killed = sequel.strike(chance.uniform(0, SECONDS))
            if killed is None:
                problems += differences(sequel.summary(), whole)
                ends += 1
                sequel = Sequel(server, Path(folder) / str(ends), options.patience)
                continue
            lost, wrong = judge(sequel, killed)
            losses.append(lost)
            problems += wrong
            at = [place.rounds for _, place in sorted(killed.items())]
            print(f"kill {len(losses)} at rounds {at}, {lost} lost", *wrong, flush=True)
        sequel.finish()
        problems += differences(sequel.summary(), whole)
    ended = f"{len(losses)} kills in {ends + 1} runs, {time.monotonic() - began:.0f} s, {len(problems)} problems"
    print("", ended, *problems, sep="\n")
    mean = sum(losses) / len(losses)
    print(f"with a checkpoint every {EVERY} rounds at most {max(losses)} were lost, {mean:.1f} on average")
    return 1 if problems else 0


if __name__ == "__main__":
    raise SystemExit(main())
