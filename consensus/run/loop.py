"""The training loop of one rank. It looks like anybody's: what is decentralised hangs on the optimizer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch

from consensus.config import RunConfig
from consensus.driver import RoundTimes
from consensus.handle import Handle
from consensus.protocol.rounds import RoundRecord
from consensus.run.checkpoints import Checkpoints
from consensus.run.ending import Ending
from consensus.run.gradient import clip, take_gradient
from consensus.run.prepare import Task
from consensus.run.snapshots import Counts, Recorder
from consensus.run.status import Report, Status
from consensus.trace import TraceWriter
from consensus.types import Rank, Seconds

REPORT_EVERY: Seconds = 0.2


class Course(ABC):
    """What a rank does from the common start of the clock to its own end.

    Parameters
    ----------
    handle
        Of the attached optimizer.
    ending
        Says when to stop.

    Attributes
    ----------
    origin : float
        When the run's clock was 0, on the transport's.
    """

    def __init__(self, handle: Handle, ending: Ending) -> None:
        self._handle, self._ending = handle, ending
        self._now = handle.transport.now
        self._recorder: Recorder | None = None
        self._checkpoints: Checkpoints | None = None
        self._steps = 0
        self.origin = self._now()

    @property
    def seconds(self) -> Seconds:
        """The run's clock."""
        return self._now() - self.origin

    @abstractmethod
    def counts(self) -> Counts:
        """What has been done, as a snapshot of this rank's model tells it."""

    @abstractmethod
    def run(self) -> Seconds:
        """Do it; return when this rank stopped, on the run's clock."""

    def keep(self, recorder: Recorder) -> None:
        """Let ``recorder`` look at the clock whenever the model is about to change."""
        now, origin = self._now, self.origin
        self._recorder = recorder
        self._handle.before_change = lambda: recorder.look(now() - origin)

    def trace(self, writer: TraceWriter) -> None:
        """Write every round to ``writer``."""
        now = self._now
        self._after_rounds(lambda record, times: writer.write(record, times, now()))

    def _after_rounds(self, call: Callable[[RoundRecord | None, RoundTimes], None]) -> None:
        before = self._handle.on_round

        def on_round(record: RoundRecord | None, times: RoundTimes) -> None:
            if before is not None:
                before(record, times)
            call(record, times)

        self._handle.on_round = on_round

    # -- checkpoints ----------------------------------------------------------------------------------------------------------

    def checkpoint(self, checkpoints: Checkpoints) -> None:
        """Write them when they are due, and a last one at the end."""
        self._checkpoints = checkpoints

    def resume(self, steps: int) -> None:
        """Go on as after so many steps, or updates where this rank makes those."""
        self._steps = steps

    def _write_checkpoint(self, *, last: bool = False) -> None:
        """If one is wanted, and due."""
        if self._checkpoints is not None:
            write = self._checkpoints.end if last else self._checkpoints.look
            write(self._steps, self._ending.tally.own, self.seconds)


class Loop(Course):
    """One rank's training.

    Parameters
    ----------
    config
        Of the run.
    task
        What is trained.
    handle
        Of the attached optimizer.
    ending
        Says when to stop.
    report
        Where the status goes, on the rank that reports.
    """

    def __init__(self, config: RunConfig, task: Task, handle: Handle, ending: Ending, report: Report | None) -> None:
        super().__init__(handle, ending)
        self._task, self._report = task, report
        self._wanted = config.run.stop.samples
        self._strict = config.run.on_nan == "stop"
        self._clip = config.optimizer.clip_norm
        self._report_at = 0.0
        self._batch = 0
        self._lost: frozenset[Rank] = frozenset()
        # After the handle's own hook: under all-reduce the averaged gradient is clipped, not each rank's; and a snapshot that is
        # taken before the step does not count the step's samples, one that is taken before the average does.
        task.optimizer.register_step_pre_hook(self._before_step)

    def counts(self) -> Counts:
        """What this rank has done."""
        statistics = self._handle.statistics
        return Counts(self._ending.tally.own, statistics.rounds, statistics.backups)

    def run(self) -> Seconds:
        """Train.

        Returns
        -------
        float
            When this rank stopped, on the run's clock.

        Raises
        ------
        NonFiniteLoss
            If the loss of a batch is NaN or infinite and ``run.on_nan`` is "stop".
        """
        task, handle, ending = self._task, self._handle, self._ending
        optimizer, scheduler, sampler = task.optimizer, task.scheduler, task.sampler
        task.model.train()
        if self._steps and ending.look(self.seconds, handle.statistics.rounds):
            # What the run was to do is done already; its folder is to be one to go on from all the same.
            self._write_checkpoint(last=True)
            return self.seconds
        while True:
            batch = next(sampler)
            value = take_gradient(task, batch, strict=self._strict, rank=handle.rank, round=handle.statistics.rounds + 1)
            self._batch = len(batch)
            handle.report_loss(value)
            optimizer.step()
            if scheduler is not None:
                scheduler.step()
            seconds = self.seconds
            self._steps += 1
            over = ending.look(seconds, handle.statistics.rounds)
            lost = handle.lost
            if lost != self._lost and self._recorder is not None:
                for peer in lost - self._lost:
                    self._recorder.lose(peer)
                self._lost = lost
            self._write_checkpoint(last=over)
            if self._report is not None and (over or seconds >= self._report_at):
                self._report_at = seconds + REPORT_EVERY
                self._report(self._status(seconds, value, over))
            if over:
                return seconds

    def _before_step(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        clip(self._task, self._clip)
        self._ending.tally.add(self._batch)

    def _status(self, seconds: Seconds, loss: float, over: bool) -> Status:
        statistics = self._handle.statistics
        samples = self._ending.tally.total
        return Status(seconds, samples, self._wanted, statistics.rounds, loss, statistics.mean_backups, over)
