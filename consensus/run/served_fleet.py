"""A parameter server's models in a simulated training: those of a real run, all in one process."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from consensus.alike import flatten
from consensus.config import RunConfig
from consensus.flat import FlatModel
from consensus.pushed import PushedModel
from consensus.run.gradient import clip, take_gradient
from consensus.run.prepare import Task
from consensus.served import ServedModel
from consensus.serving import check_shares, warn_of_local_buffers
from consensus.types import Rank, Round


class TrainedWorker(PushedModel):
    """A worker that computes real gradients when the simulated network says so.

    Parameters
    ----------
    config
        Of the run.
    task
        What it trains.
    rank
        Its own.
    count
        Told (rank, samples, loss) of each batch.
    """

    def __init__(self, config: RunConfig, task: Task, rank: Rank, count: Callable[[Rank, int, float], None]) -> None:
        super().__init__(_flat(config, task), task.optimizer, config.server.servers)
        self._task, self._rank, self._count = task, rank, count
        self._strict = config.run.on_nan == "stop"
        self._stepped = False
        task.model.train()

    def step(self, round: Round) -> float:
        """See :meth:`consensus.sim.served.WorkerSite.step`."""
        task = self._task
        if self._stepped and task.scheduler is not None:
            # As on a real worker, whose optimizer finds no gradients: the step is the server's.
            task.optimizer.zero_grad()
            task.optimizer.step()
            task.scheduler.step()
        self._stepped = True
        batch = next(task.sampler)
        loss = take_gradient(task, batch, strict=self._strict, rank=self._rank, round=round)
        self._count(self._rank, len(batch), loss)
        return loss


def served_model(config: RunConfig, task: Task, server: Rank = 0) -> ServedModel:
    """A server's model; its gradients are clipped as the run file says."""
    task.optimizer.register_step_pre_hook(lambda optimizer, args, kwargs: clip(task, config.optimizer.clip_norm))
    return ServedModel(_flat(config, task), task.optimizer, config.server.servers, server)


def fleet(
    config: RunConfig, tasks: Sequence[Task], count: Callable[[Rank, int, float], None]
) -> tuple[ServedModel, list[TrainedWorker]]:
    """The models of a server and its workers: the first task is the server's."""
    servers, workers = shards(config, tasks, count)
    return servers[0], workers


def shards(
    config: RunConfig, tasks: Sequence[Task], count: Callable[[Rank, int, float], None]
) -> tuple[list[ServedModel], list[TrainedWorker]]:
    """As :func:`fleet`, for as many servers as the run file says: the first tasks are theirs."""
    first = config.server.servers
    warn_of_local_buffers(tasks[0].model, config.exchange.buffers)
    servers = [served_model(config, task, server) for server, task in enumerate(tasks[:first])]
    return servers, [TrainedWorker(config, task, rank, count) for rank, task in enumerate(tasks[first:], first)]


def _flat(config: RunConfig, task: Task) -> FlatModel:
    flat = flatten(task.model, task.optimizer, config.exchange.buffers, config.server.servers)
    check_shares(flat, config.server.servers)
    return flat
