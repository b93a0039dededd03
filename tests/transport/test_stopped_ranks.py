"""Ranks of real MPI jobs are stopped, alive and silent; the others go on, and all end well when they are let go on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from consensus import launcher
from consensus.errors import LaunchError
from tests.ranks import ROOT
from tests.support.dying import Scenario

RING, COMPLETE = "ring", "complete"
ROUNDS = 40
PATIENCE = 120
"""Seconds after which a job is ended that does not end by itself."""


class Job:
    """Ranks in groups, and what they say."""

    def __init__(self, scenarios: list[Scenario], process: subprocess.Popen[str]) -> None:
        self.scenarios, self.process = scenarios, process
        self.told: dict[tuple[int, int], dict[str, Any]] = defaultdict(dict)

    def hear(self, *, until: Any) -> None:
        """Take in what ranks say until ``until()`` is true."""
        assert self.process.stdout is not None
        while not until():
            line = self.process.stdout.readline()
            assert line, f"the job has ended, and said {dict(self.told)}"
            if line.startswith("{"):
                said = json.loads(line)
                self.told[said.pop("group"), said.pop("rank")] |= said

    def have(self, ranks: list[tuple[int, int]], what: str) -> bool:
        """Whether all these have said it."""
        return all(what in self.told[rank] for rank in ranks)


@contextmanager
def job(scenarios: list[Scenario]) -> Iterator[Job]:
    """Start a job; at the end it must have ended well."""
    try:
        launcher.find()
    except LaunchError:
        pytest.skip("there is no MPI launcher here")
    environment = {**launcher.without_launcher(os.environ), "PYTHONPATH": str(ROOT)}
    program = ["-m", "tests.support.stopping", json.dumps(scenarios)]
    started = launcher.command(sum(scenario.size for scenario in scenarios), program, environment=environment)
    with subprocess.Popen(started.argv, env=started.env, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        end = threading.Timer(PATIENCE, process.kill)
        end.start()
        try:
            yield Job(scenarios, process)
            assert process.wait() == 0
        finally:
            end.cancel()
            process.kill()


def is_stopped(pid: int) -> bool:
    """Whether a process has been stopped by a signal."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def let_go_on(running: Job) -> None:
    """Let the stopped ranks go on, which must have been stopped all along; wait for the end of all."""
    victims = [(group, rank) for group, scenario in enumerate(running.scenarios) for rank in scenario.victims]
    for victim in victims:
        assert "reached" not in running.told[victim]
        assert is_stopped(running.told[victim]["pid"])
        os.kill(running.told[victim]["pid"], signal.SIGCONT)
    everybody = [(group, rank) for group, scenario in enumerate(running.scenarios) for rank in range(scenario.size)]
    running.hear(until=lambda: running.have(everybody, "value"))
    for group, scenario in enumerate(running.scenarios):
        values = [running.told[group, rank]["value"] for rank in range(scenario.size)]
        assert {running.told[group, rank]["reached"] for rank in range(scenario.size)} == {scenario.rounds}
        assert sum(values) == pytest.approx(sum(range(scenario.size)), abs=1e-9)
        if scenario.rule != "run_free":
            assert max(values) - min(values) < scenario.size - 1  # they have exchanged


PARTIAL = ["static_backup", "dtur", "pathsearch", "gap", "patience", "deadline", "run_free"]


def test_a_rank_that_is_stopped_while_it_computes_hurts_nobody() -> None:
    with job([Scenario(3, COMPLETE, rule, [2], "computing", ROUNDS) for rule in PARTIAL]) as running:
        others = [(group, rank) for group in range(len(PARTIAL)) for rank in (0, 1)]
        running.hear(until=lambda: running.have(others, "reached"))
        let_go_on(running)


def test_one_that_is_stopped_within_an_exchange_takes_its_neighbours_with_it_and_nobody_else() -> None:
    """An offer is never taken back: those two wait for its answer, whatever the rule."""
    rules = ["dtur", "gap"]
    with job([Scenario(6, RING, rule, [3], "offered", ROUNDS) for rule in rules]) as running:
        others = [(group, rank) for group in range(len(rules)) for rank in (0, 1, 5)]
        running.hear(until=lambda: running.have(others, "reached"))
        let_go_on(running)
