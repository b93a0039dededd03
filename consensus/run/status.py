"""What a run tells its caller while it goes on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from consensus.types import Seconds


@dataclass(frozen=True, slots=True)
class Status:
    """Where a run is, as rank 0 sees it.

    Attributes
    ----------
    seconds : float
        On the run's clock.
    samples : int
        Training samples over all ranks, as known here: heard from the others where the run stops on samples (a hundredth
        behind, at most), else this rank's own count times the number of ranks.
    samples_wanted : int or None
        Where the run stops on them.
    rounds : int
        Of this rank; at a parameter server, updates.
    loss : float
        Of this rank's last batch; at a parameter server, of the last that it heard of.
    mean_backups : float
        Mean of b_i(k) over this rank's rounds.
    evaluating : bool
        Whether training has ended and the snapshots are being evaluated.
    """

    seconds: Seconds
    samples: int
    samples_wanted: int | None
    rounds: int
    loss: float
    mean_backups: float
    evaluating: bool = False


Report: TypeAlias = Callable[[Status], None]
"""Takes a status on rank 0, a few times a second, from inside the training loop: it must be quick."""
