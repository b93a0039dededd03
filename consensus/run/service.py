"""The serving rank of a run with a parameter server: what the training loop is to the others."""

from __future__ import annotations

import math
from typing import Any

import torch

from consensus.config import RunConfig
from consensus.run.checkpoints import Checkpoints
from consensus.run.ending import Ending
from consensus.run.gradient import clip
from consensus.run.loop import REPORT_EVERY, Course
from consensus.run.prepare import Task
from consensus.run.snapshots import Counts
from consensus.run.status import Report, Status
from consensus.serving import ServerHandle
from consensus.types import Seconds


class Service(Course):
    """Serves until all workers have stopped, and looks after what only this rank can know: the target, an interruption.

    Parameters
    ----------
    config
        Of the run.
    task
        Whose model is served.
    handle
        Of the serving rank.
    ending
        Says when to stop.
    report
        Where the status goes.
    """

    def __init__(self, config: RunConfig, task: Task, handle: ServerHandle, ending: Ending, report: Report | None) -> None:
        super().__init__(handle, ending)
        self._server, self._report = handle, report
        self._wanted = config.run.stop.samples
        self._batch = config.data.batch
        self._report_at = 0.0

        def clip_mean(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
            clip(task, config.optimizer.clip_norm)

        task.optimizer.register_step_pre_hook(clip_mean)

    def counts(self) -> Counts:
        """What has been done: a batch for each gradient that has come, and the updates; told by the server that decides."""
        statistics = self._server.statistics
        return Counts(0, 0, 0) if self._server.decides is None else Counts(self._samples, statistics.rounds, statistics.backups)

    @property
    def _samples(self) -> int:
        decides = self._server.decides
        return 0 if decides is None else decides.arrived * self._batch

    def checkpoint(self, checkpoints: Checkpoints) -> None:
        """See :class:`Course`; one is due after an update, and tells of the model as that has left it."""
        super().checkpoint(checkpoints)
        self._after_rounds(lambda record, times: self._write_checkpoint())

    def run(self) -> Seconds:
        """Serve; return when the last worker had left, on the run's clock."""
        self._server.serve(self._look)
        if self._server.progress:
            self._write_checkpoint(last=True)
        self._tell(self.seconds, over=True)
        return self.seconds

    def _look(self) -> None:
        seconds = self.seconds
        if self._ending.reason is None:
            self._ending.look(seconds, 0)  # rounds are the workers' affair
        if seconds >= self._report_at:
            self._report_at = seconds + REPORT_EVERY
            self._tell(seconds, over=False)

    def _tell(self, seconds: Seconds, over: bool) -> None:
        if self._report is not None:
            decides = self._server.decides
            own, loss = self._server.statistics, math.nan if decides is None else decides.loss
            self._report(Status(seconds, self._samples, self._wanted, own.rounds, loss, own.mean_backups, over))
