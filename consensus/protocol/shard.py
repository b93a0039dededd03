"""A parameter server in several shards: several ranks serve a part of the model each, and the first of them decides for all.

Arrivals differ from shard to shard, and shards that decided by themselves would average different gradients. So the first server
has the engine of a single one, and what that commands it orders from the others as well; an event counts when all shards have
reported it. Workers push to the first, and move a part of each transfer with each server.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Any, ClassVar

from consensus.errors import ProtocolError
from consensus.protocol.commands import Apply, Broadcast, Command, Discard, Finish, GiveModel, SendControl, TakeModel
from consensus.protocol.events import Applied, Control, Event, GradientTaken, LeaveWanted, ModelGiven, ModelTaken, PeerLost, Tick
from consensus.protocol.messages import Leave, Order, Report, Work
from consensus.protocol.rounds import Phase, RoundRecord
from consensus.protocol.server import ServerEngine
from consensus.protocol.story import Story
from consensus.protocol.worker import WorkerEngine
from consensus.types import Rank, Round, Seconds

NOBODY: Rank = -1
"""In place of a worker, where an order is about none."""


class LeadingEngine(ServerEngine):
    """The first shard: a server that has others do as it does.

    Parameters
    ----------
    rank, workers, rule
        As of :class:`~consensus.protocol.server.ServerEngine`.
    followers : collection of Rank
        The other shards.
    **options
        As of the server's engine.
    """

    def __init__(self, rank: Rank, workers: Collection[Rank], rule: Any, *, followers: Collection[Rank], **options: Any) -> None:
        super().__init__(rank, workers, rule, **options)
        self.followers = tuple(sorted(followers))
        self.peers = (*self.peers, *self.followers)
        self._reports: dict[tuple[Work, Rank], list[tuple[float, float]]] = {}
        self._following = set(self.followers)
        self._over = False

    def handle(self, event: Event, now: Seconds) -> list[Command]:
        """See :meth:`ServerEngine.handle`; what a shard alone has done is no event yet."""
        if isinstance(event, Control) and event.peer in self.followers:
            message = event.message
            if isinstance(message, Leave):
                self._following.discard(event.peer)
                return self._finish()
            if not isinstance(message, Report):
                raise self._broken(f"shard {event.peer} sent {message}, which is no report")
            whole = self._count(Work(message.work), message.worker, message.square, message.step)
        elif isinstance(event, GradientTaken):
            whole = self._count(Work.TAKE, event.peer, event.square, 0.0)
        elif isinstance(event, ModelGiven):
            whole = self._count(Work.GIVE, event.peer, 0.0, 0.0)
        elif isinstance(event, Applied):
            whole = self._count(Work.APPLY, NOBODY, event.square, event.step)
        else:
            whole = event
        return [] if whole is None else self._ordered(super().handle(whole, now))

    def _count(self, work: Work, worker: Rank, square: float, step: float) -> Event | None:
        reports = self._reports.setdefault((work, worker), [])
        reports.append((square, step))
        if len(reports) <= len(self.followers):
            return None
        del self._reports[work, worker]
        total = sum(square for square, _ in reports)
        if work is Work.TAKE:
            return GradientTaken(worker, total)
        return ModelGiven(worker) if work is Work.GIVE else Applied(total, step)

    def _ordered(self, commands: Iterable[Command]) -> list[Command]:
        out: list[Command] = []
        for command in commands:
            if command == Broadcast(Leave(self.rank)):
                continue  # the last message on a channel, and there may be orders to come
            if isinstance(command, Finish):
                self._over = True
                self.phase = Phase.LEFT
                out += [Broadcast(Leave(self.rank)), *self._finish()]
                continue
            out += [SendControl(shard, order) for order in orders(command) for shard in self.followers]
            out.append(command)
        return out

    def _finish(self) -> list[Command]:
        if not self._over or self._following:
            return []
        self.phase = Phase.FINISHED
        return [Finish()]


def orders(command: Command) -> list[Order]:
    """What the other shards have to hear to carry out ``command`` too."""
    if isinstance(command, TakeModel):
        return [Order(Work.TAKE, command.peer, 0.0)]
    if isinstance(command, GiveModel):
        return [Order(Work.GIVE, command.peer, 0.0)]
    if isinstance(command, Discard):
        return [Order(Work.DISCARD, command.peer, 0.0)]
    if isinstance(command, Apply):
        return [*(Order(Work.USE, worker, 0.0) for worker in command.workers), Order(Work.APPLY, NOBODY, command.factor)]
    return []


class FollowingEngine:
    """Another shard: it does what the first orders, and reports.

    Parameters
    ----------
    rank : Rank
        This rank.
    leader : Rank
        The first shard.
    workers : collection of Rank
        Those that train.
    size : int
        Number of ranks.

    Attributes
    ----------
    phase : Phase
        OPEN while it serves.
    round : int
        Updates made.
    last : RoundRecord or None
        The last update; who took part is in the first shard's record.
    """

    def __init__(self, rank: Rank, leader: Rank, workers: Collection[Rank], size: int) -> None:
        self.rank, self.leader = rank, leader
        self.peers = (leader, *sorted(workers))
        self.phase = Phase.OPEN
        self.round: Round = 0
        self.last: RoundRecord | None = None
        self.story = Story()
        self._updated_at = 0.0
        self._used: list[Rank] = []
        self._goodbyes = set(range(size)) - {rank}
        self._out: list[Command] = []

    def begin(self, now: Seconds) -> None:
        """Serving begins only now."""
        self._updated_at = now

    def handle(self, event: Event, now: Seconds) -> list[Command]:
        """Take one event and return what to do."""
        out = self._out = []
        self.story.record_pair((now, event))
        if isinstance(event, Control):
            self._MESSAGES[type(event.message)](self, event.peer, event.message)
        else:
            self._EVENTS[type(event)](self, event, now)
        return out

    def _ordered(self, peer: Rank, message: Order) -> None:
        work = Work(message.work)
        if work is Work.USE:
            self._used.append(message.worker)
        elif work is Work.APPLY:
            workers, self._used = tuple(self._used), []
            self._out.append(Apply(workers, message.factor))
        elif work is Work.TAKE:
            self._out.append(TakeModel(message.worker))
        elif work is Work.GIVE:
            self._out.append(GiveModel(message.worker))
        else:
            self._out.append(Discard(message.worker))

    def _goodbye(self, peer: Rank, message: Leave) -> None:
        self._goodbyes.discard(message.who)
        if message.who == self.leader:
            self._out.append(Broadcast(Leave(self.rank)))
            self.phase = Phase.LEFT
        if self.phase is Phase.LEFT and not self._goodbyes:
            self.phase = Phase.FINISHED
            self._out.append(Finish())

    def _report(self, work: Work, worker: Rank, square: float = 0.0, step: float = 0.0) -> None:
        self._out.append(SendControl(self.leader, Report(work, worker, square, step)))

    def _taken(self, event: GradientTaken, now: Seconds) -> None:
        self._report(Work.TAKE, event.peer, event.square)

    def _given(self, event: ModelGiven, now: Seconds) -> None:
        self._report(Work.GIVE, event.peer)

    def _applied(self, event: Applied, now: Seconds) -> None:
        self.round += 1
        self.last = RoundRecord(self.round, self._updated_at, now, (), (), f"as rank {self.leader} says")
        self._updated_at = now
        self._report(Work.APPLY, NOBODY, event.square, event.step)

    def _lost(self, event: PeerLost, now: Seconds) -> None:
        if event.peer == self.leader:
            raise ProtocolError(f"rank {self.rank} follows rank {self.leader}, which is lost")
        self._goodbye(event.peer, Leave(event.peer))

    def _nothing(self, event: Event, now: Seconds) -> None:
        """It waits for orders alone."""

    def describe(self, now: Seconds) -> str:
        """Return what it waits for."""
        waits = f"the goodbyes of {sorted(self._goodbyes)}" if self.phase is Phase.LEFT else f"orders of rank {self.leader}"
        return f"rank {self.rank}, a shard, waits for {waits}; its last update was {now - self._updated_at:.1f} s ago"

    _EVENTS: ClassVar[dict[type, Callable[..., None]]] = {
        GradientTaken: _taken,
        ModelGiven: _given,
        Applied: _applied,
        PeerLost: _lost,
        Tick: _nothing,
        LeaveWanted: _nothing,
    }
    _MESSAGES: ClassVar[dict[type, Callable[..., None]]] = {Order: _ordered, Leave: _goodbye}


class ShardedWorkerEngine(WorkerEngine):
    """A worker of several shards: it moves a part of each transfer with each, and deals with the first only.

    Parameters
    ----------
    servers : collection of Rank
        All shards, the one that decides first.
    """

    def __init__(self, rank: Rank, servers: Collection[Rank], size: int, *, push: Any) -> None:
        self.servers = tuple(servers)
        super().__init__(rank, self.servers[0], size, push=push)
        self.peers = self.servers
        self._moved: dict[type[Event], int] = {ModelGiven: 0, ModelTaken: 0}

    def handle(self, event: Event, now: Seconds) -> list[Command]:
        """See :meth:`WorkerEngine.handle`; a transfer is over when all its parts are."""
        if isinstance(event, ModelGiven | ModelTaken):
            kind = type(event)
            self._moved[kind] += 1
            if self._moved[kind] < len(self.servers):
                return []
            self._moved[kind] = 0
            event = kind(self.server)
        out: list[Command] = []
        for command in super().handle(event, now):
            if isinstance(command, GiveModel | TakeModel):
                out += [type(command)(server) for server in self.servers]
            else:
                out.append(command)
        return out
