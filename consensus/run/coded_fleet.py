"""Coded gradients in a simulated training: the models of master, edges and workers, all in one process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from consensus.alike import flatten
from consensus.coded_handle import PartLoss, Share, encode, share_of
from consensus.coded_models import CodedWorkerModel, MasterModel, RelayModel
from consensus.coding import GradientCode
from consensus.config import RunConfig
from consensus.payload import CodedVector, Payload
from consensus.run.gradient import clip
from consensus.run.parts import Parts
from consensus.run.prepare import Task
from consensus.types import Rank


class TrainedCodedWorker(CodedWorkerModel):
    """A worker that computes real gradients when the simulated network says so.

    Parameters
    ----------
    config
        Of the run.
    task
        What it trains.
    share
        What it computes.
    part_loss
        The data.
    """

    def __init__(self, config: RunConfig, task: Task, share: Share, part_loss: PartLoss) -> None:
        flat = flatten(task.model, task.optimizer, config.exchange.buffers)
        super().__init__(flat, Payload(flat, config.coding.payload))
        self._optimizer, self._share, self._part_loss = task.optimizer, share, part_loss
        task.model.train()

    def step(self, version: int) -> float:
        """Compute the coded gradient at ``version``; see :meth:`consensus.sim.sites.WorkerSite.step`."""
        loss = encode(self, self._optimizer, self._part_loss, self._share, version, lambda: False)
        assert loss is not None
        return loss


class CodedFleet(NamedTuple):
    """The models, and how many bytes a coded gradient has."""

    master: MasterModel
    relays: list[RelayModel]
    workers: list[TrainedCodedWorker]
    payload_bytes: int


def coded_fleet(
    config: RunConfig, code: GradientCode, tasks: Sequence[Task], updated: Callable[[int, float], None]
) -> CodedFleet:
    """The models of a run; ``updated`` is told (samples, loss) of each update."""
    size, layout, coding = len(tasks), config.layout(len(tasks)), config.coding
    first = tasks[0]
    flat = flatten(first.model, first.optimizer, config.exchange.buffers)
    payload = Payload(flat, coding.payload)
    first.optimizer.register_step_pre_hook(lambda optimizer, args, kwargs: clip(first, config.optimizer.clip_norm))
    master = MasterModel(flat, payload, code.master, layout.below.start, coding.approximate, first.optimizer)

    def on_update(loss: float, samples: int, residual: float) -> None:
        if first.scheduler is not None:
            first.scheduler.step()
        updated(samples, loss)

    master.on_update = on_update
    relays = []
    for rank, layer, own in zip(layout.edges, code.edges, layout.workers, strict=False):
        # Of its weights an edge needs the layout alone.
        its = flatten(tasks[rank].model, tasks[rank].optimizer, config.exchange.buffers)
        relays.append(RelayModel(its, Payload(its, coding.payload), layer, own.start, coding.approximate))

    def worker(rank: Rank) -> TrainedCodedWorker:
        return TrainedCodedWorker(config, tasks[rank], share_of(code, layout, rank), Parts(config, tasks[rank], size).loss)

    workers = [worker(rank) for rank in range(layout.edges.stop, size)]
    return CodedFleet(master, relays, workers, sum(chunk.nbytes for chunk in CodedVector(payload).chunks))
