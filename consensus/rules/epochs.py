"""How ranks agree, without a barrier, on which edges this epoch has used.

Shared by the rules that wait for news (dtur, pathsearch). The abstracts of cb-DyBW and DSGD-AAU promise a fully distributed rule;
this book-keeping, in particular what happens when a rank leaves, is our completion, not the papers' wording.

A rank in whose open round an edge that *counts* is done announces it to every rank, once; either end may. The test is on state and
repeated at every event, epoch changes included: judged on the completion event alone, an exchange made just before the news of a
new epoch would never be counted, and everybody would wait. Whoever learns of a new edge for the current epoch closes its open
round. When the epoch has used enough edges it is over, by everybody's own reckoning: all see the same announcements, in whatever
order.

When a rank leaves, everybody starts afresh at epoch 0 of a new *generation*. Ranks learn of departures in different orders, so
announcements name the generation by how many ranks had left and a digest of which: news of the own generation is used; news of one
with more departures is kept until they are known here; anything else can never fit again, because departures only add up.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, NamedTuple

from consensus.protocol.decision import Close, Decision, Stay, View
from consensus.protocol.messages import Established
from consensus.types import Rank, Round, Seconds

_MASK = (1 << 62) - 1


def departure_digest(rank: Rank) -> int:
    """Return a fixed scrambling of ``rank`` to 62 bits; the exclusive-or over a set of ranks names the set.

    The finaliser of splitmix64 (Steele, Lea, Flood 2014), cut to what fits a signed 64-bit field.

    Examples
    --------
    >>> departure_digest(1) ^ departure_digest(2) == departure_digest(2) ^ departure_digest(1) != 0
    True
    """
    z = (rank + 1) * 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & 0xFFFFFFFFFFFFFFFF
    return (z ^ (z >> 31)) & _MASK


class EpochState(NamedTuple):
    """Where a rank stands.

    ``departed`` and ``digest`` name the generation; ``used`` is the epoch's progress in the rule's own form; ``pending`` holds news
    of later epochs and generations; ``due`` is the round of mine that must close because of news, 0 if none.
    """

    departed: int
    digest: int
    epoch: int
    used: Hashable
    pending: tuple[Established, ...]
    due: Round


@dataclass(frozen=True)
class EpochRule(ABC):
    """A rule whose rounds end when some rank announces an edge that counts in this epoch."""

    @abstractmethod
    def begin(self, view: View) -> Any:
        """Return the progress of an epoch in which no edge has been used yet."""

    @abstractmethod
    def count(self, used: Any, i: Rank, j: Rank) -> Any | None:
        """Return the progress after edge (i, j), None if the edge does not count."""

    @abstractmethod
    def complete(self, used: Any) -> bool:
        """Return whether this progress ends the epoch."""

    def start(self, view: View) -> EpochState:
        """Begin epoch 0 among all ranks."""
        return EpochState(0, 0, 0, self.begin(view), (), 0)

    def departure(self, rank: Rank, view: View, state: EpochState) -> EpochState:
        """Begin epoch 0 of the generation without ``rank``; an open round that was due stays due."""
        departed = state.departed + 1
        fresh = EpochState(departed, state.digest ^ departure_digest(rank), 0, self.begin(view), (), state.due)
        return self._replay(state.pending, view, fresh)

    def hear(self, news: Established, view: View, state: EpochState) -> EpochState:
        """Count the edge if it is new in this epoch, keep it if it is early, ignore it otherwise."""
        generation = (news.departed, news.digest)
        if generation == (state.departed, state.digest):
            if news.epoch == state.epoch:
                used = self.count(state.used, news.i, news.j)
                return state if used is None else self._advance(used, view, state)
            early = news.epoch > state.epoch
        else:
            early = news.departed > state.departed
        return state._replace(pending=(*state.pending, news)) if early else state

    def _advance(self, used: Any, view: View, state: EpochState) -> EpochState:
        state = state._replace(used=used, due=view.round if view.is_open else state.due)
        if not self.complete(used):
            return state
        fresh = state._replace(epoch=state.epoch + 1, used=self.begin(view), pending=())
        return self._replay(state.pending, view, fresh)

    def _replay(self, pending: tuple[Established, ...], view: View, state: EpochState) -> EpochState:
        for news in pending:
            state = self.hear(news, view, state)
        return state

    def decide(self, view: View, state: EpochState, now: Seconds) -> tuple[Decision, EpochState]:
        """Announce what this round has established, and close on any news."""
        if not view.living and not view.done:
            return Close("no living neighbour is left"), state
        announce: tuple[Established, ...] = ()
        if state.due != view.round:
            epoch = state.epoch
            for peer in view.done:
                i, j = (view.rank, peer) if view.rank < peer else (peer, view.rank)
                used = self.count(state.used, i, j)
                if used is not None:
                    announce += (Established(epoch, i, j, state.departed, state.digest),)
                    state = self._advance(used, view, state)
                    if state.epoch != epoch:
                        break  # the round closes anyway; in the next epoch the next round speaks for itself
        if state.due == view.round:
            return Close(self._story(announce), announce), state
        if view.living <= view.done.keys():
            # Nothing is left to wait for: whatever counts has been announced above. Ours; it shortens the wait of ranks that are
            # complete before the threshold, and no edge is used less for it.
            return Close("all living neighbours have exchanged", announce), state
        return Stay("waits for news of an edge that this epoch has not used"), state

    def _story(self, announce: tuple[Established, ...]) -> str:
        if announce:
            return f"established edge ({announce[0].i}, {announce[0].j}) in epoch {announce[0].epoch}"
        return "an edge was established elsewhere"
