"""How ranks agree, without a barrier or a coordinator, on which edges this epoch has used.

Shared by the rules that wait for news (dtur, pathsearch). The abstracts of cb-DyBW and DSGD-AAU promise a fully distributed rule;
this book-keeping is our completion, not the papers' wording.

*Iterations.* A rank in whose open round an edge that *counts* is done announces it to every rank: it ends the epoch's current
iteration (``slot``), and all open rounds close. The test is on state and repeated at every event: judged on the completion event
alone, an exchange made just before other news would never be counted, and everybody would wait.

*One edge an iteration.* The papers' threshold is a minimum over edges: an iteration uses one. Several ranks may announce an edge
for the same slot before they hear of each other; then the least edge wins it, by everybody's reckoning once all announcements are
in, and the others count another time. (Counting them all was tried first: when steps take about equal time, the first iteration
of an epoch then uses up every edge between fast ranks, and all the rest of the epoch waits for the one straggler.)

*Epochs.* When the winners of the slots suffice the epoch is over. Ranks may reckon so at different moments, and while
announcements cross even differently; whoever sees news of a later epoch follows it, for somebody saw this one end.

*Generations.* When a rank leaves, everybody starts afresh at epoch 0 of a new generation. Ranks learn of departures in
different orders, so announcements name the generation by how many ranks had left and a digest of which: news of the own
generation is used; news of one with more departures is kept until they are known here; anything else can never fit again, for
departures only add up. Departures may also split the graph. The parts then share a generation and nothing else: news of an edge
that is not in the own part says nothing about the own epoch, whatever its number.

*Why nobody waits for ever.* Suppose all ranks are open, all messages are in, and nothing moves. All ranks are then in the same
generation. Take a rank whose epoch is the earliest, and an edge that counts for it; the edge is done at the end that has been
open longer (see :mod:`consensus.protocol.neighbour`). If that end is in the same epoch it has seen the same news, so the edge
counts there too and is announced. If it is in a later one, nobody has sent news of that epoch (the first rank would have
followed it), and where no edge has been used every edge counts.

*Silent neighbours.* An epoch needs every rank, so one that is stopped would in the end stop all. A rank that has exchanged with
all neighbours but silent ones therefore closes, and if the epoch lacks an edge to one of these, announces it as if it had been
used. Everybody enters it like any other, so ranks still agree; what is lost is that the epoch has used that edge. Whether news
are missing (a rank that was stopped is told of the newest epoch alone, see :mod:`consensus.protocol.outbox`) makes no difference
to the argument above: the rank that has been open longest has exchanged with all neighbours that are not stopped, and closes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, NamedTuple

from consensus.protocol.decision import Close, Decision, Stay, View
from consensus.protocol.messages import Established
from consensus.rules.stateless import closed_with_all
from consensus.types import Edge, Rank, Round, Seconds

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

    ``departed`` and ``digest`` name the generation; ``slots`` holds the winning edge of each iteration of the epoch so far,
    None where its news is still on the way; ``used`` is what they come to in the rule's own form, and ``fresh`` the same for an
    epoch in which nothing is used yet, one for a whole generation; ``pending`` holds news of later generations; ``due`` is the
    round of mine that must close because of news, 0 if none.
    """

    departed: int
    digest: int
    epoch: int
    slots: tuple[Edge | None, ...]
    used: Hashable
    fresh: Hashable
    pending: tuple[Established, ...]
    due: Round


@dataclass(frozen=True)
class EpochRule(ABC):
    """A rule whose rounds end when some rank announces an edge that counts in this epoch."""

    @abstractmethod
    def begin(self, view: View) -> Any:
        """Return the progress of an epoch in which no edge has been used yet."""

    @abstractmethod
    def count(self, used: Any, edge: Edge) -> Any | None:
        """Return the progress after ``edge``, None if the edge does not count."""

    @abstractmethod
    def complete(self, used: Any) -> bool:
        """Return whether this progress ends the epoch."""

    def start(self, view: View) -> EpochState:
        """Begin epoch 0 among all ranks."""
        fresh = self.begin(view)
        return EpochState(0, 0, 0, (), fresh, fresh, (), 0)

    def departure(self, rank: Rank, view: View, state: EpochState) -> EpochState:
        """Begin epoch 0 of the generation without ``rank``; an open round that was due stays due."""
        digest = state.digest ^ departure_digest(rank)
        fresh = self.begin(view)
        anew = EpochState(state.departed + 1, digest, 0, (), fresh, fresh, (), state.due)
        for news in state.pending:
            anew = self.hear(news, view, anew)
        return anew

    def hear(self, news: Established, view: View, state: EpochState) -> EpochState:
        """Enter the edge in its slot, close the open round if the slot is new; keep early news, ignore old."""
        if (news.departed, news.digest) != (state.departed, state.digest):
            return state._replace(pending=(*state.pending, news)) if news.departed > state.departed else state
        edge = (news.i, news.j)
        if news.epoch < state.epoch or self.count(state.fresh, edge) is None:
            return state
        if news.epoch > state.epoch:
            state = state._replace(epoch=news.epoch, slots=(), used=state.fresh)
        return self._enter(news.slot, edge, view, state)

    def _enter(self, slot: int, edge: Edge, view: View, state: EpochState) -> EpochState:
        slots, used = state.slots, state.used
        missing = slot - len(slots)
        if missing >= 0:
            slots = (*slots, *(None,) * missing, edge)
            counted = self.count(used, edge)
            used = used if counted is None else counted
            state = state._replace(due=view.round if view.is_open else state.due)
        else:
            # An earlier iteration's: it ends no round, because the later news has done that.
            winner = slots[slot]
            if winner is not None and winner <= edge:
                return state
            slots = (*slots[:slot], edge, *slots[slot + 1 :])
            used = self._reckon(slots, state)
        if self.complete(used):
            return state._replace(epoch=state.epoch + 1, slots=(), used=state.fresh)
        return state._replace(slots=slots, used=used)

    def _reckon(self, slots: tuple[Edge | None, ...], state: EpochState) -> Any:
        used: Any = state.fresh
        for edge in slots:
            counted = None if edge is None else self.count(used, edge)
            used = used if counted is None else counted
        return used

    def decide(self, view: View, state: EpochState, now: Seconds) -> tuple[Decision, EpochState]:
        """Announce an edge that this round has established, and close on any news."""
        if not view.living and not view.done:
            return Close("no living neighbour is left"), state
        if state.due == view.round:
            return Close("an edge was established elsewhere"), state
        for peer in view.done:
            announced = self._announce(peer, "established edge {} in epoch {}", view, state)
            if announced is not None:
                return announced
        if view.awaited <= view.done.keys():
            # Nothing is left to wait for. Ours; it spares the wait of a rank that is complete before the threshold, and no edge
            # is used less for it.
            return self._forgive(view, state)
        return Stay("waits for news of an edge that this epoch has not used"), state

    def _forgive(self, view: View, state: EpochState) -> tuple[Decision, EpochState]:
        """Close; an edge to a silent neighbour that the epoch would wait for passes as used."""
        for peer in sorted(view.living - view.awaited):
            announced = self._announce(peer, "edge {} to a silent rank passes as established in epoch {}", view, state)
            if announced is not None:
                return announced
        return closed_with_all(view), state

    def _announce(self, peer: Rank, reason: str, view: View, state: EpochState) -> tuple[Decision, EpochState] | None:
        """Close with the news that the edge to ``peer`` is used, if it counts."""
        edge = (view.rank, peer) if view.rank < peer else (peer, view.rank)
        if self.count(state.used, edge) is None:
            return None
        news = Established(state.epoch, len(state.slots), *edge, state.departed, state.digest)
        return Close(reason.format(edge, news.epoch), (news,)), self._enter(news.slot, edge, view, state)
