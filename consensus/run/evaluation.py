"""The mean of the ranks' models: how well it does on the test samples, and how far the ranks are from it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from consensus.bundle import share, shared_chunk_bytes
from consensus.config import RunConfig
from consensus.config.schema import Target
from consensus.data.dataset import Dataset, Split
from consensus.flat import FlatModel
from consensus.run.prepare import build_model
from consensus.run.snapshots import Counts, SnapshotFolder
from consensus.transport.base import Bytes

_BATCH = 500


@dataclass(frozen=True, slots=True)
class Evaluated:
    """The averaged model at a mark, and what all ranks had done by then.

    Attributes
    ----------
    mark : int or None
        Which mark of the clock; None for the end of the run.
    samples, rounds, backups : int
        Sums over ranks; backups: of b_i(k) over rounds.
    accuracy : float
        Fraction of test samples classified rightly.
    loss : float
        Mean cross-entropy on the test samples.
    consensus_distance : float
        sqrt(mean_i ||x_i - mean||^2) over the parameters.
    """

    mark: int | None
    samples: int
    rounds: int
    backups: int
    accuracy: float
    loss: float
    consensus_distance: float

    def reaches(self, target: Target) -> bool:
        """Whether this is as good as ``target`` asks."""
        return self.accuracy >= target.value if target.metric == "accuracy" else self.loss <= target.value


def quality(model: nn.Module, split: Split, limit: int | None = None) -> tuple[float, float]:
    """Accuracy and mean cross-entropy of ``model``, in evaluation mode, on the first ``limit`` samples of ``split``."""
    total = len(split) if limit is None else min(limit, len(split))
    training = model.training
    model.eval()
    right, loss = 0, 0.0
    with torch.inference_mode():
        for start in range(0, total, _BATCH):
            inputs, labels = split.batch(slice(start, min(start + _BATCH, total)))
            logits = model(inputs)
            right += int((logits.argmax(1) == labels).sum())
            loss += float(functional.cross_entropy(logits, labels, reduction="sum"))
    model.train(training)
    return right / total, loss / total


class Evaluator:
    """A model to hold averages, beside the one that is trained.

    Parameters
    ----------
    config
        Which model, and how many test samples.
    dataset
        Its test samples are used.
    """

    def __init__(self, config: RunConfig, dataset: Dataset) -> None:
        self._split, self._limit = dataset.test, config.evaluation.test_samples
        self._model = build_model(config, dataset)
        self._servers = config.server.servers if config.serves else 1
        chunk_bytes = shared_chunk_bytes(self._model.parameters(), self._servers)
        self._flat = FlatModel(self._model, self._model.parameters(), buffers="average", chunk_bytes=chunk_bytes)
        self._cuts = np.cumsum([0, *(chunk.size for chunk in self._flat.chunks)]).tolist()
        regions = [numel * dtype.itemsize for dtype, numel in self._flat.layout]
        self._regions = np.cumsum([0, *regions]).tolist()

    def copy_of(self, model: nn.Module) -> list[Bytes]:
        """The numbers of ``model`` with its buffers, as :meth:`mark` takes them; for ranks whose buffers are not exchanged."""
        self._model.load_state_dict(model.state_dict())
        return self._flat.snapshot()

    def mark(self, folder: SnapshotFolder, mark: int | None) -> Evaluated:
        """Evaluate the mean of all ranks' models at ``mark``.

        Raises
        ------
        FileNotFoundError
            If a rank's snapshot is not there.
        """
        snapshots = folder.read(mark)
        models = [snapshot.model for snapshot in snapshots]
        if self._servers > 1:
            models = [self._joined(models)]
        done = Counts(*(sum(column) for column in zip(*(snapshot.counts for snapshot in snapshots), strict=True)))
        distance = self._distance(models)
        self._average(models)
        accuracy, loss = quality(self._model, self._split, self._limit)
        return Evaluated(mark, done.samples, done.rounds, done.backups, accuracy, loss, distance)

    def _joined(self, models: Sequence[Bytes]) -> Bytes:
        """Of each server's model its share: the rest of it is nobody's."""
        whole = models[0].copy()
        for server, model in enumerate(models):
            own = share(len(self._flat.chunks), self._servers, server)
            part = slice(self._cuts[own.start], self._cuts[own.stop])
            whole[part] = model[part]
        return whole

    def _average(self, models: Sequence[Bytes]) -> None:
        flat, share = self._flat, 1 / len(models)
        flat.restore([models[0][start:stop] for start, stop in pairwise(self._regions)])
        flat.begin()
        for peer, model in enumerate(models[1:], 1):
            flat.expect(peer, share)
            for index, (start, stop) in enumerate(pairwise(self._cuts)):
                landed = flat.lend(peer, index)
                landed[:] = model[start:stop]
                flat.deliver(peer, index, landed)
        flat.mix([(peer, share) for peer in range(1, len(models))])

    def _distance(self, models: Sequence[Bytes]) -> float:
        # Chunk by chunk: the models need not be in memory together, in float64 at that.
        total = 0.0
        dtypes = [dtype for dtype, _ in self._flat.layout]
        for start, body in zip(self._cuts, self._flat.parameter_bytes, strict=False):
            dtype = dtypes[np.searchsorted(self._regions, start, side="right") - 1]
            wide = torch.complex128 if dtype.is_complex else torch.float64
            stack = torch.stack([torch.from_numpy(model[start : start + body]).view(dtype).to(wide) for model in models])
            total += float((stack - stack.mean(0)).abs().square().sum())
        return math.sqrt(total / len(models))
