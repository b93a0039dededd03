"""torch DistributedDataParallel in the same experiment: same data, model, stragglers, clock marks and evaluation."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path

import torch
from torch import distributed
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from consensus.config import RunConfig
from consensus.flat import FlatModel
from consensus.run.evaluation import Evaluated, Evaluator
from consensus.run.marks import kept
from consensus.run.prepare import Task, prepare
from consensus.run.results import Metrics, to_metrics
from consensus.run.snapshots import Counts, Recorder, SnapshotFolder
from consensus.transport.base import Transport
from consensus.types import Seconds

ASK_EVERY = 10
"""Steps between two votes to stop; one in every step would cost a second all-reduce."""


def train(config: RunConfig, transport: Transport) -> list[Metrics]:
    """Train for ``run.stop.seconds``. Collective.

    Parameters
    ----------
    config
        As for :func:`consensus.run.experiment.run`; its rule is not used.
    transport
        Its `pace` is the straggler injector; not connected.

    Returns
    -------
    list of Metrics
        On all ranks, at the marks of the clock.
    """
    rank, size = transport.rank, transport.size
    with tempfile.TemporaryDirectory(prefix="benchmark-ddp-") as own:
        folder = SnapshotFolder(Path(transport.gather(own)[0]), size)
        task = prepare(config, rank, size)
        _train(config, transport, task, folder)
        distributed.barrier()
        evaluated = _evaluate(config, transport, Evaluator(config, task.dataset), folder)
        metrics = to_metrics([(mark * config.evaluation.every, result) for mark, result in evaluated])
        transport.gather(None)  # until everybody has read, nobody's folder may go
    return metrics


def _train(config: RunConfig, transport: Transport, task: Task, folder: SnapshotFolder) -> None:
    limit = config.run.stop.seconds or 0.0
    flat = FlatModel(task.model, task.model.parameters(), buffers="average")
    ddp = DistributedDataParallel(task.model)
    steps, samples = 0, 0
    marks = config.evaluation
    recorder = Recorder(folder, transport.rank, marks.every, marks.marks, flat.snapshot, lambda: Counts(samples, steps, 0))
    began = [0.0]

    def slow_then_reduce(group, bucket):  # without annotations: DDP takes none that are strings, as all are in this file
        # The emulated step ends where the real one does: with the last gradient. The buckets before it are on their way by then.
        if bucket.is_last():
            missing = transport.pace(steps + 1, transport.now() - began[0])
            if missing > 0:
                transport.sleep(missing)
        return allreduce_hook(group, bucket)

    ddp.register_comm_hook(None, slow_then_reduce)
    distributed.barrier()
    origin = began[0] = transport.now()
    for _ in _until(limit, transport, origin):
        batch = next(task.sampler)
        inputs, labels = task.dataset.train.batch(batch)
        task.optimizer.zero_grad()
        loss = functional.cross_entropy(ddp(inputs), labels)
        loss.item()
        loss.backward()
        recorder.look(transport.now() - origin)
        samples += len(batch)
        task.optimizer.step()
        steps += 1
        began[0] = transport.now()
    recorder.end(transport.now() - origin)


def _until(limit: Seconds, transport: Transport, origin: Seconds) -> Iterator[int]:
    """Count steps, the same number on all ranks: until rank 0's clock has passed ``limit``."""
    over = torch.zeros(1)
    for step in count():
        if step % ASK_EVERY == 0:
            over[0] = transport.now() - origin >= limit
            distributed.broadcast(over, 0)
            if over[0]:
                return
        yield step


def _evaluate(
    config: RunConfig, transport: Transport, evaluator: Evaluator, folder: SnapshotFolder
) -> Sequence[tuple[int, Evaluated]]:
    last = int((config.run.stop.seconds or 0.0) / config.evaluation.every)
    marks = kept(last, config.evaluation.marks)[transport.rank :: transport.size]
    shares = transport.gather([(mark, evaluator.mark(folder, mark)) for mark in marks])
    return sorted((item for share in shares for item in share), key=lambda item: item[0])
