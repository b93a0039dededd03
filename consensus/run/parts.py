"""The data of a run with coded gradients: in parts, any of which any rank may have to compute at any step."""

from __future__ import annotations

import math

from torch import Tensor
from torch.nn import functional

from consensus.config import RunConfig
from consensus.data.partition import partition
from consensus.data.sampler import Sampler
from consensus.errors import DataError, NonFiniteLoss
from consensus.run.prepare import Task


class Parts:
    """The batches of all parts, the same at every rank.

    Parameters
    ----------
    config
        Of the run.
    task
        Whose training samples they are.
    size
        Number of ranks.

    Raises
    ------
    DataError
        If a part has no samples.
    """

    def __init__(self, config: RunConfig, task: Task, size: int) -> None:
        self._task = task
        shares = partition(task.dataset.train.labels, config.shares(size), config.data.partition.build(), config.run.seed)
        empty = [part for part, share in enumerate(shares) if not len(share)]
        if empty:
            raise DataError(
                f"part {empty[0]} of {len(shares)} has no samples; take fewer parts (coding.parts) or another partition"
            )
        batch, seed = config.data.batch, config.run.seed
        self._samplers = [Sampler(share, batch, seed, part) for part, share in enumerate(shares)]

    def loss(self, step: int, part: int) -> tuple[Tensor, int]:
        """See :data:`consensus.coded_handle.PartLoss`.

        Raises
        ------
        NonFiniteLoss
            If it is NaN or infinite.
        """
        sampler = self._samplers[part]
        sampler.seek(step)
        batch = next(sampler)
        inputs, labels = self._task.dataset.train.batch(batch)
        loss = functional.cross_entropy(self._task.model(inputs), labels, reduction="sum")
        if not math.isfinite(loss.item()):
            raise NonFiniteLoss(
                f"the loss of part {part} is {loss.item()} at step {step}; lower optimizer.lr or set optimizer.clip_norm"
            )
        return loss, len(batch)


