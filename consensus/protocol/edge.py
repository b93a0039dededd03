"""One edge as one of its two ends sees it.

Law: in each round of a rank an edge goes ``IDLE -> OFFERED -> MOVING -> DONE``, and only a peer's Closed, Leave or death takes it
back, from OFFERED to IDLE. A MOVING edge is committed at both ends.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from consensus.types import Rank, Round, Seconds


class EdgeState(IntEnum):
    """Where an edge stands in the current round of the rank that owns this end."""

    IDLE = 0
    OFFERED = 1
    MOVING = 2
    DONE = 3


@dataclass(slots=True)
class Edge:
    """One end of an edge.

    Attributes
    ----------
    peer : Rank
        The other end.
    weight : float
        Its static mixing weight P_ij.
    state : EdgeState
        Where the edge stands in my current round.
    ready : Round
        The peer's round that is open and not yet used by an exchange, as far as known; 0 if none.
    engaged : tuple[Round, Round] | None
        The last Engage of the peer: (its round, my round it wants).
    partner : Round
        The peer's round that my current round was offered to, moves with, or has exchanged with.
    partner_exchanges : int
        How many exchanges that round of the peer had, once its Closed has come; -1 before.
    agreed_at : Seconds
        When both ends had agreed on the exchange of my current round.
    gone : bool
        The peer has left or is dead.
    rounds : Round
        The last round of the peer that I have heard of.
    silent : bool
        The peer has kept a round of mine waiting for very long and has opened none since.
    """

    peer: Rank
    weight: float
    state: EdgeState = EdgeState.IDLE
    ready: Round = 0
    engaged: tuple[Round, Round] | None = None
    partner: Round = 0
    partner_exchanges: int = -1
    agreed_at: Seconds = 0.0
    gone: bool = False
    rounds: Round = 0
    silent: bool = False

    def reset(self) -> None:
        """Forget the exchange of the last round; what the peer said of its own rounds stays."""
        self.state = EdgeState.IDLE
        self.partner = 0
        self.partner_exchanges = -1

    @property
    def busy(self) -> bool:
        """Whether the round may not close because of this edge."""
        return self.state is EdgeState.OFFERED or self.state is EdgeState.MOVING
