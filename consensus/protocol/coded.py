"""Coded gradients, as state machines: a master, the edge nodes that relay between it and the workers, and the workers.

A worker sends a combination of the gradients of its parts of the data to its edge, an edge a combination of its workers' to the
master, and each goes on as soon as those that have come suffice to decode, whoever is silent. Weights go down the same way. What
a node does with those who send to it, and how they get weights, is a parameter server's (:mod:`consensus.protocol.server`); what
is different is said here. Without edges the workers send to the master itself.

Laws, beyond the server's (tests/protocol/test_coded.py):

1. Nobody waits for a node that is silent, as long as the others suffice; beyond that the master says so and ends.
2. A gradient of a version that is over is received whole and forgotten.
3. The master ends training; the others leave when they hear of it, whatever they are at.
4. Dying is being silent for ever. The workers of a dead edge leave; the master's death ends the run, for the model dies with it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, ClassVar, Protocol

from consensus.errors import CodingError
from consensus.protocol.commands import Discard, GiveModel, Install, SendControl, TakeModel
from consensus.protocol.events import Applied, LeaveWanted, ModelGiven, ModelTaken, PeerLost, StepDone
from consensus.protocol.messages import Fetch, Push, Weights
from consensus.protocol.rounds import Exchange, Phase, RoundRecord
from consensus.protocol.server import ServerEngine
from consensus.protocol.service import Arrival, PushMode, ServerRule
from consensus.protocol.worker import WorkerEngine, bereft
from consensus.types import Rank, Round, Seconds

_LOG = logging.getLogger("consensus")


class CodedRule(ServerRule, Protocol):
    """A server rule that knows who must be left (:class:`consensus.rules.coded.Sufficient`)."""

    def suffices(self, living: Iterable[Rank]) -> bool:
        """Whether what these ranks can bring suffices."""


class _Gatherer(ServerEngine):
    """What master and edges have in common: a server whose session ends by the master's word."""

    rule: CodedRule

    def __init__(
        self, rank: Rank, nodes: Collection[Rank], rule: CodedRule, *, size: int, push: PushMode, now: Seconds
    ) -> None:
        super().__init__(rank, nodes, rule, push=push, factor=lambda k, n: 1.0, now=now)
        self._goodbyes = set(range(size)) - {rank}

    def _judge(self, arrival: Arrival | None, now: Seconds) -> None:
        if self.phase is Phase.OPEN:
            super()._judge(arrival, now)
        else:
            self._forget_kept()
            self._finish_if_over()

    def _forget_kept(self) -> None:
        for worker in self.view.kept:
            self.discarded[worker] += 1
            self._out.append(Discard(worker))
        self.view.kept.clear()

    def _gone(self, who: Rank, now: Seconds, dead: bool) -> None:
        self._goodbyes.discard(who)
        if who in self.members:
            super()._gone(who, now, dead)
        elif self.phase is Phase.LEFT:
            self._finish_if_over()

    def _departed(self, now: Seconds) -> None:
        if self.phase is not Phase.OPEN:
            return
        if self.rule.suffices(self.view.workers):
            self._judge(None, now)
        else:
            self._too_few()

    def _too_few(self) -> None:
        """The code cannot be decoded any more."""

    def _finish_if_over(self) -> None:
        if not self._goodbyes:
            super()._finish_if_over()


class MasterEngine(_Gatherer):
    """The rank whose model counts; it decodes what the edges send, and makes the updates.

    Parameters
    ----------
    rank : Rank
        This rank.
    nodes : collection of Rank
        Who sends to it: the edges, or, of a code of one layer, the workers.
    rule : CodedRule
        Says when those that have come suffice.
    size : int
        Number of ranks.
    push : "wait" or "interrupt"
        How weights get to the workers.
    limit : int or None
        After so many updates training is over; None: when the owner says so (LeaveWanted).
    now : float
        When serving begins, on the driver's clock, seconds.
    """

    def __init__(
        self,
        rank: Rank,
        nodes: Collection[Rank],
        rule: CodedRule,
        *,
        size: int,
        push: PushMode,
        limit: Round | None,
        now: Seconds,
    ) -> None:
        super().__init__(rank, nodes, rule, size=size, push=push, now=now)
        self.limit = limit

    def _made(self, event: Applied, now: Seconds) -> None:
        last = self.limit is not None and self.view.version + 1 >= self.limit
        if last:
            # Before anybody is given weights of which nothing would come.
            self.phase = Phase.LEFT
        super()._applied(event, now)
        if last:
            self._leave()

    def _give(self, worker: Rank) -> None:
        if self.phase is Phase.OPEN:
            super()._give(worker)

    def _leave_wanted(self, event: LeaveWanted, now: Seconds) -> None:
        if self.phase is Phase.OPEN:
            self._leave()

    def _too_few(self) -> None:
        raise CodingError(
            f"rank {self.rank}, after {self.view.version} updates: of ranks {list(self.peers)}, which send to the master, only "
            f"{list(self.view.workers)} are left, too few for the code. Start again with one that tolerates more, or with "
            "approximate = true"
        )

    _EVENTS: ClassVar[dict[type, Callable[..., None]]] = {
        **ServerEngine._EVENTS,
        Applied: _made,
        LeaveWanted: _leave_wanted,
    }


class RelayEngine(_Gatherer):
    """An edge node: it gives the master's weights to its workers, and one combination of what they send to the master.

    Its version is that of the weights it has; what has not come when newer ones do is late, and is not waited for. A worker that
    is busy with older weights is given them when it has room.

    Parameters
    ----------
    rank : Rank
        This rank.
    master : Rank
        Who makes the updates.
    workers : collection of Rank
        Its own.
    rule : CodedRule
        Says when those that have come suffice.
    size : int
        Number of ranks.
    push : "wait" or "interrupt"
        How weights get to the workers.
    now : float
        When serving begins, on the driver's clock, seconds.
    """

    def __init__(
        self,
        rank: Rank,
        master: Rank,
        workers: Collection[Rank],
        rule: CodedRule,
        *,
        size: int,
        push: PushMode,
        now: Seconds,
    ) -> None:
        super().__init__(rank, workers, rule, size=size, push=push, now=now)
        self.master, self._workers = master, self.peers
        self.peers = (master, *self.peers)
        self._coming: int | None = None
        self._combined = self._giving = False
        self._pushes = 0

    def resume(self, state: Mapping[str, Any]) -> None:
        """See :meth:`ServerEngine.resume`; ``state`` is the master's, and its counts are not this node's."""
        super().resume({**state, "arrived": 0, "discarded": {}, "rejected": {}})

    # -- up -------------------------------------------------------------------------------------------------------------

    def _judge(self, arrival: Arrival | None, now: Seconds) -> None:
        if self._combined:
            self._forget_kept()
        # One vector at a time goes up; until it has left, what has come of the next version is kept.
        if self.phase is not Phase.OPEN or not (self._combined or self._giving):
            super()._judge(arrival, now)

    def _made(self, event: Applied, now: Seconds) -> None:
        verdict, arrivals, view = self._verdict, self._taken, self.view
        if verdict is None:
            raise self._broken("coded gradients were combined that nobody had asked for")
        self._verdict = None
        self._combined = self._giving = True
        self._pushes += 1
        share = 1.0 / len(arrivals)
        used = tuple([Exchange(a.worker, a.iteration, share, self._announced[a.worker][1], a.at) for a in arrivals])
        senders = {a.worker for a in arrivals}
        backups = tuple([worker for worker in view.workers if worker not in senders])
        self.last = RoundRecord(view.version, view.updated_at, now, used, backups, verdict.reason)
        loss = sum(a.loss for a in arrivals) / len(arrivals)
        self._out += [SendControl(self.master, Push(view.version, self._pushes, 0, loss)), GiveModel(self.master)]
        self._judge(None, now)

    def _left(self, event: ModelGiven, now: Seconds) -> None:
        if event.peer != self.master:
            self._given(event, now)
            return
        self._giving = False
        self._judge(None, now)

    # -- down -----------------------------------------------------------------------------------------------------------

    def _weights(self, peer: Rank, message: Weights, now: Seconds) -> None:
        if self._coming is not None:
            raise self._broken(f"version {message.version} comes while version {self._coming} is still coming")
        self._coming = message.version
        self._out.append(TakeModel(self.master))

    def _came(self, event: ModelTaken, now: Seconds) -> None:
        view, version, self._coming = self.view, self._coming, None
        if version is None:
            raise self._broken("weights came that the master had not announced")
        if self.phase is not Phase.OPEN:
            self._finish_if_over()
            return
        self._forget_kept()
        view.version, view.updated_at, self._combined = version, now, False
        self._out += [Install(), SendControl(self.master, Fetch(version))]
        self._release(view.workers)

    # -- the end --------------------------------------------------------------------------------------------------------

    def _gone(self, who: Rank, now: Seconds, dead: bool) -> None:
        if who == self.master:
            if dead and self.phase is not Phase.FINISHED:
                raise bereft(self.rank, who, "the master")
            if self.phase is Phase.OPEN:
                self._leave()
        super()._gone(who, now, dead)

    def _wanted(self, event: LeaveWanted, now: Seconds) -> None:
        if self.phase is Phase.OPEN:
            self._leave()

    def _too_few(self) -> None:
        _LOG.warning(
            "rank %d: of its workers %s only %s are left, too few for the code; as an edge it is silent from now on",
            self.rank,
            list(self._workers),
            list(self.view.workers),
        )
        self._leave()

    def _finish_if_over(self) -> None:
        if not self._giving and self._coming is None:
            super()._finish_if_over()

    def describe(self, now: Seconds) -> str:
        """See :meth:`ServerEngine.describe`; also what is between it and the master."""
        sent = "is leaving for" if self._giving else "has gone to" if self._combined else "is not ready for"
        coming = "none is coming" if self._coming is None else f"version {self._coming} is coming"
        above = f"  its combination {sent} the master, rank {self.master}; of newer weights {coming}"
        return "\n".join([super().describe(now), above, *self.story.tell_about(self.master, now)])

    _EVENTS: ClassVar[dict[type, Callable[..., None]]] = {
        **ServerEngine._EVENTS,
        Applied: _made,
        ModelGiven: _left,
        ModelTaken: _came,
        LeaveWanted: _wanted,
    }
    _MESSAGES: ClassVar[dict[type, Callable[..., None]]] = {**ServerEngine._MESSAGES, Weights: _weights}


class CodedWorkerEngine(WorkerEngine):
    """A worker: its gradients are coded, and it leaves when the master ends training.

    Parameters
    ----------
    rank : Rank
        This rank.
    edge : Rank
        Whom it sends to: its edge, or the master itself.
    master : Rank
        Who ends training.
    size : int
        Number of ranks.
    push : "wait" or "interrupt"
        Whether it finishes its parts when newer weights have come.

    Attributes
    ----------
    ended : str or None
        Why there is nothing more to compute; None while there is.
    """

    def __init__(self, rank: Rank, edge: Rank, master: Rank, size: int, *, push: PushMode) -> None:
        super().__init__(rank, edge, size, push=push)
        self.master = master
        self.ended: str | None = None

    @property
    def interrupted(self) -> bool:
        """Whether what is under way is of no use any more."""
        return super().interrupted or (self.ended is not None and self.phase is Phase.COMPUTING)

    def _computed(self, event: StepDone, now: Seconds) -> None:
        if self.ended is None:
            self._step_done(event, now)
            return
        self.round += 1
        self._opened_at = now
        self._stop(now)

    def _stop(self, now: Seconds) -> None:
        assert self.ended is not None
        self.last = RoundRecord(self.round, self._opened_at, now, (), (), self.ended)
        self._leave(LeaveWanted(), now)

    def _gone(self, who: Rank, now: Seconds, dead: bool) -> None:
        if dead and who == self.master and self.phase is not Phase.FINISHED:
            raise bereft(self.rank, who, "the master")
        self._goodbyes.discard(who)
        if who in (self.server, self.master) and self.ended is None:
            self.ended = "the master has ended training" if who == self.master else f"rank {who}, its edge, has left"
            if self.phase is Phase.OPEN:
                self._stop(now)
                return
        if self.phase is Phase.LEFT:
            self._finish_if_over()

    def _lost(self, event: PeerLost, now: Seconds) -> None:
        # Not when others tell of it: the transport may have let in before what was under way.
        if event.peer == self.server:
            self._giving, self._coming = False, None
        super()._lost(event, now)

    _EVENTS: ClassVar[dict[type, Callable[..., None]]] = {**WorkerEngine._EVENTS, StepDone: _computed, PeerLost: _lost}
