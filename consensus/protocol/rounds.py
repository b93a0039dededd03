"""What a rank is doing, and what one of its rounds came to, whatever its engine."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from consensus.types import Rank, Round, Seconds


class Phase(Enum):
    """What a rank is doing."""

    COMPUTING = "computing"
    """Between rounds: the local step is under way; no other rank waits for this one."""
    OPEN = "open"
    """In a round, exchanging and waiting as the rule says."""
    SETTLING = "settling"
    """Closed, but active weights still need the partners' Closed."""
    LEFT = "left"
    """Said goodbye; waits for the others' goodbyes."""
    FINISHED = "finished"
    """Everybody has said goodbye."""


class Exchange(NamedTuple):
    """One exchange of a round: with round ``round`` of ``peer``, agreed and complete at these times.

    From agreement to completion both models move, so the difference is what the network takes.
    """

    peer: Rank
    round: Round
    weight: float
    agreed_at: Seconds
    done_at: Seconds


class RoundRecord(NamedTuple):
    """What one round came to.

    ``backups`` are the living neighbours that were not exchanged with, so b_i(k) = len(backups); ``reason`` is why the rule
    closed it. At a parameter server a round is an update: its exchanges are the gradients that it took, its backups the workers
    that it did without.
    """

    round: Round
    opened_at: Seconds
    closed_at: Seconds
    exchanges: tuple[Exchange, ...]
    backups: tuple[Rank, ...]
    reason: str
