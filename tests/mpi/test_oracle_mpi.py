"""Experiments on real ranks against the whole-network reference, given the exchanges that their traces tell of."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any

import pytest

from consensus.config import RunConfig
from consensus.run import experiment
from tests.experiments import shared_folder
from tests.support.oracle import Oracle, Outcome, whole_shares

ROUNDS = 6


@pytest.fixture(autouse=True)
def _four_ranks_are_enough() -> None:
    from mpi4py import MPI

    if MPI.COMM_WORLD.size > 4:
        pytest.skip("on four ranks: arithmetic does not depend on their number, and each run takes seconds")


def run(own: Path, **changes: Any) -> tuple[RunConfig, Path, int]:
    """A run of all ranks, its folder, and how many there are; if it raises anywhere, the job ends."""
    from mpi4py import MPI

    from consensus.transport.mpi import MpiTransport

    transport = MpiTransport()
    try:
        settings = whole_shares(shared_folder(transport, own), f"rounds = {ROUNDS}", **changes)
        folder = experiment.run(settings, transport)
    except BaseException:
        traceback.print_exc()
        MPI.COMM_WORLD.Abort(1)
    transport.close()
    return settings, folder, transport.size


@pytest.mark.mpi(min_size=4)
@pytest.mark.parametrize("order", ["adapt-combine", "combine-adapt"])
def test_full_is_the_reference(tmp_path: Path, order: str) -> None:
    from mpi4py import MPI

    settings, folder, size = run(tmp_path, rule={"name": "full"}, exchange={"order": order})
    assert Outcome.of(folder).agrees(Oracle(settings, size).lockstep(ROUNDS, order))
    MPI.COMM_WORLD.Barrier()  # rank 0's temporary folder goes with its test


@pytest.mark.mpi(min_size=4)
@pytest.mark.parametrize(
    ("rule", "weights"),
    [("static_backup", "static"), ("gap", "static"), ("pathsearch", "static"), ("dtur", "static"), ("dtur", "active")],
)
def test_a_rule_is_the_replay_of_its_traces(tmp_path: Path, rule: str, weights: str) -> None:
    from mpi4py import MPI

    settings, folder, size = run(tmp_path, rule={"name": rule}, exchange={"weights": weights})
    assert Outcome.of(folder).agrees(Oracle(settings, size).traced(folder))
    MPI.COMM_WORLD.Barrier()  # rank 0's temporary folder goes with its test
