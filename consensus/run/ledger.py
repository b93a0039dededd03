"""What the ranks of a simulated run have done, and when each of them stops."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from consensus.config import RunConfig
from consensus.driver import RoundTimes
from consensus.protocol.rounds import RoundRecord
from consensus.run.loop import REPORT_EVERY
from consensus.run.signals import Interruption
from consensus.run.status import Report, Status
from consensus.run.stops import Conditions, Ended
from consensus.run.summary import RankResult, result_of
from consensus.sim.kernel import Kernel
from consensus.statistics import Statistics
from consensus.types import Rank, Round, Seconds


class Ledger:
    """Counts, records and stop conditions of all ranks.

    The number of samples over all ranks is exact and everybody knows it at once; real ranks know it to a hundredth.

    Parameters
    ----------
    config
        Of the run.
    size
        Number of ranks.
    kernel
        The clock.
    interruption
        Of this process.
    report
        Where the status goes.

    Attributes
    ----------
    kernel : Kernel
        As given.
    samples : int
        Over all ranks.
    loss : callable
        Returns the loss of rank 0's last batch.
    target_reached : bool
        Whether the averaged model is good enough; set by whoever evaluates it.
    traced : list of list of (RoundRecord or None, RoundTimes, float)
        By rank, what :meth:`consensus.trace.TraceWriter.write` takes; empty if no trace is wanted.
    """

    def __init__(
        self, config: RunConfig, size: int, kernel: Kernel, interruption: Interruption, report: Report | None = None
    ) -> None:
        stop = config.run.stop
        self._conditions = Conditions(stop.samples, stop.seconds, stop.rounds)
        self.kernel, self._interruption, self._report = kernel, interruption, report
        self._wanted, self._traces = stop.samples, config.run.trace
        # Updates are counted where they are made; and a server is not asked whether it stops.
        self._counted = range(size) if config.kind == "neighbours" else [0]
        self._reporter = 0 if config.codes else config.first_worker(size)
        self._own = [0] * size
        self._statistics = [Statistics() for _ in range(size)]
        self._reasons: list[Ended | None] = [None] * size
        self._voted_at: Round | None = None
        self._report_at = 0.0
        self.samples = 0
        self.loss: Callable[[], float] = lambda: math.nan
        self.target_reached = False
        self.traced: list[list[tuple[RoundRecord | None, RoundTimes, Seconds]]] = [[] for _ in range(size)]

    def count(self, rank: Rank, samples: int) -> None:
        """Count the samples of a local step."""
        self._own[rank] += samples
        self.samples += samples

    def exchanged(self, rank: Rank, record: RoundRecord, compute: Seconds) -> None:
        """Count a round of a network; averaging takes no virtual time."""
        now = self.kernel.now
        self._count_round(rank, record, RoundTimes(compute, now - record.opened_at, 0.0))

    def reduced(self, rank: Rank, compute: Seconds, wait: Seconds) -> None:
        """Count a round of the all-reduce baseline."""
        self._count_round(rank, None, RoundTimes(compute, wait, 0.0))

    def _count_round(self, rank: Rank, record: RoundRecord | None, times: RoundTimes) -> None:
        self._statistics[rank].add(record, times)
        if self._traces:
            self.traced[rank].append((record, times, self.kernel.now))

    # -- ends -----------------------------------------------------------------------------------------------------------

    def stop(self, rank: Rank, rounds: Round) -> bool:
        """Whether ``rank`` stops now; see :data:`consensus.sim.network.Stop`."""
        self._reasons[rank] = self._judge(rounds)
        over = self._reasons[rank] is not None
        if rank == self._reporter and self._report is not None:
            self._tell(over)
        return over

    def stop_in_step(self, rank: Rank, rounds: Round) -> bool:
        """As :meth:`stop`, for ranks that end by a vote, which the next step's all-reduce carries."""
        if self._reasons[rank] is None and self.stop(rank, rounds) and self._voted_at is None:
            self._voted_at = rounds
        # All ranks know their common number of rounds without a vote.
        agreed = self._voted_at is not None and rounds > self._voted_at
        return agreed or self._reasons[rank] is Ended.ROUNDS

    def _judge(self, rounds: Round) -> Ended | None:
        if self._interruption.requested:
            return Ended.INTERRUPTED
        if self.target_reached:
            return Ended.TARGET
        return self._conditions.met(samples=self.samples, seconds=self.kernel.now, rounds=rounds)

    def _tell(self, over: bool) -> None:
        now = time.monotonic()
        if self._report is not None and (over or now >= self._report_at):
            self._report_at = now + REPORT_EVERY
            self._report(self.status())

    def status(self, evaluating: bool = False) -> Status:
        """Where the run is."""
        first = self._statistics[0]
        rounds, backups = first.rounds, first.mean_backups
        return Status(self.kernel.now, self.samples, self._wanted, rounds, self.loss(), backups, evaluating)

    # -- sums -----------------------------------------------------------------------------------------------------------

    @property
    def rounds(self) -> int:
        """Over all ranks; with a server, its updates."""
        return sum(self._statistics[rank].rounds for rank in self._counted)

    @property
    def backups(self) -> int:
        """Over all ranks and rounds; with a server, over its updates."""
        return sum(self._statistics[rank].backups for rank in self._counted)

    def result(self, rank: Rank, bytes_sent: int, ended_at: Seconds) -> RankResult:
        """What ``summary.json`` says of a rank."""
        return result_of(self._statistics[rank], self._own[rank], bytes_sent, None, self._reasons[rank], ended_at)
