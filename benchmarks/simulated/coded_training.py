"""What a master with coded gradients learns: one process that computes each part once, and the real models to hold it against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from benchmarks.simulated.coded import Made, part_weights, simulate
from consensus import config as run_files
from consensus.coding import GradientCode
from consensus.coding.system import System
from consensus.config import RunConfig
from consensus.data.partition import partition
from consensus.data.sampler import Sampler
from consensus.run.coded_fleet import coded_fleet
from consensus.run.evaluation import quality
from consensus.run.prepare import prepare, prepare_all


@dataclass(frozen=True)
class Lesson:
    """What is trained.

    Parameters
    ----------
    data, model
        Their names.
    partition
        How samples are dealt to parts, as in run files.
    batch
        Samples of each part in an update.
    lr
        Learning rate.
    """

    data: str
    model: str
    batch: int
    lr: float
    partition: str = "iid"

    def config(self, workers: Sequence[int], parts: int, seed: int, data_dir: Path | None) -> RunConfig:
        """The run file; of whichever scheme, as only the layout, the parts and the payload are taken from it."""
        settings = [
            "rule.name=hgc", f"coding.workers_per_edge={list(workers)}", f"coding.parts={parts}", f"run.seed={seed}",
            f"run.ranks={1 + len(workers) + sum(workers)}", f"data.name={self.data}", f"data.batch={self.batch}",
            f"data.partition={self.partition}", f"model.name={self.model}", f"optimizer.lr={self.lr}",
            "run.stop={ rounds = 1 }",
        ]  # fmt: skip
        return run_files.load("digits", settings, data_dir)


class Learner:
    """A model that learns from weighted sums of the gradients of all parts.

    Parameters
    ----------
    config
        Of the run; the parts' batches are those that its workers would draw.

    Attributes
    ----------
    losses : list of float
        The weighted mean of the batches of each update.
    """

    def __init__(self, config: RunConfig) -> None:
        assert config.run.ranks is not None
        self._task = prepare(config, 0, config.run.ranks)
        self._train, self._test = self._task.dataset.train, self._task.dataset.test
        scheme, seed = config.data.partition.build(), config.run.seed
        shares = partition(self._train.labels, config.shares(config.run.ranks), scheme, seed)
        self._samplers = [Sampler(share, config.data.batch, seed, part) for part, share in enumerate(shares)]
        self.losses: list[float] = []

    def update(self, weights: NDArray[np.float64]) -> None:
        """Make an update; ``weights``: what each part's gradient is multiplied by, shape (parts,)."""
        batches = []
        for sampler, weight in zip(self._samplers, weights, strict=True):
            sampler.seek(len(self.losses))
            # What is multiplied by 0 need not be computed.
            batches.append(next(sampler) if weight else np.empty(0, dtype=np.int64))
        each = torch.from_numpy(np.repeat(weights, [len(batch) for batch in batches]).astype(np.float32))
        inputs, labels = self._train.batch(np.concatenate(batches))
        model, optimizer = self._task.model.train(), self._task.optimizer
        optimizer.zero_grad()
        losses = functional.cross_entropy(model(inputs), labels, reduction="none")
        loss = (losses * each).sum() / each.sum()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        self.losses.append(loss.item())

    def accuracy(self, samples: int) -> float:
        """On the first so many test samples."""
        return quality(self._task.model, self._test, samples)[0]


def learn(config: RunConfig, weights: Sequence[NDArray[np.float64]], every: int, samples: int) -> list[float]:
    """Train; return the test accuracy after each ``every`` updates."""
    learner, seen = Learner(config), []
    for update, row in enumerate(weights, 1):
        learner.update(row)
        if update % every == 0:
            seen.append(round(learner.accuracy(samples), 4))
    return seen


def deviation(config: RunConfig, code: GradientCode, system: System, updates: int) -> float:
    """How far a :class:`Learner`'s losses are from those of real workers, edges and master, relative, at most.

    The latter compute every part as often as the code says, encode, decode from the vectors that came first, and update.
    """
    assert config.run.ranks is not None
    real: list[float] = []
    tasks = prepare_all(config, config.run.ranks, range(config.run.ranks))
    fleet = coded_fleet(config, code, tasks, lambda samples, loss: real.append(loss))
    made: Made = simulate(code, system, updates, config.run.seed, fleet[:3])
    learner = Learner(config)
    for used in made.used:
        learner.update(part_weights(code, used))
    return max(abs(one / other - 1.0) for one, other in zip(real, learner.losses, strict=True))
