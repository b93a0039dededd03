"""Ranks are killed in real MPI jobs, and the others go on to the end."""

from __future__ import annotations

import json
import os
import subprocess

import pytest

from consensus import launcher
from consensus.errors import LaunchError
from tests.ranks import ROOT
from tests.support.dying import Scenario


def survivable() -> bool:
    """Whether the MPI library that ranks load can let a job outlive them."""
    try:
        mpirun = launcher.find()
        return launcher.survives(mpirun, launcher.vendor(mpirun))
    except LaunchError:
        return False


def launch(scenarios: list[Scenario]) -> list[list[dict[str, object]]]:
    """What the survivors of each scenario report, by rank; all scenarios go on at the same time, in one job."""
    program = ["-m", "tests.support.dying", json.dumps(scenarios)]
    environment = {**launcher.without_launcher(os.environ), "PYTHONPATH": str(ROOT)}
    job = launcher.command(sum(scenario.size for scenario in scenarios), program, environment=environment)
    done = subprocess.run(job.argv, env=job.env, cwd=ROOT, capture_output=True, text=True, timeout=90)
    assert done.returncode == 0, done.stderr
    reports = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    reports.sort(key=lambda report: report["rank"])
    return [[report for report in reports if report["group"] == group] for group in range(len(scenarios))]


RING, STAR, PATH, COMPLETE = "ring", "star", "path", "complete"


@pytest.mark.parametrize(
    "scenarios",
    [
        [Scenario(4, RING, "full", [2], "computing"), Scenario(4, STAR, "dtur", [0], "open")],
        [Scenario(4, RING, "static_backup", [2], "offered"), Scenario(4, PATH, "full", [3], "moving")],
        [Scenario(4, RING, "dtur", [1], "moving"), Scenario(4, RING, "full", [1, 2, 3], "computing")],
        [Scenario(8, COMPLETE, "static_backup", [3, 5], "moving")],
    ],
    ids=["computing, open", "offered, moving", "all but one", "two of eight"],
)
def test_survivors_go_on(scenarios: list[Scenario]) -> None:
    if not survivable():
        pytest.skip("the MPI library here ends a job when a rank dies (no ULFM)")
    for scenario, reports in zip(scenarios, launch(scenarios), strict=True):
        left = [rank for rank in range(scenario.size) if rank not in scenario.victims]
        assert [report["rank"] for report in reports] == left
        for report in reports:
            # Once in the session in which they died, and once in the next one.
            assert report["lost"] == report["again"] == scenario.victims
            assert report["members"] == left
            assert report["mean"] == sum(left) / len(left)


def test_a_death_after_the_goodbye_or_in_a_collective_call() -> None:
    if not survivable():
        pytest.skip("the MPI library here ends a job when a rank dies (no ULFM)")
    scenarios = [Scenario(4, RING, "full", [2], "left"), Scenario(4, RING, "full", [1], "summing")]
    for scenario, reports in zip(scenarios, launch(scenarios), strict=True):
        left = [rank for rank in range(scenario.size) if rank not in scenario.victims]
        assert [report["rank"] for report in reports] == left
        for report in reports:
            assert report["again"] == scenario.victims
            assert report["members"] == left
            assert report["mean"] == sum(left) / len(left)
