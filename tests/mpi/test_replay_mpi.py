"""Recordings of real ranks, replayed by one of them."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any

import pytest

from consensus.recording.folder import find_logs
from consensus.recording.log import Ending
from consensus.replay import Replayed, replay
from consensus.run import experiment
from tests.experiments import shared_folder, small
from tests.recordings import train


def replayed(own: Path, body: Any) -> list[Replayed]:
    """What rank 0 finds in the folder that all ranks recorded to, told to all; if anything raises anywhere, the job ends."""
    from mpi4py import MPI

    from consensus.transport.mpi import MpiTransport

    transport = MpiTransport()
    try:
        folder = body(transport, shared_folder(transport, own))
        transport.gather(None)
        found = [replay(log) for log in find_logs(folder)] if transport.rank == 0 else []
        results = transport.gather(found)[0]
    except BaseException:
        traceback.print_exc()
        MPI.COMM_WORLD.Abort(1)
    transport.close()
    return list(results)


@pytest.mark.mpi(min_size=4)
@pytest.mark.parametrize(
    ("rule", "weights"),
    [(rule, "static") for rule in ("dtur", "gap", "pathsearch", "static_backup", "deadline")] + [("dtur", "active")],
)
def test_real_ranks_decide_as_recorded(tmp_path: Path, rule: str, weights: str) -> None:
    from mpi4py import MPI

    def body(transport: Any, folder: Path) -> Path:
        train(transport, folder, rule, weights, seconds=2e-4)
        return folder

    results = replayed(tmp_path, body)
    assert [result.rank for result in results] == list(range(MPI.COMM_WORLD.size))
    for result in results:
        assert (result.divergence, result.ended and result.ended.ending) == (None, Ending.COMPLETE)
        assert (result.rounds, result.sessions) == (14 + 2 * result.rank, 2)


@pytest.mark.mpi(min_size=4)
def test_an_experiment_decides_as_recorded(tmp_path: Path) -> None:
    from mpi4py import MPI

    def body(transport: Any, folder: Path) -> Path:
        return experiment.run(small(folder, "samples = 800, seconds = 60", rule={"name": "dtur"}), transport)

    results = replayed(tmp_path, body)
    assert len(results) == MPI.COMM_WORLD.size
    assert all(result.agrees and result.rounds > 0 for result in results)
