"""A rank of a run with coded gradients: what the training loop is to the others."""

from __future__ import annotations

import math
from typing import Any

import torch

from consensus.coded_handle import CodedHandle, MasterHandle
from consensus.config import RunConfig
from consensus.run.checkpoints import Checkpoints
from consensus.run.ending import Ending
from consensus.run.gradient import clip
from consensus.run.loop import REPORT_EVERY, Course
from consensus.run.parts import Parts
from consensus.run.prepare import Task
from consensus.run.snapshots import Counts
from consensus.run.status import Report, Status
from consensus.types import Seconds


class CodedCourse(Course):
    """Trains as the rank's place says; the master ends it.

    Parameters
    ----------
    config
        Of the run.
    task
        What is trained.
    handle
        Of this rank.
    ending
        Says when to stop, on the master.
    report
        Where the status goes.
    """

    def __init__(self, config: RunConfig, task: Task, handle: CodedHandle, ending: Ending, report: Report | None) -> None:
        super().__init__(handle, ending)
        self._config, self._task, self._coded, self._report = config, task, handle, report
        self._parts = Parts(config, task, handle.size)
        self._report_at = 0.0
        self._loss = math.nan

        def clip_mean(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
            clip(task, config.optimizer.clip_norm)

        task.optimizer.register_step_pre_hook(clip_mean)

    def counts(self) -> Counts:
        """The samples of the updates, and these; told by the master."""
        statistics = self._coded.statistics
        return Counts(self._ending.tally.own, statistics.rounds, statistics.backups)

    def checkpoint(self, checkpoints: Checkpoints) -> None:
        """See :class:`Course`; one is due after an update."""
        super().checkpoint(checkpoints)
        self._after_rounds(lambda record, times: self._write_checkpoint())

    def run(self) -> Seconds:
        """Train; return when this rank had nothing more to do, on the run's clock."""
        self._task.model.train()
        if self._steps and isinstance(self._coded, MasterHandle) and self._over():
            # What the run was to do is done already; its folder is to be one to go on from all the same.
            self._write_checkpoint(last=True)
            return self.seconds
        self._coded.train(self._parts.loss, until=self._over, on_update=self._updated)
        if self._steps:
            self._write_checkpoint(last=True)
        self._tell(self.seconds, over=True)
        return self.seconds

    def _over(self) -> bool:
        seconds = self.seconds
        if seconds >= self._report_at:
            self._report_at = seconds + REPORT_EVERY
            self._tell(seconds, over=False)
        return self._ending.look(seconds, self._steps)

    def _updated(self, loss: float, samples: int, residual: float) -> None:
        self._loss = loss
        self._steps += 1
        self._ending.tally.add(samples)
        if self._task.scheduler is not None:
            self._task.scheduler.step()

    def _tell(self, seconds: Seconds, over: bool) -> None:
        if self._report is not None:
            own, tally = self._coded.statistics, self._ending.tally
            wanted = self._config.run.stop.samples
            self._report(Status(seconds, tally.own, wanted, own.rounds, self._loss, own.mean_backups, over))
