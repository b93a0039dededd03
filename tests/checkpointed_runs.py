"""Runs with checkpoints on the in-process twin, and what they came to."""

from __future__ import annotations

from pathlib import Path

import torch

from consensus.checkpoint.store import Store
from consensus.config import RunConfig
from consensus.run import experiment
from consensus.run.checkpoints import FOLDER
from consensus.transport import loopback


def run(settings: RunConfig, size: int = 4, resume: str | None = None) -> Path:
    """The folder of a run, which goes on from another."""
    (folder,) = set(loopback.run(size, lambda transport: experiment.run(settings, transport, resume=resume)))
    return folder


def models(folder: Path, *ranks: int) -> list[dict[str, torch.Tensor]]:
    """What these ranks had in the newest set."""
    store = Store(folder / FOLDER, 0, 1)
    moment = store.newest()
    assert moment is not None
    return [store.read(moment, rank)["training"]["model"] for rank in ranks]


def near(one: list[dict[str, torch.Tensor]], other: list[dict[str, torch.Tensor]]) -> None:
    """Models are the same to rounding."""
    for a, b in zip(one, other, strict=True):
        for name in a:
            torch.testing.assert_close(a[name], b[name], rtol=1e-5, atol=1e-6)
