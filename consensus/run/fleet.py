"""All workers of a simulated training in one process: their models are the rows of one array."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import accumulate

import numpy as np
import torch
from torch import nn

from consensus.buffers import ALIGNMENT, Tail, averaged_buffers
from consensus.config import RunConfig
from consensus.data.dataset import Split
from consensus.errors import ConfigError
from consensus.run.evaluation import quality
from consensus.run.gradient import clip, take_gradient
from consensus.run.prepare import Task, build_model
from consensus.sim.plant import Rows, Weights
from consensus.step_scale import ScaledStep
from consensus.types import Rank, Round


class Fleet:
    """Workers that train for real, when the simulated network says so; a plant of the network and of the lockstep.

    Row i is worker i's parameters, laid out as a rank sends them, and behind them the buffers that are averaged, by the same
    arithmetic as in a real run. Modules hold views of their row. One more row holds the mean, to be evaluated.

    Parameters
    ----------
    config
        Of the run.
    tasks
        What each worker trains, by rank.
    count
        Told (rank, samples) of each local step.

    Attributes
    ----------
    loss : float
        Of rank 0's last batch.

    Raises
    ------
    ConfigError
        If the model has parameters or buffers of several dtypes.
    """

    def __init__(self, config: RunConfig, tasks: Sequence[Task], count: Callable[[Rank, int], None]) -> None:
        self._config, self._tasks, self._count = config, tasks, count
        self._strict = config.run.on_nan == "stop"
        self._pools = config.exchange.buffers == "average"
        self.loss = math.nan
        mean = build_model(config, tasks[0].dataset)
        models = [*(task.model for task in tasks), mean]
        kept = [_tail(model) for model in models]
        parameters = [list(model.parameters()) for model in models]
        step = ALIGNMENT // parameters[0][0].itemsize
        starts = list(accumulate((-(-parameter.numel() // step) * step for parameter in parameters[0]), initial=0))
        self._body = starts[-1]
        tail = kept[0].numel if kept[0] is not None else 0
        self._array = torch.zeros(len(models), self._body + tail, dtype=parameters[0][0].dtype)
        for row, own, tail_ in zip(self._array, parameters, kept, strict=True):
            for parameter, start in zip(own, starts, strict=False):
                view = row[start : start + parameter.numel()].view(parameter.shape)
                view.copy_(parameter.data)
                parameter.data = view
            if tail_ is not None:
                tail_.bind(row[self._body :])
        self._tails = kept
        self._rows = Rows(self._array[:, : self._body].numpy())
        self._arrived: dict[tuple[Rank, Rank], torch.Tensor] = {}
        self._model = mean
        scales = config.exchange.step_scale == "participation"
        self._scaled = [ScaledStep(task.optimizer) for task in tasks] if scales else []
        self.step_factor: Callable[[Rank], float] = lambda rank: 1.0
        """By what a rank's next step is multiplied, where ``exchange.step_scale`` asks for it."""
        for task in tasks:
            task.model.train()

    @property
    def model_bytes(self) -> int:
        """What a rank sends to a neighbour, bytes."""
        return (self._array.shape[1] if self._pools else self._body) * self._array.itemsize

    # -- the network's plant --------------------------------------------------------------------------------------------

    def step(self, rank: Rank, round: Round) -> None:
        """See :meth:`consensus.sim.plant.Plant.step`."""
        self._take_gradient(rank, round)
        self._finish_step(rank)

    def exchange(self, i: Rank, j: Rank, weight: float | None) -> None:
        """See :meth:`consensus.sim.plant.Plant.exchange`."""
        self._rows.exchange(i, j, weight)
        if self._pools and self._tails[i] is not None:
            self._pack(i)
            self._pack(j)
            self._arrived[i, j] = self._array[j, self._body :].clone()
            self._arrived[j, i] = self._array[i, self._body :].clone()

    def mix(self, rank: Rank, weights: Weights) -> None:
        """See :meth:`consensus.sim.plant.Plant.mix`."""
        self._rows.mix(rank, weights)
        tail = self._tails[rank]
        if self._pools and tail is not None:
            shares = [1.0 - sum(weight for _, weight in weights), *(weight for _, weight in weights)]
            row = self._array[rank, self._body :]
            row.copy_(tail.pool(shares, [row, *(self._arrived.pop((rank, peer)) for peer, _ in weights)]))
            tail.unpack()

    # -- the lockstep's plant -------------------------------------------------------------------------------------------

    def step_together(self, round: Round) -> None:
        """See :meth:`consensus.sim.lockstep.LockstepPlant.step_together`."""
        for rank in range(len(self._tasks)):
            self._take_gradient(rank, round)
        for parameters in zip(*(task.model.parameters() for task in self._tasks), strict=True):
            gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
            mean = torch.stack(gradients).mean(0)
            for parameter in parameters:
                parameter.grad = mean.clone()
        for rank in range(len(self._tasks)):
            self._finish_step(rank)

    def _take_gradient(self, rank: Rank, round: Round) -> None:
        task = self._tasks[rank]
        batch = next(task.sampler)
        loss = take_gradient(task, batch, strict=self._strict, rank=rank, round=round)
        self._count(rank, len(batch))
        if rank == 0:
            self.loss = loss

    def _finish_step(self, rank: Rank) -> None:
        task = self._tasks[rank]
        clip(task, self._config.optimizer.clip_norm)
        scaled = self._scaled[rank] if self._scaled else None
        if scaled is not None:
            scaled.begin(self.step_factor(rank))
        task.optimizer.step()
        if scaled is not None:
            scaled.end()
        if task.scheduler is not None:
            task.scheduler.step()

    def _pack(self, rank: Rank) -> None:
        tail = self._tails[rank]
        if tail is not None:
            tail.pack()

    # -- evaluation -----------------------------------------------------------------------------------------------------

    def evaluate(self, split: Split) -> tuple[float, float, float]:
        """Accuracy and loss of the mean of all models, and the consensus distance."""
        size = len(self._tasks)
        models = self._array[:size, : self._body].numpy()
        mean = models.mean(axis=0, dtype=np.float64)
        self._array[size, : self._body].copy_(torch.from_numpy(mean))
        tail = self._tails[size]
        if tail is not None:
            for rank in range(size):
                self._pack(rank)
            self._array[size, self._body :].copy_(tail.pool([1 / size] * size, list(self._array[:size, self._body :])))
            tail.unpack()
        distance = math.sqrt(sum(float(np.square(row - mean).sum()) for row in models) / size)
        accuracy, loss = quality(self._model, split, self._config.evaluation.test_samples)
        return accuracy, loss, distance


def _tail(model: nn.Module) -> Tail | None:
    """The averaged buffers of ``model``, which must be of its parameters' one dtype."""
    tails = averaged_buffers(model, "average")
    places = {(parameter.device, parameter.dtype) for parameter in model.parameters()} | tails.keys()
    if len(places) != 1:
        kinds = ", ".join(sorted(str(dtype) for _, dtype in places))
        raise ConfigError(f"the workers' models are rows of one array, but this model has numbers of {kinds}; train it for real")
    return next(iter(tails.values()), None)
