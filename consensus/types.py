"""Names for the plain numbers that travel through every layer."""

from __future__ import annotations

from typing import TypeAlias

Rank: TypeAlias = int
"""A process's number, 0 .. size-1."""

Round: TypeAlias = int
"""One rank's count of its own rounds, from 1; ranks do not share it."""

Seconds: TypeAlias = float
"""Time in seconds, on whichever clock the caller passes in."""

Edge: TypeAlias = tuple[Rank, Rank]
"""An undirected edge, smaller rank first."""
