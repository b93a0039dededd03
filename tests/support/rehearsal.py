"""Imported, trains for a few rounds without MPI: what torch and others load only when it is needed is then there to be forked."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch

import consensus.transport.mpi  # noqa: F401
from tests.experiments import in_loopback, small

torch.set_num_threads(1)
with tempfile.TemporaryDirectory() as folder:
    in_loopback(small(Path(folder), model={"name": "2nn"}, checkpoint={"every": 2}), 2)
