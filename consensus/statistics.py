"""What a rank counts while it trains."""

from __future__ import annotations

from dataclasses import dataclass

from consensus.driver import RoundTimes
from consensus.protocol.rounds import RoundRecord
from consensus.types import Seconds


@dataclass(slots=True)
class Statistics:
    """One rank's sums over its rounds.

    Attributes
    ----------
    rounds : int
        Rounds closed.
    exchanges : int
        Models swapped.
    backups : int
        Sum over rounds of b_i(k), the living neighbours not exchanged with.
    compute_seconds, wait_seconds, mix_seconds : float
        Where the time went: local steps (with everything between two rounds), waiting for others, averaging arithmetic.
    bytes_sent : int
        Models and control messages.
    """

    rounds: int = 0
    exchanges: int = 0
    backups: int = 0
    compute_seconds: Seconds = 0.0
    wait_seconds: Seconds = 0.0
    mix_seconds: Seconds = 0.0
    bytes_sent: int = 0

    @property
    def mean_backups(self) -> float:
        """Mean of b_i(k) over rounds, 0 before the first."""
        return self.backups / self.rounds if self.rounds else 0.0

    def add(self, record: RoundRecord | None, times: RoundTimes) -> None:
        """Count one round (without a record: one that exchanged with nobody in particular, as all-reduce does)."""
        self.rounds += 1
        if record is not None:
            self.exchanges += len(record.exchanges)
            self.backups += len(record.backups)
        self.compute_seconds += times.compute
        self.wait_seconds += times.wait
        self.mix_seconds += times.mix
