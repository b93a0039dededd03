"""The parameter server, as a state machine without input or output; its workers' side is :mod:`consensus.protocol.worker`.

Laws (tests/protocol/test_server.py, tests/sim/test_served.py):

1. A worker never blocks the server, and a slow worker never a fast one, beyond what the rule says: everything the server sends is
   begun only when the worker has said that it has room (Fetch), one transfer a worker at a time, always of the newest weights.
2. Each gradient that arrives is applied once, discarded once, or rejected once (it is not finite); never two of these.
3. A worker goes on only from weights that the rule has released to it.
4. Leaving and dying are ordinary events; the rule is asked again after each. A gradient that is whole by then counts.
"""

from __future__ import annotations

import logging
import math
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, ClassVar

from consensus.errors import ConfigError, ProtocolError
from consensus.protocol.commands import Apply, Broadcast, Command, Discard, DropModel, Finish, GiveModel, SendControl, TakeModel
from consensus.protocol.events import Applied, Control, Event, GradientTaken, ModelGiven, PeerLost, Tick
from consensus.protocol.messages import Fetch, Leave, Push, Weights, foreign
from consensus.protocol.rounds import Exchange, Phase, RoundRecord
from consensus.protocol.service import Arrival, Factor, PushMode, ServerRule, ServerView, Update, Verdict
from consensus.protocol.story import Story
from consensus.types import Rank, Round, Seconds

_LOG = logging.getLogger("consensus")

REJECTIONS = 100
"""So many gradients in a row that are not finite, and not one that is, end the run: nothing can be learnt from them."""


class Member:
    """A worker as the server knows it.

    Attributes
    ----------
    room : bool
        It can take weights now.
    given : int
        The version of the weights sent to it last.
    giving : bool
        They are still on their way.
    released : bool
        The rule lets it go on to newer weights than it has been given.
    again : bool
        It is to be given the present weights even if it has had them: its gradient at them was of no use.
    held_at : float
        When its last gradient was here.
    pushes : deque of (Push, seconds)
        Announced and not yet here; the first is on its way.
    """

    __slots__ = ("again", "given", "giving", "held_at", "pushes", "released", "room")

    def __init__(self, room: bool) -> None:
        self.room = room
        self.given = 0
        self.giving = self.released = self.again = False
        self.held_at = 0.0
        self.pushes: deque[tuple[Push, Seconds]] = deque()


class ServerEngine:
    """The serving rank's side.

    Parameters
    ----------
    rank : Rank
        This rank.
    workers : collection of Rank
        The others. All of them have the weights of version 0 and compute.
    rule : ServerRule
        Decides when updates are made, and who continues.
    push : "wait", "interrupt" or "pull"
        How weights get to the workers; the first two for rules with ``synchronous`` only.
    factor : callable
        The learning rate rule, see :data:`consensus.protocol.service.Factor`.
    now : float
        When serving begins, on the driver's clock, seconds.

    Attributes
    ----------
    phase : Phase
        OPEN while it serves.
    view : ServerView
        What the rule sees.
    last : RoundRecord or None
        The last update as a round: its exchanges are the gradients it took, its backups the workers it did without.
    rejected : Counter
        How many gradients of each worker were not finite.
    discarded : Counter
        How many of each worker were thrown away by the rule.
    arrived : int
        Gradients that have come, rejected ones not counted.
    loss : float
        Of the batch of the last one.

    Raises
    ------
    ConfigError
        If the rule does not suit so many workers, or the way of pushing.
    """

    def __init__(
        self,
        rank: Rank,
        workers: Collection[Rank],
        rule: ServerRule,
        *,
        push: PushMode,
        factor: Factor,
        now: Seconds,
    ) -> None:
        check_push(rule, push)
        rule.fit(len(workers))
        self.rank, self.rule, self.push = rank, rule, push
        self.peers = tuple(sorted(workers))
        # Steps that are in proportion to the workers' number must not grow when they leave at the end, one after the other.
        self._began_with = len(self.peers)
        self.phase = Phase.OPEN
        self.story = Story()
        self.last: RoundRecord | None = None
        self.rejected: Counter[Rank] = Counter()
        self.discarded: Counter[Rank] = Counter()
        self.view = ServerView(self.peers, updated_at=now, iterations=dict.fromkeys(self.peers, 0), factor=factor, push=push)
        self.members = {worker: Member(room=push != "pull") for worker in self.peers}
        self.rule_state: Any = rule.start(self.view, now)
        self.unmet = "no gradient has come yet"
        self.arrived, self.loss = 0, math.nan
        self._in_a_row = 0
        self._announced: dict[Rank, tuple[Push, Seconds]] = {}
        self._verdict: Verdict | None = None
        self._taken: tuple[Arrival, ...] = ()
        self._waiting: deque[GradientTaken] = deque()
        self._dead: set[Rank] = set()
        self._farewell = False
        self._learnt: Any = None
        """What the rule knew: in an earlier life, until serving begins; before the first goodbye, once that has been said."""
        self._out: list[Command] = []

    @property
    def lost(self) -> frozenset[Rank]:
        """The workers that have died."""
        return frozenset(self._dead)

    @property
    def round(self) -> Round:
        """Updates made so far."""
        return self.view.version

    @property
    def deserted(self) -> bool:
        """Whether it has ended because all workers have died; none has said goodbye."""
        return self.phase is not Phase.OPEN and not self._farewell

    def begin(self, now: Seconds) -> None:
        """Serving begins only now; nothing has been handled yet."""
        self.view.updated_at = now
        learnt, self._learnt = self._learnt, None
        self.rule_state = self.rule.start(self.view, now) if learnt is None else self.rule.resume(learnt, self.view, now)

    # -- checkpoints ----------------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """What another server needs to know to go on after the last update, as plain data.

        What is under way is not in it: gradients that are kept or coming are computed anew.
        """
        return {
            "version": self.view.version,
            "arrived": self.arrived,
            "discarded": dict(self.discarded),
            "rejected": dict(self.rejected),
            "rule": repr(self.rule),
            "learnt": self.rule.learnt(self.rule_state) if self._learnt is None else self._learnt,
        }

    def resume(self, state: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state` gave; before serving begins. All workers have the weights of that version and compute.

        What a rule has learnt goes to the same one with the same parameters only.
        """
        self.view.version = state["version"]
        for member in self.members.values():
            member.given = self.view.version
        self.arrived = state["arrived"]
        self.discarded, self.rejected = Counter(state["discarded"]), Counter(state["rejected"])
        self._learnt = state["learnt"] if state["rule"] == repr(self.rule) else None

    # -- events ---------------------------------------------------------------------------------------------------------

    def handle(self, event: Event, now: Seconds) -> list[Command]:
        """Take one event and return what to do, in order, before the next event is handled.

        Raises
        ------
        ProtocolError
            If the event cannot happen in this state; with the story that led there.
        """
        out = self._out = []
        self.story.record_pair((now, event))
        if isinstance(event, Control):
            try:
                take = self._MESSAGES[type(event.message)]
            except KeyError:
                raise self._broken(foreign(event.peer, event.message)) from None
            take(self, event.peer, event.message, now)
        else:
            self._EVENTS[type(event)](self, event, now)
        return out

    def _pushed(self, peer: Rank, message: Push, now: Seconds) -> None:
        member = self._member(peer)
        if peer in self._dead:
            return
        if not 0 <= message.version <= member.given:
            raise self._broken(
                f"rank {peer} pushed a gradient at version {message.version}, but was given version {member.given} at most"
            )
        member.pushes.append((message, now))
        if len(member.pushes) == 1:
            self._out.append(TakeModel(peer))
        if message.fetch:
            self._has_room(peer)

    def _fetched(self, peer: Rank, message: Fetch, now: Seconds) -> None:
        self._member(peer)
        self._has_room(peer)

    def _has_room(self, peer: Rank) -> None:
        self.members[peer].room = True
        self._give(peer)

    def _gradient(self, event: GradientTaken, now: Seconds) -> None:
        worker = event.peer
        member = self._member(worker)
        if self._verdict is not None:
            # Shards make an update one after the other. Until it is made the rule cannot be asked, nor what came be overwritten.
            self._waiting.append(event)
            return
        if worker in self._dead:  # of whose death another rank has told before
            self._out.append(Discard(worker))
            return
        if not member.pushes:
            raise self._broken(f"a gradient of rank {worker} came that it had not announced")
        push, announced = member.pushes.popleft()
        self._take_in(worker, push, announced, event.square, now)
        if member.pushes:  # the next one is to lie where this one lay, until it was judged
            self._out.append(TakeModel(worker))

    def _take_in(self, worker: Rank, push: Push, announced: Seconds, square: float, now: Seconds) -> None:
        view = self.view
        if worker not in view.iterations:  # it left after this push, and the rule reckons with it no more
            self.discarded[worker] += 1
            self._out.append(Discard(worker))
            if self.phase is Phase.LEFT:
                self._finish_if_over()
            return
        if not (math.isfinite(square) and (math.isfinite(push.loss) or not self.rule.uses_losses)):
            self._reject(worker, push, square)
            return
        self._in_a_row = 0
        self.arrived, self.loss = self.arrived + 1, push.loss
        view.iterations[worker] += 1
        arrival = Arrival(worker, push.version, push.iteration, now, push.loss, square)
        view.kept[worker] = arrival
        view.held.add(worker)
        self.members[worker].held_at = now
        self._announced[worker] = push, announced
        self._judge(arrival, now)

    def _reject(self, worker: Rank, push: Push, square: float) -> None:
        self.rejected[worker] += 1
        self._in_a_row += 1
        what = f"the gradient (squared norm {square})" if not math.isfinite(square) else f"the loss ({push.loss})"
        told = f"{what} of rank {worker}'s step {push.iteration}, at version {push.version}, is not finite"
        if self._in_a_row >= REJECTIONS:
            raise ConfigError(f"{told}, and so were the {REJECTIONS - 1} before it; lower the learning rate, or look at the data")
        if self.rejected[worker] == 1:
            _LOG.warning("%s; rejected. Later ones of this rank are counted in silence", told)
        self._out.append(Discard(worker))
        member = self.members[worker]
        if push.version == member.given:
            # It waits for newer weights; as far as the rule knows it still computes, so the present ones have to do.
            member.again = member.given == self.view.version
            member.released = True
            self._give(worker)

    def _applied(self, event: Applied, now: Seconds) -> None:
        verdict, arrivals, view = self._verdict, self._taken, self.view
        if verdict is None:
            raise self._broken("an update was made that nobody had asked for")
        self._verdict = None
        view.version += 1
        opened, view.updated_at = view.updated_at, now
        share = 1.0 / len(arrivals)
        announced = self._announced
        used = tuple([Exchange(a.worker, a.iteration, share, announced[a.worker][1], a.at) for a in arrivals])
        workers = {a.worker for a in arrivals}
        backups = tuple([worker for worker in view.workers if worker not in workers]) if self.rule.synchronous else ()
        self.last = RoundRecord(view.version, opened, now, used, backups, verdict.reason)
        self.rule_state = self.rule.applied(view, Update(arrivals, event.square, event.step), self.rule_state, now)
        self._release(verdict.release)
        # Of the gradients that are still kept, and of whom to release: somebody may have left while the update was made.
        self._judge(None, now)
        while self._waiting and self._verdict is None:
            self._gradient(self._waiting.popleft(), now)

    def _given(self, event: ModelGiven, now: Seconds) -> None:
        member = self._member(event.peer)
        member.giving = False
        if self.phase is Phase.LEFT:
            self._finish_if_over()
        else:
            self._give(event.peer)

    def _tick(self, event: Tick, now: Seconds) -> None:
        """Nothing waits for the clock."""

    # -- the rule -------------------------------------------------------------------------------------------------------

    def _judge(self, arrival: Arrival | None, now: Seconds) -> None:
        view = self.view
        verdict, self.rule_state = self.rule.decide(view, arrival, self.rule_state, now)
        self.unmet = verdict.reason
        for worker in verdict.discard:
            del view.kept[worker]
            self.discarded[worker] += 1
            self._out.append(Discard(worker))
        if not verdict.apply:
            self._release(verdict.release)
            return
        self._taken = tuple([view.kept.pop(worker) for worker in verdict.apply])
        self._verdict = verdict
        self._out.append(Apply(tuple(verdict.apply), view.factor(len(verdict.apply), self._began_with)))

    def _release(self, workers: Iterable[Rank]) -> None:
        for worker in workers:
            if worker not in self.view.iterations:
                continue
            self.view.held.discard(worker)
            self.members[worker].released = True
            self._give(worker)

    def _give(self, worker: Rank) -> None:
        member, version = self.members[worker], self.view.version
        if not (member.room and member.released) or member.giving or worker not in self.view.iterations:
            return
        if member.given == version and not member.again:
            return
        member.room = member.released = member.again = False
        member.giving = True
        member.given = version
        self._out.append(SendControl(worker, Weights(version)))
        self._out.append(GiveModel(worker))

    # -- departures -----------------------------------------------------------------------------------------------------

    def _goodbye(self, peer: Rank, message: Leave, now: Seconds) -> None:
        self._gone(message.who, now, dead=message.who != peer)

    def _lost(self, event: PeerLost, now: Seconds) -> None:
        if self.phase is Phase.OPEN and event.peer in self.view.iterations:
            self._out.append(Broadcast(Leave(event.peer)))
        self._gone(event.peer, now, dead=True)

    def _gone(self, who: Rank, now: Seconds, dead: bool) -> None:
        self._depart(who, now, dead)
        if self.phase is Phase.LEFT:  # the end may have waited for what was under way with it
            self._finish_if_over()

    def _depart(self, who: Rank, now: Seconds, dead: bool) -> None:
        view, member = self.view, self._member(who)
        if dead and who not in self._dead:
            self._dead.add(who)
            member.giving = False
            self._out.append(DropModel(who))
            if member.pushes:
                # Whole at this rank perhaps, and not at other shards.
                self._out.append(Discard(who))
                member.pushes.clear()
                self._waiting = deque(event for event in self._waiting if event.peer != who)
        if who not in view.iterations:
            return
        if not (dead or self._farewell):
            self._farewell = True
            # From now on it unlearns what it knew of so many workers, who would all be back after a resume.
            self._learnt = self.rule.learnt(self.rule_state)
        del view.iterations[who]
        view.workers = tuple(worker for worker in view.workers if worker != who)
        view.held.discard(who)
        self.rule_state = self.rule.departed(who, view, self.rule_state, now)
        self._departed(now)

    def _departed(self, now: Seconds) -> None:
        """One worker fewer: go on with the rest, or leave if there are none."""
        if not self.view.workers:
            self._leave()
        # An update that is being made asks again by itself, if anything is kept.
        elif self._verdict is None:
            self._judge(None, now)

    def _leave(self) -> None:
        self._out += [Discard(worker) for worker in self.view.kept]
        self.view.kept.clear()
        self._out.append(Broadcast(Leave(self.rank)))
        self.phase = Phase.LEFT
        self._finish_if_over()

    def _finish_if_over(self) -> None:
        if not any(member.giving or member.pushes for member in self.members.values()):
            self.phase = Phase.FINISHED
            self._out.append(Finish())

    # -- reporting ------------------------------------------------------------------------------------------------------

    @property
    def waits_since(self) -> Seconds | None:
        """Since when some worker has been held; None while all compute, however long that takes, and after the end."""
        if self.phase is not Phase.OPEN:
            return None
        return min((self.members[worker].held_at for worker in self.view.held), default=None)

    def _member(self, peer: Rank) -> Member:
        try:
            return self.members[peer]
        except KeyError:
            raise self._broken(f"rank {peer} is no worker, yet sent a worker's message") from None

    def _broken(self, what: str) -> ProtocolError:
        error = ProtocolError(f"rank {self.rank}, version {self.view.version}: {what}")
        error.add_note("last events:\n" + self.story.tell(now=self.story.latest))
        return error

    def describe(self, now: Seconds) -> str:
        """Return, for a server that waits for long: since when, for what, and of each worker where it is and its last events."""
        view = self.view
        since = f"rank {self.rank} serves version {view.version} for {now - view.updated_at:.1f} s"
        lines = [f"{since}; {self.rule.name}: {self.unmet}"]
        for worker, member in self.members.items():
            if worker not in view.iterations:
                doing = "has died" if worker in self._dead else "has left"
            elif member.pushes:
                doing = f"pushes its gradient {member.pushes[0][0].iteration}"
            elif worker in view.held:
                doing = f"is held for {now - member.held_at:.1f} s" + (", its gradient kept" if worker in view.kept else "")
            elif member.giving:
                doing = f"is being given version {member.given}"
            else:
                doing = f"computes, with version {member.given}"
            lines += [f"  rank {worker} {doing}", *self.story.tell_about(worker, now)]
        return "\n".join(lines)

    _EVENTS: ClassVar[dict[type, Callable[..., None]]] = {
        GradientTaken: _gradient,
        Applied: _applied,
        ModelGiven: _given,
        PeerLost: _lost,
        Tick: _tick,
    }
    _MESSAGES: ClassVar[dict[type, Callable[..., None]]] = {Push: _pushed, Fetch: _fetched, Leave: _goodbye}


def check_push(rule: ServerRule, push: PushMode) -> None:
    """Raise :class:`~consensus.errors.ConfigError` if ``push`` does not go with ``rule``."""
    if push not in ("wait", "interrupt", "pull"):
        raise ConfigError(f"push = {push!r}, expected 'wait', 'interrupt' or 'pull'")
    if push != "pull" and not rule.synchronous:
        raise ConfigError(
            f"push = {push!r} does not go with rule {rule.name!r}: every gradient makes new weights there, and sending each "
            "of them to all workers would help nobody; use 'pull'"
        )
