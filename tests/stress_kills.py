"""Random runs in which ranks are killed at random, looking for one that hangs or spoils a checkpoint: ``make stress-kills``.

A run's seed fixes its size, graph, rule, and who dies when: at a moment of the exchange, or whenever a clock says so, be it while
a checkpoint is written or after the training. Each is a `consensus run` of its own with checkpoints. It has to end, to name the
dead, and to leave checkpoints that read back whole. ``--first SEED --runs 1`` repeats a run.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from consensus.transport.idle import cpus
from tests.stress import FAMILIES
from tests.support.checkpoint_check import damages
from tests.support.dying import FIRST, MOMENTS
from tests.support.fates import ANY, Fate
from tests.support.forkserver import ForkServer
from tests.worlds import EVERY_RULE

ROUNDS = 40
SECONDS = 2.0
"""Within so many after the chosen round begins a clock kills; most runs are at their end by then."""
PROGRAM = ["-c", "from tests.support.mortal_run import main; main()"]
MODULES = ["tests.support.rehearsal", "tests.support.mortal_run", "mpi4py.run"]
RULES = {"deadline": "\nseconds = 0.002", "gap": "\nwindow = 3"}
"""Parameters where the default suits longer steps."""
TCP = ("--mca", "btl", "self,tcp")

RUN = """
[run]
name = "run"
seed = {seed}
stop = {{ rounds = {rounds} }}
out = "{out}"
[topology]
kind = "{graph}"
[rule]
name = "{rule}"{parameters}
[exchange]
weights = "{weights}"
[data]
name = "digits"
batch = 8
[model]
name = "2nn"
[checkpoint]
every = "{every} rounds"
"""


class Plan(NamedTuple):
    """One run."""

    seed: int
    ranks: int
    graph: str
    rule: str
    weights: str
    every: int
    deaths: dict[int, Fate]

    def __str__(self) -> str:
        words = ", ".join(f"rank {rank} {fate.moment} in round {fate.round}" for rank, fate in sorted(self.deaths.items()))
        return f"seed {self.seed}: {self.rule} on {self.graph} of {self.ranks}, {self.weights}; {words}"

    def file(self, out: Path) -> str:
        """The run file."""
        fields = {**self._asdict(), "parameters": RULES.get(self.rule, ""), "rounds": ROUNDS, "out": out}
        return RUN.format_map(fields)


def draw(seed: int) -> Plan:
    """The run of this seed."""
    chance = random.Random(seed)
    ranks = chance.randint(3, 8)
    rule = chance.choice(sorted(EVERY_RULE))
    kills = chance.choice([1, 1, 2, chance.randint(1, ranks - 1)])
    deaths = {
        rank: Fate(chance.choice([*MOMENTS, ANY]), chance.randint(FIRST, ROUNDS - 12), chance.uniform(0, SECONDS))
        for rank in chance.sample(range(ranks), kills)
    }
    graph = chance.choice([family for family in FAMILIES if ranks > 4 or family != "watts_strogatz"])
    weights = chance.choice(["static", "active"]) if rule in ("full", "dtur") else "static"
    return Plan(seed, ranks, graph, rule, weights, chance.randint(1, 5), deaths)


class Outcome(NamedTuple):
    """What came of a run.

    Attributes
    ----------
    kills : int
        Ranks that were killed before the end, at least.
    sets : int
        Of checkpoints that were read.
    problems : list of str
        What is wrong.
    """

    plan: Plan
    kills: int
    sets: int
    problems: list[str]


def judge(server: ForkServer, plan: Plan, patience: float, extra: Sequence[str]) -> Outcome:
    """Run a plan."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "run.toml"
        file.write_text(plan.file(Path(folder) / "runs"))
        deaths = json.dumps({str(rank): fate for rank, fate in plan.deaths.items()})
        code, out, errors = server.run(plan.ranks, [*PROGRAM, str(file), deaths], patience, extra)
        checkpoints = [*Path(folder).glob("runs/*/checkpoints")]
        wrong = [words for path in checkpoints for words in damages(path)]
        sets = sum(len(json.loads(path.read_bytes())["sets"]) for path in Path(folder).glob("runs/*/checkpoints/manifest.json"))
        summaries: list[dict[str, Any]] = [json.loads(path.read_bytes()) for path in Path(folder).glob("runs/*/summary.json")]
    # A clock may strike when all is over, or nearly so: then the others write the summary.
    sure = {rank for rank, fate in plan.deaths.items() if fate.moment != ANY}
    lost = set(summaries[0]["lost"]) if summaries else set()
    if code is None:
        wrong.append(f"hangs, no end within {patience:.0f} s:\n{out}\n{errors}")
    elif code or not summaries:
        wrong.append(f"ended with {code} and {len(summaries)} summaries:\n{errors}")
    elif not sure <= lost <= plan.deaths.keys():
        wrong.append(f"ranks {lost} are said to be lost, expected {sure}")
    return Outcome(plan, len(lost), sets, wrong)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=150, help="about 200 kills with the default")
    parser.add_argument("--first", type=int, default=0, help="seed of the first run")
    parser.add_argument("--jobs", type=int, default=len(cpus()), help="so many at a time; ranks spend most of the time waiting")
    parser.add_argument("--patience", type=float, default=120.0, help="seconds after which a run counts as hanging")
    parser.add_argument("--tcp", action="store_true", help="over TCP, Open MPI's, in place of shared memory")
    options = parser.parse_args(arguments)
    began, kills, sets, problems = time.monotonic(), 0, 0, []
    plans = [draw(seed) for seed in range(options.first, options.first + options.runs)]
    extra = TCP if options.tcp else ()
    with ForkServer(MODULES) as server, ThreadPoolExecutor(options.jobs) as pool:
        for outcome in pool.map(lambda plan: judge(server, plan, options.patience, extra), plans):
            kills, sets = kills + outcome.kills, sets + outcome.sets
            problems += [f"{outcome.plan}: {words}" for words in outcome.problems]
            print(outcome.plan, *outcome.problems, flush=True)
    print(f"\n{len(plans)} runs, {kills} kills, {sets} sets of checkpoints read in {time.monotonic() - began:.0f} s,", end=" ")
    print(f"{len(problems)} problems", *problems, sep="\n")
    return 1 if problems else 0


if __name__ == "__main__":
    raise SystemExit(main())
