"""A range test of what a run file trains: real gradients, in this process."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from consensus.config import RunConfig
from consensus.data.dataset import Dataset
from consensus.data.partition import partition
from consensus.data.sampler import Sampler
from consensus.errors import ConfigError
from consensus.run.gradient import clip, take_gradient
from consensus.run.optimizers import recipe
from consensus.run.prepare import Task, build_model, load_data
from consensus.run.range_test import Curve, Plan, sweep
from consensus.step_scale import ScaledStep


def doublings(workers: int) -> list[int]:
    """1, 2, 4 and so on, and the number of workers.

    Examples
    --------
    >>> doublings(8), doublings(6), doublings(1)
    ([1, 2, 4, 8], [1, 2, 4, 6], [1])
    """
    return [*(2**i for i in range((workers - 1).bit_length())), workers]


def range_test(
    config: RunConfig,
    gradients: Sequence[int] = (),
    plan: Plan | None = None,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> list[Curve]:
    """Measure how the loss of a run file's model depends on the learning rate, for several k.

    Parameters
    ----------
    config : RunConfig
        With ``run.ranks``. If its rule has no server, all ranks are workers.
    gradients : sequence of int
        The k; :func:`doublings` by default.
    plan : Plan, optional
        Which rates, and how often.
    report : callable
        Told (sweeps done, sweeps in all).

    Returns
    -------
    list of Curve
        One for each k, ascending.

    Raises
    ------
    ConfigError
        If the number of ranks is missing, a k is below 1 or above the number of workers, or the learning rate is 0; or as
        :func:`consensus.run.prepare.check_names`.
    """
    plan = plan or Plan()
    workers = _check(config, gradients)
    dataset = load_data(config)
    wanted = sorted({*gradients} or doublings(workers))
    total = len(wanted) * plan.repetitions
    curves = []
    for number, k in enumerate(wanted):
        losses = []
        for repetition in range(plan.repetitions):
            losses.append(sweep(_Trial(config, dataset, workers, k, repetition).step, plan))
            report(number * plan.repetitions + repetition + 1, total)
        curves.append(Curve(k, np.array(losses), plan))
    return curves


def _check(config: RunConfig, gradients: Sequence[int]) -> int:
    size = config.run.ranks
    if size is None:
        raise ConfigError("run.ranks: missing, and a range test has to know among how many workers data are shared; --ranks 8")
    config.check(size)
    workers = config.workers(size)
    if not config.optimizer.lr > 0:
        raise ConfigError(
            "optimizer.lr = 0: expected above 0, the rates of a range test are in units of it; --set optimizer.lr=0.1"
        )
    for k in gradients:
        if not 1 <= k <= workers:
            raise ConfigError(
                f"k = {k} gradients, expected 1 to {workers}, for so many workers there are; leave it out, or set more --ranks"
            )
    return workers


class _Trial:
    """A fresh model, and workers' batches, k of them at a time.

    Which of the workers are the k fastest is not modelled: any are, each as likely as another.
    """

    def __init__(self, config: RunConfig, dataset: Dataset, workers: int, k: int, repetition: int) -> None:
        seed = config.run.seed + repetition
        config = config.model_copy(update={"run": config.run.model_copy(update={"seed": seed})})
        steps = recipe(config.optimizer)
        model = build_model(config, dataset)
        model.train()
        optimizer = steps.optimizer(model.parameters())
        shares = partition(dataset.train.labels, workers, config.data.partition.build(), seed)
        samplers = [Sampler(share, config.data.batch, seed, worker) for worker, share in enumerate(shares)]
        self._workers = [Task(dataset, sampler, model, optimizer, None) for sampler in samplers]
        self._norm, self._k = config.optimizer.clip_norm, k
        self._draw = np.random.default_rng(seed)
        self._scaled = ScaledStep(optimizer)

    def step(self, rate: float) -> float:
        """Take a step at ``rate`` times the optimizer's learning rate, as a server would; returns the loss before it."""
        parameters = [parameter for parameter in self._workers[0].model.parameters() if parameter.requires_grad]
        sums = [torch.zeros_like(parameter) for parameter in parameters]
        loss = 0.0
        for worker in self._draw.permutation(len(self._workers))[: self._k]:
            task = self._workers[worker]
            loss += take_gradient(task, next(task.sampler), strict=False, rank=int(worker), round=0) / self._k
            for total, parameter in zip(sums, parameters, strict=True):
                if parameter.grad is not None:
                    total += parameter.grad / self._k
        for total, parameter in zip(sums, parameters, strict=True):
            parameter.grad = total
        task = self._workers[0]
        clip(task, self._norm)
        self._scaled.begin(rate)
        task.optimizer.step()
        self._scaled.end()
        return loss
