"""A rank's gradient, however its steps are made."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from consensus.errors import NonFiniteLoss
from consensus.run.prepare import Task
from consensus.types import Rank, Round


def take_gradient(task: Task, batch: NDArray[np.integer[Any]], *, strict: bool, rank: Rank, round: Round) -> float:
    """Leave the gradient on a batch in the model's parameters.

    Parameters
    ----------
    task
        Its model is in training mode.
    batch : ndarray of int, shape (b,)
        Which training samples.
    strict
        Whether a loss must be finite.
    rank, round
        Whose, for the error.

    Returns
    -------
    float
        The loss.

    Raises
    ------
    NonFiniteLoss
        If it is NaN or infinite and ``strict``.
    """
    inputs, labels = task.dataset.train.batch(batch)
    task.optimizer.zero_grad()
    loss = functional.cross_entropy(task.model(inputs), labels)
    value = loss.item()
    if strict and not math.isfinite(value):
        raise NonFiniteLoss(
            f"the loss of rank {rank} is {value} in round {round}; lower optimizer.lr or "
            'set optimizer.clip_norm (run.on_nan = "ignore" goes on regardless)'
        )
    loss.backward()
    return value


def clip(task: Task, norm: float | None) -> None:
    """Clip the gradient to ``norm``, if there is one."""
    if norm is not None:
        torch.nn.utils.clip_grad_norm_(task.model.parameters(), norm)
