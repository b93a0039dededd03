"""What the doctor makes of what it finds."""

from __future__ import annotations

from pathlib import Path

import pytest

from consensus.doctor import State, installation
from consensus.doctor.folder import FolderReport
from consensus.doctor.installation import Library, check_batch_system, check_launcher, check_library, check_packages
from consensus.doctor.survey import EdgeSpeed, Survey, check_survey, take
from consensus.errors import LaunchError
from consensus.launcher import VENDORS
from consensus.transport.single import SingleTransport

OPEN_MPI = Library("Open MPI v5.0.11", "Open MPI", "3.1", "THREAD_MULTIPLE", True)


def states(checks: object) -> dict[str, State]:
    return {check.name: check.state for check in checks}  # type: ignore[attr-defined]


def survey(hosts: list[str], cpus: list[list[int]], latencies: list[float]) -> Survey:
    edges = [EdgeSpeed(i, i + 1, latency, 1e9) for i, latency in enumerate(latencies)]
    size = len(hosts)
    folder = FolderReport("runs", "ext4", 10**12, 1 << 26, hosts, [], [""] * size, [0.1] * size)
    return Survey(hosts, cpus, edges, [True] * size, folder)


def test_a_good_library() -> None:
    assert set(states(check_library(OPEN_MPI)).values()) == {State.OK}


@pytest.mark.parametrize(
    "found", [OPEN_MPI._replace(ulfm=False), OPEN_MPI._replace(vendor="MPICH")], ids=["without ULFM", "without a launcher for it"]
)
def test_a_job_that_no_rank_may_leave(found: Library) -> None:
    assert states(check_library(found))["fault tolerance"] is State.WARN


def test_a_library_without_threads() -> None:
    assert states(check_library(OPEN_MPI._replace(threads="THREAD_SINGLE")))["thread level"] is State.WARN


def test_no_library() -> None:
    (check,) = check_library("cannot load MPI library")
    assert check.state is State.FAIL
    assert "pip install" in check.advice


def test_a_launcher_of_another_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation, "find", lambda: Path("/site/bin/mpirun"))
    monkeypatch.setattr(installation, "vendor", lambda _: VENDORS[1])
    check = check_launcher(OPEN_MPI)
    assert (check.state, check.found) == (State.FAIL, "/site/bin/mpirun is of MPICH, the library of Open MPI")
    assert check_launcher(OPEN_MPI._replace(vendor="MPICH")).state is State.OK


def test_no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing() -> Path:
        raise LaunchError("install one")

    monkeypatch.setattr(installation, "find", nothing)
    assert check_launcher(OPEN_MPI) == ("launcher", State.FAIL, "none", "install one")


def test_a_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation, "PACKAGES", ("numpy", "no-such-package"))
    check = check_packages()
    assert (check.state, check.advice) == (State.FAIL, "pip install no-such-package")


@pytest.mark.parametrize(
    ("environment", "state"),
    [
        ({}, State.OK),
        ({"SLURM_JOB_ID": "1", "SLURM_NTASKS": "4"}, State.OK),
        ({"SLURM_JOB_ID": "1", "SLURM_NTASKS": "4", "SLURM_STEP_NUM_TASKS": "4", "PMIX_RANK": "0"}, State.OK),
        ({"SLURM_JOB_ID": "1", "SLURM_NTASKS": "4", "SLURM_STEP_NUM_TASKS": "4"}, State.FAIL),
    ],
)
def test_slurm(environment: dict[str, str], state: State) -> None:
    assert check_batch_system(environment).state is state


def test_fewer_ranks_than_were_started() -> None:
    found = survey(["a"], [[0]], [])
    assert states(check_survey(found, meant=8))["ranks"] is State.FAIL
    assert states(check_survey(found, meant=None))["ranks"] is State.OK


def test_processors_are_counted_host_by_host() -> None:
    found = states(check_survey(survey(["a", "a", "b"], [[0], [1], [0, 1]], []), meant=3))
    assert (found["processors of a"], found["processors of b"]) == (State.OK, State.OK)
    found = states(check_survey(survey(["a", "a", "b"], [[0], [0], [0, 1]], []), meant=3))
    assert (found["processors of a"], found["processors of b"]) == (State.WARN, State.OK)


def test_ranks_bound_to_one_processor_are_told_how_not_to_be() -> None:
    (check,) = (c for c in check_survey(survey(["a", "a"], [[3], [3]], []), meant=2) if c.name == "processors of a")
    assert "--bind-to none" in check.advice


def test_a_slow_edge_is_named() -> None:
    cpus = [[0], [1], [2], [3]]
    (check,) = (c for c in check_survey(survey(["a"] * 4, cpus, [1e-6, 1e-6, 5e-5]), meant=4) if c.name == "edges")
    assert check.state is State.WARN
    assert "edges 2-3 take" in check.advice


def test_ranks_that_share_processors_do_not_judge_edges() -> None:
    found = states(check_survey(survey(["a"] * 4, [[0]] * 4, [1e-6, 1e-6, 5e-5]), meant=4))
    assert found["edges"] is State.OK


def test_one_rank_alone(tmp_path: Path) -> None:
    alone = take(SingleTransport(), tmp_path)
    assert (alone.size, alone.edges) == (1, [])
    assert Survey.from_table(alone.to_table()) == alone
