"""The neighbour exchange: one rank's side of it, as a state machine without input or output.

Laws (a validator checks them after every event in the tests, see :mod:`consensus.protocol.validate`):

1. Symmetry. Round a of i exchanges with round b of j if and only if round b of j exchanges with round a of i. It rests on the
   handshake alone: each end sends Engage(a, b) only while open and never takes it back (only the *other* end's Closed voids it),
   and each end moves only when it has both sent and received it.
2. A round closes only while no edge is offered or moving, so an Engage is never withdrawn after the peer may have acted on it.
3. At most one exchange per edge and round: a Ready is used up by the exchange it led to, at both ends.
4. Nobody waits for a rank that computes: a computing rank has sent Closed, so every offer to it falls back to idle.
   (Rules may wait; see ``stuck_after`` for how long.)
5. Leaving and dying are ordinary events; the rule is asked again after each.

The engine is fed events (:mod:`consensus.protocol.events`) with the time at which they are handled, and returns commands
(:mod:`consensus.protocol.commands`) that the driver carries out in order.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Collection, Mapping
from typing import Any, ClassVar, Literal, NoReturn

from consensus.errors import ConfigError, ProtocolError
from consensus.protocol.commands import Broadcast, Command, DropModel, Finish, Mix, SendControl, StartStep, SwapModel, WakeAt
from consensus.protocol.decision import ActiveWeights, Close, Rule, View
from consensus.protocol.edge import Edge, EdgeState
from consensus.protocol.events import Control, Event, LeaveWanted, ModelSwapped, PeerLost, StepDone, Tick
from consensus.protocol.messages import Closed, Engage, Established, Leave, Ready, foreign, record
from consensus.protocol.rounds import Exchange, Phase, RoundRecord
from consensus.protocol.story import Story
from consensus.topology.metropolis import edge_weight
from consensus.types import Rank, Round, Seconds

Weights = Literal["static", "active"]

_LOG = logging.getLogger("consensus")

_MOST_SLOTS = 1 << 20
"""More iterations than an epoch of any rule has; news of later ones are none."""


# Looking a member up in its Enum class costs as much as a small method call, and the engine asks several times an event.
_COMPUTING, _OPEN, _SETTLING, _LEFT, _FINISHED = Phase
_IDLE, _OFFERED, _MOVING, _DONE = EdgeState


class NeighbourEngine:
    """One rank's side of the neighbour exchange.

    Parameters
    ----------
    rank : Rank
        This rank.
    adjacency : Mapping[Rank, Collection[Rank]]
        The base graph: symmetric, no self-loops; the same at every rank.
    rule : Rule
        Decides when rounds close.
    weights : "static" or "active"
        Metropolis-Hastings on base-graph degrees, or on the exchanges of the round (then mixing waits for the partners' Closed).
    everyone : bool
        Say goodbye to all ranks, not to neighbours only. Rules that reckon with the whole graph need it; so does whoever sends
        application messages beyond neighbours. Without it, a simulation of thousands of ranks is spared N^2 messages.
    stuck_after : float
        When a round has been open for so many seconds, neighbours that compute all the while count as *silent*: partial rules
        wait for them no more, in this and later rounds, until they open a round themselves. A stopped process looks like one
        that computes for long; either way nothing but waiting is at stake, for a rule chooses when to close, never whom to count.

    Attributes
    ----------
    phase : Phase
        What the rank is doing.
    view : View
        What the rule sees.
    edges : dict[Rank, Edge]
        This end of each edge, by peer.
    story : Story or None
        The last events; None if nobody will ask (a simulation of thousands of ranks).
    last : RoundRecord | None
        The last closed round.

    Raises
    ------
    ConfigError
        If the rule refuses ``weights="active"``.
    """

    __slots__ = (
        "_active", "_busy", "_changed", "_dead", "_everyone", "_goodbyes", "_leave_wanted", "_out", "_partners_wait",
        "_suspect_at", "_unmatched", "_verdict", "_wake_at", "edges", "last", "phase", "rank", "rule", "rule_state", "story",
        "stuck_after", "unmet", "view",
    )  # fmt: skip

    def __init__(
        self,
        rank: Rank,
        adjacency: Mapping[Rank, Collection[Rank]],
        rule: Rule,
        *,
        weights: Weights = "static",
        everyone: bool = True,
        stuck_after: Seconds = math.inf,
    ) -> None:
        if weights == "active" and rule.active_weights is ActiveWeights.REFUSED:
            raise ConfigError(
                f'weights="active" does not go with rule {rule.name!r}: mixing would wait for partners that may stay open for '
                'long; use weights="static", or rule "full" or "dtur"'
            )
        neighbours = tuple(sorted(adjacency[rank]))
        self.rank = rank
        self.rule = rule
        self.stuck_after = stuck_after
        self.phase = _COMPUTING
        self.story: Story | None = Story()
        self.last: RoundRecord | None = None
        self.edges = {j: Edge(j, edge_weight(len(neighbours), len(adjacency[j]))) for j in neighbours}
        self.view = View(rank, adjacency, neighbours, living=set(neighbours), last_used=dict.fromkeys(neighbours, 0))
        self.rule_state: Any = rule.start(self.view)
        self._active = weights == "active"
        # A round closed early would then have to wait for partners that may in turn wait for an exchange with this rank.
        self._partners_wait = self._active and rule.active_weights is ActiveWeights.WAIT
        self._everyone = everyone
        self._goodbyes = set(adjacency) - {rank} if everyone else set(neighbours)
        self._dead: set[Rank] = set()
        self._busy = 0
        self._unmatched = 0
        self._changed = False
        self._verdict: Close | None = None
        self.unmet = "no round is open yet"
        self._wake_at: Seconds | None = None
        self._suspect_at = math.inf
        self._leave_wanted = False
        self._out: list[Command] = []

    @property
    def peers(self) -> tuple[Rank, ...]:
        """The ranks it exchanges models with."""
        return self.view.neighbours

    @property
    def round(self) -> Round:
        """The present round, or the last; 0 before the first."""
        return self.view.round

    # -- events ---------------------------------------------------------------------------------------------------------

    def handle(self, event: Event, now: Seconds) -> list[Command]:
        """Take one event and return what to do.

        Parameters
        ----------
        event : Event
            What happened.
        now : Seconds
            When it is handled; never decreasing.

        Returns
        -------
        list[Command]
            To be carried out in order, before the next event is handled.

        Raises
        ------
        ProtocolError
            If the event cannot happen in this state; with the story that led there.
        """
        out: list[Command] = []
        self._out = out
        if self.story is not None:
            self.story.record_pair((now, event))
        if isinstance(event, Control):  # most are
            try:
                take = self._MESSAGES[type(event.message)]
            except KeyError:
                raise self._broken(foreign(event.peer, event.message)) from None
            take(self, event.peer, event.message, now)
        else:
            self._EVENTS[type(event)](self, event, now)
        phase = self.phase
        if phase is _OPEN:
            if self._changed and self._verdict is None:
                self._judge(now)
            if self._busy == 0 and self._verdict is not None:
                self._close(self._verdict, now)
        elif phase is _SETTLING:
            self._settle()
        return out

    def _step_done(self, event: StepDone, now: Seconds) -> None:
        if self.phase is not _COMPUTING:
            raise self._broken(f"a step was done while {self.phase.value}")
        view = self.view
        view.round += 1
        view.is_open = True
        view.opened_at = now
        view.done.clear()
        self.phase = _OPEN
        self._verdict = None
        self._changed = True
        self._wake_at = None
        self._suspect_at = now + self.stuck_after
        self._unmatched = len(view.living)
        out = self._out
        ready = record(Ready, (view.round,))
        for peer, edge in self.edges.items():
            edge.reset()  # of a departed peer too: it may have left after the exchange of my last round
            if edge.ready:
                self._offer(edge, now)  # says that this round is ready, too
            elif not edge.gone:
                out.append(record(SendControl, (peer, ready)))

    def _tick(self, event: Tick, now: Seconds) -> None:
        if self._wake_at is not None and now >= self._wake_at:
            self._wake_at = None  # a Tick of an earlier round's WakeAt must not ask for this round's a second time
        self._changed = True

    def _leave(self, event: LeaveWanted, now: Seconds) -> None:
        if self.phase is _COMPUTING:
            self._say_goodbye()
        elif self.phase in (_OPEN, _SETTLING):
            self._leave_wanted = self._changed = True

    # -- messages -------------------------------------------------------------------------------------------------------

    def _ready(self, peer: Rank, message: Ready, now: Seconds) -> None:
        self._is_ready(self.edges.get(peer) or self._stranger(peer), message.round, now)

    def _engage(self, peer: Rank, message: Engage, now: Seconds) -> None:
        edge = self.edges.get(peer) or self._stranger(peer)
        edge.engaged = (message.mine, message.yours)
        if edge.state is _OFFERED:
            self._move_if_agreed(edge, now)
        else:
            self._is_ready(edge, message.mine, now)

    def _is_ready(self, edge: Edge, round: Round, now: Seconds) -> None:
        if edge.gone:
            return  # another rank told of its death before its own last messages came
        edge.ready = edge.rounds = round
        if edge.silent:
            edge.silent = False
            self._reckon_awaited()
        # Also while the round waits to close: peers that have offered themselves wait for an answer, and around a cycle of the
        # graph each could wait for the next. It delays the close by at most one exchange per edge.
        if self.phase is _OPEN and edge.state is _IDLE:
            self._offer(edge, now)

    def _closed(self, peer: Rank, message: Closed, now: Seconds) -> None:
        edge = self.edges.get(peer) or self._stranger(peer)
        if edge.ready == message.round:
            edge.ready = 0
        if edge.partner != message.round:
            return
        if edge.state is _OFFERED:
            edge.state = _IDLE
            edge.partner = 0
            self._busy -= 1
        elif self.phase in (_OPEN, _SETTLING):
            # The exchange moves or is done here, and is done there; it may have finished earlier at that end.
            edge.partner_exchanges = message.exchanges
            if self._active and self._verdict is None and self.rule.active_weights is ActiveWeights.CASCADE:
                self._verdict = Close(f"rank {peer}, already exchanged with, has closed")

    def _established(self, peer: Rank, message: Established, now: Seconds) -> None:
        known = self.view.adjacency
        if not (0 <= message.slot < _MOST_SLOTS and message.epoch >= 0 and message.i in known and message.j in known):
            raise self._broken(foreign(peer, message))
        self.rule_state = self.rule.hear(message, self.view, self.rule_state)
        self._changed = True

    def _goodbye(self, peer: Rank, message: Leave, now: Seconds) -> None:
        if message.who == self.rank or message.who not in self.view.adjacency:
            raise self._broken(foreign(peer, message))
        self._depart(message.who, dead=message.who != peer)

    def _stranger(self, peer: Rank) -> NoReturn:
        raise self._broken(f"rank {peer} is not a neighbour, yet sent an exchange message")

    # -- the exchange ---------------------------------------------------------------------------------------------------

    def _offer(self, edge: Edge, now: Seconds) -> None:
        edge.state = _OFFERED
        edge.partner = edge.ready
        self._busy += 1
        self._out.append(record(SendControl, (edge.peer, record(Engage, (self.view.round, edge.ready)))))
        if edge.engaged is not None:
            self._move_if_agreed(edge, now)

    def _move_if_agreed(self, edge: Edge, now: Seconds) -> None:
        if edge.engaged != (edge.partner, self.view.round):
            return  # an Engage for one of my closed rounds, or none: not this pair of rounds
        edge.state = _MOVING
        edge.ready = 0  # used up: the same Ready must not be answered by my next round
        edge.engaged = None
        edge.agreed_at = now
        self._unmatched -= 1
        weight = None if self._active else edge.weight
        self._out.append(record(SwapModel, (edge.peer, self.view.round, edge.partner, weight, self._unmatched == 0)))

    def _swapped(self, event: ModelSwapped, now: Seconds) -> None:
        peer = event.peer
        edge = self.edges.get(peer) or self._stranger(peer)
        if edge.state is not _MOVING:
            if peer in self._dead:
                return  # the transfer was given up when another rank told of the death; the transport had not heard of it
            raise self._broken(f"models were swapped with rank {peer}, but that edge is {edge.state.name}")
        edge.state = _DONE
        self._busy -= 1
        self._changed = True
        self.view.done[peer] = now

    # -- closing --------------------------------------------------------------------------------------------------------

    def _judge(self, now: Seconds) -> None:
        """Ask the rule; it judges by the view, its state and the clock alone, so only when one of them has changed."""
        self._changed = False
        if self._leave_wanted and not self._partners_wait:
            self._verdict = Close("this rank leaves")
            return
        suspects = self._suspect() if now >= self._suspect_at else None
        decision, self.rule_state = self.rule.decide(self.view, self.rule_state, now)
        for news in decision.announce:
            self._out.append(Broadcast(news))
        if isinstance(decision, Close):
            self._verdict = decision
            if suspects:
                _LOG.warning(
                    "rank %d, round %d: goes on without ranks %s, which have not come for %g s, and waits no more until they do",
                    self.rank, self.view.round, suspects, self.stuck_after,
                )  # fmt: skip
            return
        self.unmet = decision.reason
        wake_at = decision.wake_at
        if self._suspect_at < math.inf and (wake_at is None or self._suspect_at < wake_at):
            wake_at = self._suspect_at
        if wake_at is not None and wake_at != self._wake_at:
            self._wake_at = wake_at
            self._out.append(WakeAt(wake_at))

    def _suspect(self) -> list[Rank]:
        """Regard as silent whoever has not come in all the time that this round is open; return who that is."""
        self._suspect_at = math.inf
        fresh = [peer for peer, edge in self.edges.items() if edge.state is _IDLE and not (edge.gone or edge.silent)]
        for peer in fresh:
            self.edges[peer].silent = True
        if fresh:
            self._reckon_awaited()
        return fresh

    def _reckon_awaited(self) -> None:
        view = self.view
        silent = {peer for peer, edge in self.edges.items() if edge.silent}
        view.awaited = view.living - silent if silent else view.living
        self._changed = True

    def _close(self, verdict: Close, now: Seconds) -> None:
        view, edges, out = self.view, self.edges, self._out
        round, done = view.round, view.done
        # Where the round has exchanged, its Ready is used up at both ends and no Engage is open: there is nothing to withdraw,
        # and only active weights want to know the number of exchanges.
        backups: list[Rank] = []
        if self._active or self._unmatched:
            closed = record(Closed, (round, len(done)))
            for peer, edge in edges.items():
                if edge.gone:
                    continue
                if edge.state is not _DONE:
                    backups.append(peer)
                elif not self._active:
                    continue
                out.append(record(SendControl, (peer, closed)))
        view.is_open = False
        exchanges = []
        for peer, when in done.items():
            view.last_used[peer] = round
            exchanges.append(exchange_of(edges[peer], when))
        self.last = record(RoundRecord, (round, view.opened_at, now, tuple(exchanges), tuple(backups), verdict.reason))
        self.phase = _SETTLING
        self._settle()

    def _settle(self) -> None:
        """Mix and go on, unless active weights wait for a partner's number of exchanges."""
        assert self.last is not None
        exchanges = self.last.exchanges
        if self._active and exchanges:
            own = len(exchanges)
            edges = [self.edges[exchange.peer] for exchange in exchanges]
            waiting = [edge.peer for edge in edges if edge.partner_exchanges < 0 and not edge.gone]
            if waiting:
                self.unmet = f"active weights wait for the Closed of {waiting}"
                return
            theirs = {edge.peer: max(edge.partner_exchanges, 1) for edge in edges}
            exchanges = tuple(each._replace(weight=edge_weight(own, theirs[each.peer])) for each in exchanges)
            self.last = self.last._replace(exchanges=exchanges)
        if exchanges:
            self._out.append(record(Mix, (tuple([(each.peer, each.weight) for each in exchanges]),)))
        self.phase = _COMPUTING
        self._out.append(record(StartStep, (self.view.round,)))
        if self._leave_wanted:
            self._say_goodbye()

    # -- departures -----------------------------------------------------------------------------------------------------

    @property
    def lost(self) -> frozenset[Rank]:
        """The ranks that are known to have died."""
        return frozenset(self._dead)

    def _lost(self, event: PeerLost, now: Seconds) -> None:
        left = self.phase is _LEFT or self.phase is _FINISHED
        if self._everyone and event.peer not in self.view.departed and not left:
            # Others may hear of it much later, or only from here. After the own goodbye nothing may be sent any more.
            self._out.append(Broadcast(Leave(event.peer)))
        self._depart(event.peer, dead=True)

    def _depart(self, who: Rank, dead: bool) -> None:
        edge = self.edges.get(who)
        if edge is not None and not edge.gone:
            if edge.state is _IDLE or edge.state is _OFFERED:
                self._unmatched -= 1
            edge.gone = True
            edge.ready = 0
            self.view.living.discard(who)
            if edge.silent:
                edge.silent = False
                self._reckon_awaited()
            self.view.awaited.discard(who)
        # A rank that leaves has completed its half of a moving exchange, so what is missing here still comes; one that died may
        # not have.
        if edge is not None and self.phase is _OPEN and (edge.state is _OFFERED or (dead and edge.state is _MOVING)):
            if edge.state is _MOVING:
                self._out.append(DropModel(who))
            edge.reset()
            self._busy -= 1
        if dead:
            self._dead.add(who)
        self._goodbyes.discard(who)
        self._changed = True
        if who not in self.view.departed:
            self.view.departed.add(who)
            self.rule_state = self.rule.departure(who, self.view, self.rule_state)
        if self.phase is _LEFT and not self._goodbyes:
            self._finish()

    def _say_goodbye(self) -> None:
        # To those who left before as well: they wait for it.
        goodbye = Leave(self.rank)
        if self._everyone:
            self._out.append(Broadcast(goodbye))
        else:
            self._out.extend(SendControl(peer, goodbye) for peer in self.edges if peer not in self._dead)
        self.phase = _LEFT
        if not self._goodbyes:
            self._finish()

    def _finish(self) -> None:
        self.phase = _FINISHED
        self._out.append(Finish())

    # -- participation --------------------------------------------------------------------------------------------------

    @property
    def participation(self) -> float:
        """My rounds in units of the mean over my living neighbours and me, as far as I have heard; 1 before my first round.

        Rounds are counted since the session began. Ranks that participate less pull the common model less towards their data.
        """
        heard = [edge.rounds for edge in self.edges.values() if not edge.gone]
        mine = self.view.round
        return mine * (len(heard) + 1) / (mine + sum(heard)) if mine else 1.0

    # -- reporting ------------------------------------------------------------------------------------------------------

    @property
    def waits_since(self) -> Seconds | None:
        """When the present round opened, None while there is none; a rank that has left waits as long as it takes."""
        return self.view.opened_at if self.phase in (_OPEN, _SETTLING) else None

    def _broken(self, what: str) -> ProtocolError:
        error = ProtocolError(f"rank {self.rank}, round {self.view.round}: {what}")
        if self.story is not None:
            error.add_note("last events:\n" + self.story.tell(now=self.story.latest))
        return error

    def describe(self, now: Seconds) -> str:
        """Return, for a rank that waits for long: since when, for what, and for each edge its state and last events."""
        view = self.view
        unmet = f"rule {self.rule.name}: {self.unmet}"
        if self.phase is _LEFT:
            unmet = f"waits for the goodbyes of {sorted(self._goodbyes)}"
        lines = [f"rank {self.rank} is {self.phase.value} in round {view.round} for {now - view.opened_at:.1f} s; {unmet}"]
        for peer, edge in self.edges.items():
            state = "left" if edge.gone else edge.state.name.lower()
            if edge.state is not _IDLE:
                state += f" with its round {edge.partner}"
            elif not edge.gone:
                # Of a round that has exchanged with this rank no Closed comes.
                waits = f" or waits for others in its round {edge.rounds}" if edge.rounds else ""
                state += f", its round {edge.ready} is open" if edge.ready else f", it computes{waits}"
                state += "; silent, and not waited for" if edge.silent else ""
            lines.append(f"  edge to {peer}: {state}")
            if self.story is not None:
                lines += self.story.tell_about(peer, now)
        return "\n".join(lines)

    _EVENTS: ClassVar[dict[type, Callable[..., None]]] = {
        StepDone: _step_done,
        ModelSwapped: _swapped,
        PeerLost: _lost,
        Tick: _tick,
        LeaveWanted: _leave,
    }
    _MESSAGES: ClassVar[dict[type, Callable[..., None]]] = {
        Ready: _ready,
        Engage: _engage,
        Closed: _closed,
        Established: _established,
        Leave: _goodbye,
    }


def exchange_of(edge: Edge, when: Seconds) -> Exchange:
    """The exchange that ``edge`` has made in the present round, complete at ``when``."""
    made: Exchange = record(Exchange, (edge.peer, edge.partner, edge.weight, edge.agreed_at, when))
    return made
