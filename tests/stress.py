"""Many random runs on real ranks, looking for one that hangs or moves the mean: ``make stress``.

Ranks are started once for a batch of runs and attach anew for each. A run's seed fixes its graph, rule, weights, order, numbers
of rounds, times of steps, and whether a rank gives up half-way. If no run ends within the patience, the ranks are killed and the
seed is reported; ``--first SEED --runs 1`` repeats it.
"""

from __future__ import annotations

import argparse
import atexit
import os
import queue
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import torch

from consensus.optim import attach
from consensus.rules import RULES
from consensus.rules import build as build_rule
from consensus.timing import ShiftedExponential
from consensus.topology import build as build_graph
from consensus.transport.base import Transport
from consensus.transport.straggler import StragglerTransport

ROOT = Path(__file__).resolve().parent.parent
ROUNDS = 30
BATCH = 100
TOLERANCE = 1e-12
"""Relative change of the mean that rounding may cause (float64)."""

FAMILIES = ("ring", "path", "star", "complete", "erdos_renyi", "tree", "watts_strogatz")


class Plan(NamedTuple):
    """One run, the same at all ranks."""

    graph: str
    seed: int
    rule: str
    weights: str
    order: str
    numbers: int
    rounds: tuple[int, ...]
    mean_step: float
    average_half_way: bool
    quitter: int | None

    def __str__(self) -> str:
        extras = [self.weights, self.order, f"{self.numbers} numbers", f"rounds {min(self.rounds)} to {max(self.rounds)}"]
        extras += ["an average half-way"] * self.average_half_way + [f"rank {self.quitter} gives up"] * (self.quitter is not None)
        return f"seed {self.seed}: {self.rule} on {self.graph}, " + ", ".join(extras)


def draw(seed: int, size: int) -> Plan:
    """The run of this seed."""
    chance = random.Random(seed)
    rule = chance.choice(sorted(RULES))
    quitter = chance.randrange(size) if chance.random() < 0.15 else None
    return Plan(
        graph=chance.choice([family for family in FAMILIES if size > 4 or family != "watts_strogatz"]),
        seed=seed,
        rule=rule,
        weights=chance.choice(["static", "active"]) if rule in ("full", "dtur") else "static",
        order=chance.choice(["adapt-combine", "adapt-combine", "combine-adapt"]),
        numbers=chance.choice([3, 1000, 300_000]),
        rounds=tuple(chance.choice([ROUNDS, chance.randint(0, ROUNDS)]) for _ in range(size)),
        mean_step=chance.choice([0.0, 2e-4, 1e-3]),
        average_half_way=quitter is None and chance.random() < 0.3,
        quitter=quitter,
    )


class Numbers(torch.nn.Module):
    """Numbers to average."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.w = torch.nn.Parameter(torch.zeros(count, dtype=torch.float64))

    def forward(self) -> torch.Tensor:
        return self.w.sum()


class GaveUp(Exception):
    """A rank's training failed, on purpose."""


def one_run(transport: Transport, plan: Plan) -> str:
    """Run ``plan``; return what is wrong, the same at all ranks, or nothing."""
    rank, size = transport.rank, transport.size
    rule = build_rule(plan.rule, **({"seconds": 1e-3} if plan.rule == "deadline" else {}))
    times = ShiftedExponential(shift=0.0, mean=plan.mean_step).stream(rank, plan.seed)
    start = np.random.default_rng([plan.seed, rank]).normal(size=plan.numbers)
    model = Numbers(plan.numbers)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    handle = attach(
        model,
        optimizer,
        topology=build_graph(plan.graph, size, seed=plan.seed),
        rule=rule,
        weights=plan.weights,
        order=plan.order,
        transport=StragglerTransport(transport, times),
    )
    with torch.no_grad():
        model.w.copy_(torch.from_numpy(start))

    def train(steps: int) -> None:
        for _ in range(steps):
            model().backward()
            optimizer.step()
            optimizer.zero_grad()

    exits: list[Any] = []
    register, atexit.register = atexit.register, exits.append
    rounds = plan.rounds[rank]
    try:
        with handle:
            train(rounds // 2)
            if plan.average_half_way:
                handle.average()
            if rank == plan.quitter:
                raise GaveUp
            train(rounds - rounds // 2)
    except GaveUp:
        for goodbye in exits:
            goodbye()
    finally:
        atexit.register = register
    before, after = start.copy(), model.w.detach().numpy().copy()
    scale = np.abs(before)
    for vector in (before, after, scale):
        transport.sum(vector)
    drift = float(np.max(np.abs(after - before) / scale))
    done = transport.gather(handle.statistics.rounds)
    expected = [rounds // 2 if rank == plan.quitter else rounds for rank, rounds in enumerate(plan.rounds)]
    if done != expected:
        return f"rounds {done}, expected {expected}"
    return "" if drift < TOLERANCE else f"the mean moved by {drift:.2g} of its scale"


def work(first: int, runs: int) -> None:
    """A rank's part; rank 0 prints a line before and after each run."""
    from consensus.transport.mpi import MpiTransport

    torch.set_num_threads(1)
    transport = MpiTransport()
    for seed in range(first, first + runs):
        plan = draw(seed, transport.size)
        if transport.rank == 0:
            print(f"run {plan}", flush=True)
        wrong = one_run(transport, plan)
        if transport.rank == 0:
            print(f"wrong {wrong}" if wrong else "done", flush=True)


def read_lines(stream: IO[str], lines: queue.Queue[str]) -> None:
    for line in stream:
        lines.put(line.rstrip())
    lines.put("")


def batch(first: int, runs: int, ranks: int, patience: float) -> list[str]:
    """Run one batch under mpirun; return what went wrong."""
    mpirun = Path(sys.executable).with_name("mpirun")
    command = [str(mpirun) if mpirun.exists() else "mpirun", "-n", str(ranks), sys.executable, "-m", "mpi4py", __file__]
    command += ["--worker", "--first", str(first), "--runs", str(runs)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    # Its own session, so that mpirun and all ranks can be ended together by its id.
    job = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert job.stdout is not None
    lines: queue.Queue[str] = queue.Queue()
    threading.Thread(target=read_lines, args=(job.stdout, lines), daemon=True).start()
    problems, doing, left = [], "starting", runs
    try:
        while left:
            line = lines.get(timeout=patience if doing != "starting" else 10 * patience)
            if not line:
                problems.append(f"the ranks ended during {doing}")
                break
            if line.startswith("run "):
                doing = line.removeprefix("run ")
                continue
            left -= 1
            if line.startswith("wrong "):
                problems.append(f"{doing}: {line.removeprefix('wrong ')}")
        job.wait(timeout=patience)
    except (queue.Empty, subprocess.TimeoutExpired):
        problems.append(f"hangs: {doing if left else 'the end of the ranks'}")
    finally:
        if job.poll() is None:
            os.killpg(job.pid, signal.SIGKILL)
        code = job.wait()
    if code and not problems:
        problems.append(f"the ranks ended with exit status {code}")
    return problems


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--ranks", type=int, default=8)
    parser.add_argument("--first", type=int, default=0, help="seed of the first run")
    parser.add_argument("--patience", type=float, default=30.0, help="seconds after which a run counts as hanging")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.worker:
        work(options.first, options.runs)
        return 0
    began, problems = time.monotonic(), []
    for start in range(options.first, options.first + options.runs, BATCH):
        runs = min(BATCH, options.first + options.runs - start)
        problems += batch(start, runs, options.ranks, options.patience)
        print(f"seeds {start} to {start + runs - 1}: {len(problems)} problems, {time.monotonic() - began:.0f} s", flush=True)
    for problem in problems:
        print(problem)
    return 1 if problems else 0


if __name__ == "__main__":
    raise SystemExit(main())
