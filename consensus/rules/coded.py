"""Coded gradients: go on as soon as those that have come suffice to decode."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from consensus.errors import ConfigError
from consensus.protocol.service import Arrival, ServerView, Verdict
from consensus.rules.memoryless import Memoryless
from consensus.rules.quorum import late_ones
from consensus.types import Rank, Seconds


class Decodable(Protocol):
    """What the rule asks of a code (:class:`consensus.coding.layer.Layer`), which numbers its nodes from 0."""

    @property
    def participants(self) -> tuple[int, ...]:
        """The nodes that hold something."""

    @property
    def needed(self) -> int:
        """So many of them, whichever, are always enough."""

    def sufficient(self, alive: Iterable[int]) -> bool:
        """Whether these are enough."""


@dataclass(frozen=True)
class Sufficient(Memoryless):
    """Combine as soon as what has come of the present version suffices, whoever sent it.

    Parameters
    ----------
    layer : Decodable
        Knows what suffices. Some sets of fewer than ``needed`` nodes do, and are taken.
    first : int
        The rank of the layer's node 0; the other nodes' ranks follow.
    approximate : bool
        Go on with what is left when too few are left.
    """

    name: ClassVar[str] = "coded"
    synchronous: ClassVar[bool] = True
    uses_losses: ClassVar[bool] = False
    layer: Decodable
    first: Rank
    approximate: bool = False

    def fit(self, workers: int) -> None:
        """Refuse fewer nodes than the code has."""
        last = max(self.layer.participants, default=-1)
        if workers <= last:
            raise ConfigError(f"coded: {workers} nodes, expected at least the {last + 1} that the code is made for")

    def suffices(self, living: Iterable[Rank]) -> bool:
        """Whether what these ranks can bring suffices."""
        nodes = self._nodes(living)
        return bool(nodes) if self.approximate else self.layer.sufficient(nodes)

    def decide(self, view: ServerView, arrival: Arrival | None, state: Any, now: Seconds) -> tuple[Verdict, Any]:
        """Discard what is late, and combine what has come if it suffices."""
        late = late_ones(view)
        came = tuple(worker for worker in view.kept if worker not in late)
        nodes = self._nodes(came)
        all_that_are_left = self.approximate and nodes and nodes >= self._nodes(view.workers)
        told = f"{len(nodes)} of {len(self.layer.participants)} coded gradients"
        if len(nodes) >= self.layer.needed or all_that_are_left or (nodes and self.layer.sufficient(nodes)):
            return Verdict(told, came, late, view.workers), state
        released = tuple(worker for worker in late if worker in view.workers)
        return Verdict(f"{told}, {self.layer.needed} wanted", discard=late, release=released), state

    def _nodes(self, ranks: Iterable[Rank]) -> frozenset[int]:
        return frozenset(rank - self.first for rank in ranks).intersection(self.layer.participants)
