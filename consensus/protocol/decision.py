"""What a wait rule sees, and the two answers it may give.

A rule chooses *when* a round closes, never *whom* to count: which exchanges happen is the engine's affair alone, because only
that keeps them symmetric (and hence the mean of all models unchanged) whatever a rule does.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, ClassVar, NamedTuple, Protocol, TypeAlias

from consensus.protocol.messages import Established
from consensus.types import Rank, Round, Seconds


class Stay(NamedTuple):
    """Keep the round open. ``wake_at``: ask again at that time even if nothing happens. ``announce``: news for every rank."""

    reason: str
    wake_at: Seconds | None = None
    announce: tuple[Established, ...] = ()


class Close(NamedTuple):
    """Close the round as soon as no edge is offered or moving. ``announce``: news for every rank."""

    reason: str
    announce: tuple[Established, ...] = ()


Decision: TypeAlias = Stay | Close


class ActiveWeights(Enum):
    """What ``weights="active"`` (Metropolis on the exchanges of the round) means under a rule.

    Such weights are known only when the partners have closed too, so a rank has to wait for them. That is harmless only
    where partners close together anyway.
    """

    REFUSED = "refused"
    """A partner may stay open for long after this rank has closed."""
    WAIT = "wait"
    """Partners close together by the rule itself."""
    CASCADE = "cascade"
    """Partners close together but for races; a partner's Closed closes this rank's round as well, which keeps it live."""


@dataclass(slots=True)
class View:
    """What a rule may look at; owned and updated by the engine, read-only for the rule.

    Attributes
    ----------
    rank : Rank
        Whose round this is.
    adjacency : Mapping[Rank, Collection[Rank]]
        The whole base graph, the same at every rank.
    neighbours : tuple[Rank, ...]
        This rank's neighbours in the base graph.
    living : set[Rank]
        Those of them that have not left.
    awaited : set[Rank]
        Those of these that a partial rule should wait for: not those that are silent, see ``stuck_after`` of
        :class:`consensus.protocol.neighbour.NeighbourEngine`. An exchange with one of the others counts all the same.
    departed : set[Rank]
        All ranks known to have left, neighbours or not.
    round : Round
        This rank's current round, 0 before the first.
    is_open : bool
        Whether that round is open.
    opened_at : Seconds
        When it opened.
    done : dict[Rank, Seconds]
        The exchanges of this round and when each was complete, in that order.
    last_used : dict[Rank, Round]
        For each neighbour, the last of this rank's closed rounds that exchanged with it, 0 if none did.
    """

    rank: Rank
    adjacency: Mapping[Rank, Collection[Rank]]
    neighbours: tuple[Rank, ...]
    living: set[Rank]
    awaited: set[Rank] = field(init=False)
    departed: set[Rank] = field(default_factory=set)
    round: Round = 0
    is_open: bool = False
    opened_at: Seconds = 0.0
    done: dict[Rank, Seconds] = field(default_factory=dict)
    last_used: dict[Rank, Round] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.awaited = self.living  # one set, until somebody is silent


class Rule(Protocol):
    """A wait rule: frozen configuration; its state goes in and comes out, hashable and picklable."""

    name: ClassVar[str]
    active_weights: ClassVar[ActiveWeights]

    def start(self, view: View) -> Any:
        """Return the state before the first round."""

    def hear(self, news: Established, view: View, state: Any) -> Any:
        """Take news of another rank (only rules that announce ever get any)."""

    def departure(self, rank: Rank, view: View, state: Any) -> Any:
        """Take note that ``rank`` has left; ``view.departed`` contains it already."""

    def decide(self, view: View, state: Any, now: Seconds) -> tuple[Decision, Any]:
        """Say whether the open round may close now. Called while it is open, when anything it may look at has changed."""
