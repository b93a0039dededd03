"""Whole experiments on real ranks. Every rank checks what rank 0 has written."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any

import pytest

from consensus.run import experiment
from consensus.run.results import read_metrics
from tests.experiments import shared_folder, small, summary_of


def run(own: Path, stop: str, **changes: dict[str, Any]) -> Path:
    """The folder of a run under all ranks' one folder; if it raises anywhere, the job ends."""
    from mpi4py import MPI

    from consensus.transport.mpi import MpiTransport

    transport = MpiTransport()
    try:
        settings = small(shared_folder(transport, own), stop, **changes)
        folder = experiment.run(settings, transport)
    except BaseException:
        traceback.print_exc()
        MPI.COMM_WORLD.Abort(1)
    transport.close()
    return folder


@pytest.mark.mpi(min_size=4)
def test_samples_with_stragglers(tmp_path: Path) -> None:
    from mpi4py import MPI

    folder = run(tmp_path, "samples = 800, seconds = 60", rule={"name": "dtur"}, evaluation={"every": 0.02, "marks": 4})
    summary, size = summary_of(folder), MPI.COMM_WORLD.size
    assert (summary["ended"], summary["ranks"], len(summary["per_rank"])) == ("samples", size, size)
    assert summary["samples"] >= 800
    assert summary["samples"] == sum(rank["samples"] for rank in summary["per_rank"])
    assert all(rank["rounds"] > 0 and rank["exchanges"] > 0 and rank["bytes_sent"] > 0 for rank in summary["per_rank"])
    assert summary["versions"]["mpi"]
    assert read_metrics(folder)[-1].samples == summary["samples"]
    assert len(list(folder.glob("trace-*.jsonl"))) == size
    MPI.COMM_WORLD.Barrier()  # rank 0's temporary folder goes with its test


@pytest.mark.mpi(min_size=4)
def test_a_target_ends_all_ranks(tmp_path: Path) -> None:
    from mpi4py import MPI

    target = "{ metric = 'accuracy', value = 0.6 }"
    folder = run(tmp_path, f"seconds = 60, target = {target}", evaluation={"every": 0.05, "marks": 16})
    summary = summary_of(folder)
    assert summary["ended"] == "target"
    assert "target" in {rank["ended"] for rank in summary["per_rank"]}
    assert summary["targets"][".6"] is not None
    assert (folder / "stop.json").exists()
    MPI.COMM_WORLD.Barrier()  # rank 0's temporary folder goes with its test
