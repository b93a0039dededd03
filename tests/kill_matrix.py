"""Every rule, and ranks that die at every moment of a round, in every place of a graph: ``make kill-matrix``.

Five ranks learn digits on a triangle with a tail, 0-1-2-0 and 2-3-4, whose backbone is the path 0-1-2-3-4: rank 4 is a leaf,
rank 2 the hub, whose death leaves two parts, and rank 0 the backbone's other end, which is no leaf. One, two or all but one of
them die in round 5. The others have to end, know who has died, have made their rounds, and have an average that is as good as
that of an undisturbed run of five ranks, to a hundredth.

Every rank draws from all samples. If each had a share of its own, survivors would lack the samples of the dead, and be worse for
that, whatever becomes of the protocol.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from consensus.transport.idle import cpus
from tests.support.dying import MOMENTS
from tests.support.fates import Fate
from tests.support.forkserver import ForkServer
from tests.worlds import EVERY_RULE

EDGES = [(0, 1), (1, 2), (0, 2), (2, 3), (3, 4)]
RANKS = 5
PLACES = {"leaf": [4, 0, 1, 3], "hub": [2, 3, 1, 0], "backbone end": [0, 4, 2, 1]}
"""Who dies, in this order."""
KILLS = (1, 2, RANKS - 1)
ROUNDS, FIRST, PATIENCE = 60, 5, 40
TOLERANCE = 0.01
MODULES = ["tests.support.rehearsal", "tests.support.mortal", "mpi4py.run"]
PROGRAM = ["-c", "from tests.support.mortal import main; main()"]


class Scenario(NamedTuple):
    """One run; without victims an undisturbed one."""

    rule: str
    moment: str = ""
    place: str = ""
    victims: tuple[int, ...] = ()

    def __str__(self) -> str:
        who = f"ranks {', '.join(map(str, self.victims))} die {self.moment} ({self.place})" if self.victims else "undisturbed"
        return f"{self.rule}, {who}"

    def training(self) -> str:
        """For the ranks."""
        deaths = {str(victim): Fate(self.moment, FIRST, patience=PATIENCE) for victim in self.victims}
        return json.dumps({"rule": self.rule, "edges": EDGES, "deaths": deaths, "rounds": ROUNDS})


class Outcome(NamedTuple):
    """What came of a scenario: the survivors' accuracy, and what is wrong."""

    scenario: Scenario
    accuracy: float
    problems: list[str]


def scenarios(rules: Sequence[str], sample: int | None = None, seed: int = 0) -> list[Scenario]:
    """The matrix for ``rules``, or a random ``sample`` of it; undisturbed runs first."""
    disturbed = [
        Scenario(rule, moment, place, tuple(order[:kills]))
        for rule in rules
        for moment in MOMENTS
        for place, order in PLACES.items()
        for kills in KILLS
    ]
    if sample is not None:
        disturbed = random.Random(seed).sample(disturbed, min(sample, len(disturbed)))
    return [*map(Scenario, rules), *disturbed]


def judge(server: ForkServer, scenario: Scenario, patience: float) -> Outcome:
    """Run a scenario."""
    code, out, errors = server.run(RANKS, [*PROGRAM, scenario.training()], patience)
    reports: list[dict[str, Any]] = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
    reports.sort(key=lambda report: report["rank"])
    left = [rank for rank in range(RANKS) if rank not in scenario.victims]
    moments = re.findall(r"^died (\w+) in round", out, re.MULTILINE)
    rare = scenario.rule == "run_free"  # ranks that wait for nobody seldom meet, so a model may not move in all of a run
    accuracies = {report["accuracy"] for report in reports}
    promised = {
        f"no end within {patience:.0f} s:\n{errors}": code is not None,
        f"exit code {code}:\n{errors}": code in (0, None),
        f"reports of ranks {[report['rank'] for report in reports]}, expected {left}": [r["rank"] for r in reports] == left,
        f"members {[report['members'] for report in reports]}": all(report["members"] == left for report in reports),
        f"rounds {[report['rounds'] for report in reports]}": all(report["rounds"] == ROUNDS for report in reports),
        f"accuracies {accuracies}": len(accuracies) == 1,
        f"ranks died {moments}": len(moments) == len(scenario.victims) and (not moments or scenario.moment in moments or rare),
    }
    return Outcome(scenario, max(accuracies, default=0.0), [words for words, kept in promised.items() if not kept])


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rules", nargs="+", default=sorted(EVERY_RULE), choices=sorted(EVERY_RULE), metavar="RULE")
    parser.add_argument("--sample", type=int, help="only so many of the runs with deaths, drawn at random")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--jobs", type=int, default=len(cpus()), help="so many at a time; ranks spend most of the time waiting")
    parser.add_argument("--patience", type=float, default=120.0, help="seconds after which a run counts as hanging")
    options = parser.parse_args(arguments)
    began, undisturbed, problems = time.monotonic(), dict[str, float](), []
    worst: dict[str, float] = dict.fromkeys(options.rules, 0.0)
    runs = scenarios(options.rules, options.sample, options.seed)
    with ForkServer(MODULES) as server, ThreadPoolExecutor(options.jobs) as pool:
        for number, outcome in enumerate(pool.map(lambda run: judge(server, run, options.patience), runs), 1):
            scenario, accuracy, wrong = outcome
            expected = undisturbed.setdefault(scenario.rule, accuracy)
            if not wrong:
                worst[scenario.rule] = max(worst[scenario.rule], abs(accuracy - expected))
                if abs(accuracy - expected) > TOLERANCE:
                    wrong = [f"accuracy {accuracy:.4f}, {expected:.4f} undisturbed"]
            problems += [f"{scenario}: {words}" for words in wrong]
            print(f"{number}/{len(runs)} {scenario}: {accuracy:.4f}", *wrong, flush=True)
    print(f"\n{len(runs)} runs in {time.monotonic() - began:.0f} s, {len(problems)} problems", *problems, sep="\n")
    for rule, accuracy in undisturbed.items():
        print(f"{rule:>14}: undisturbed {accuracy:.4f}, survivors within {worst[rule]:.4f}")
    return 1 if problems else 0


if __name__ == "__main__":
    raise SystemExit(main())
