"""A parameter server in several shards: several ranks serve a part of the model each, and the first of them decides for all.

Arrivals differ from shard to shard, and shards that decided by themselves would average different gradients. So the first server
has the engine of a single one, and what that commands it orders from the others as well; an event counts when all shards have
reported it. Workers push to the first, and move a part of each transfer with each server.

A worker's death each shard hears of by itself, earlier or later than the first, and a transfer may be whole at one and not at
another: then the first has it discarded everywhere. With a shard its share of the model dies, and that ends the run.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, ClassVar

from consensus.errors import ProtocolError
from consensus.protocol.commands import Apply, Broadcast, Command, Discard, DropModel, Finish, GiveModel, SendControl, TakeModel
from consensus.protocol.events import Applied, Control, Event, GradientTaken, LeaveWanted, ModelGiven, ModelTaken, PeerLost, Tick
from consensus.protocol.messages import Leave, Message, Order, Report, Work, foreign
from consensus.protocol.rounds import Phase, RoundRecord
from consensus.protocol.server import ServerEngine
from consensus.protocol.story import Story
from consensus.protocol.worker import WorkerEngine, bereft
from consensus.types import Rank, Round, Seconds

_SHARD = "a server"

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
        whole: Event | None
        if isinstance(event, Control) and event.peer in self.followers:
            message = event.message
            if message == Leave(event.peer):
                self._following.discard(event.peer)
                return self._finish()
            if isinstance(message, Leave):
                whole = event
            elif not isinstance(message, Report):
                raise self._broken(f"shard {event.peer} sent {message}, which is no report")
            elif message.worker in self._dead:
                # A gradient that was whole there when it had been given up here.
                late = message.work == Work.TAKE
                return [SendControl(event.peer, Order(Work.DISCARD, message.worker, 0.0))] if late else []
            else:
                try:
                    work = Work(message.work)
                except ValueError:
                    raise self._broken(foreign(event.peer, message)) from None
                whole = self._count(work, message.worker, message.square, message.step)
        elif isinstance(event, GradientTaken):
            whole = self._count(Work.TAKE, event.peer, event.square, 0.0)
        elif isinstance(event, ModelGiven):
            whole = self._count(Work.GIVE, event.peer, 0.0, 0.0)
        elif isinstance(event, Applied):
            whole = self._count(Work.APPLY, NOBODY, event.square, event.step)
        else:
            whole = event
        return [] if whole is None else self._ordered(super().handle(whole, now))

    def _gone(self, who: Rank, now: Seconds, dead: bool) -> None:
        if who not in self.followers:
            super()._gone(who, now, dead)
        elif self.phase is not Phase.FINISHED:
            raise bereft(self.rank, who, _SHARD)

    def _depart(self, who: Rank, now: Seconds, dead: bool) -> None:
        if dead:
            for work in (Work.TAKE, Work.GIVE):
                self._reports.pop((work, who), None)
        super()._depart(who, now, dead)

    def _finish_if_over(self) -> None:
        if not self._over:
            super()._finish_if_over()

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

    def describe(self, now: Seconds) -> str:
        """See :meth:`ServerEngine.describe`; also what some shards have done and others not."""
        shards = 1 + len(self.followers)
        lines = [super().describe(now)]
        for (work, worker), reports in self._reports.items():
            whom = "" if worker == NOBODY else f" rank {worker}"
            lines.append(f"  {work.name.lower()}{whom}: done by {len(reports)} of {shards} shards")
        return "\n".join(lines)

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
        self._shards = self._goodbyes - set(workers)
        self._dead: set[Rank] = set()
        self._moving: set[tuple[Work, Rank]] = set()
        self._out: list[Command] = []

    @property
    def lost(self) -> frozenset[Rank]:
        """The workers that this shard knows to have died."""
        return frozenset(self._dead)

    def begin(self, now: Seconds) -> None:
        """Serving begins only now."""
        self._updated_at = now

    def state(self) -> dict[str, Any]:
        """As :meth:`ServerEngine.state`; the first shard knows the rest."""
        return {"version": self.round}

    def resume(self, state: Mapping[str, Any]) -> None:
        """See :meth:`ServerEngine.resume`."""
        self.round = state["version"]

    def handle(self, event: Event, now: Seconds) -> list[Command]:
        """Take one event and return what to do.

        Raises
        ------
        DeadRanks
            If another shard has died.
        """
        out = self._out = []
        self.story.record_pair((now, event))
        if isinstance(event, Control):
            try:
                take = self._MESSAGES[type(event.message)]
            except KeyError:
                raise self._broken(event.peer, event.message) from None
            take(self, event.peer, event.message)
        else:
            self._EVENTS[type(event)](self, event, now)
        return out

    def _broken(self, peer: Rank, message: Message) -> ProtocolError:
        return ProtocolError(f"rank {self.rank}, a shard: {foreign(peer, message)}")

    def _ordered(self, peer: Rank, message: Order) -> None:
        try:
            work = Work(message.work)
        except ValueError:
            raise self._broken(peer, message) from None
        if work is Work.USE:
            self._used.append(message.worker)
        elif work is Work.APPLY:
            workers, self._used = tuple(self._used), []
            self._out.append(Apply(workers, message.factor))
        elif work is Work.DISCARD:
            self._out.append(Discard(message.worker))
        elif message.worker not in self._dead:
            self._moving.add((work, message.worker))
            self._out.append(TakeModel(message.worker) if work is Work.TAKE else GiveModel(message.worker))

    def _goodbye(self, peer: Rank, message: Leave) -> None:
        self._gone(message.who, dead=message.who != peer)

    def _gone(self, who: Rank, dead: bool) -> None:
        if dead and who in self._shards and self.phase is not Phase.FINISHED:
            raise bereft(self.rank, who, _SHARD)
        self._goodbyes.discard(who)
        if who == self.leader and self.phase is Phase.OPEN:
            self._out.append(Broadcast(Leave(self.rank)))
            self.phase = Phase.LEFT
        self._finish_if_over()

    def _finish_if_over(self) -> None:
        # The first shard may know of a death before this one does, and so go before this one's transfers are given up.
        if self.phase is Phase.LEFT and not self._goodbyes and not self._moving:
            self.phase = Phase.FINISHED
            self._out.append(Finish())

    def _moved(self, work: Work, worker: Rank, square: float = 0.0) -> None:
        self._moving.discard((work, worker))
        if self.phase is Phase.OPEN:
            self._report(work, worker, square)
        else:
            self._finish_if_over()

    def _report(self, work: Work, worker: Rank, square: float = 0.0, step: float = 0.0) -> None:
        self._out.append(SendControl(self.leader, Report(work, worker, square, step)))

    def _taken(self, event: GradientTaken, now: Seconds) -> None:
        self._moved(Work.TAKE, event.peer, event.square)

    def _given(self, event: ModelGiven, now: Seconds) -> None:
        self._moved(Work.GIVE, event.peer)

    def _applied(self, event: Applied, now: Seconds) -> None:
        self.round += 1
        self.last = RoundRecord(self.round, self._updated_at, now, (), (), f"as rank {self.leader} says")
        self._updated_at = now
        self._report(Work.APPLY, NOBODY, event.square, event.step)

    def _lost(self, event: PeerLost, now: Seconds) -> None:
        if event.peer not in self._shards:
            self._dead.add(event.peer)
            self._moving -= {(Work.TAKE, event.peer), (Work.GIVE, event.peer)}
            self._out.append(DropModel(event.peer))
        self._gone(event.peer, dead=True)

    def _nothing(self, event: Event, now: Seconds) -> None:
        """It waits for orders alone."""

    @property
    def waits_since(self) -> Seconds | None:
        """None: it does as it is told, and the first shard knows who waits."""
        return None

    def describe(self, now: Seconds) -> str:
        """Return what it waits for, and what it moves."""
        waits = f"the goodbyes of {sorted(self._goodbyes)}" if self.phase is Phase.LEFT else f"orders of rank {self.leader}"
        lines = [f"rank {self.rank}, a shard, waits for {waits}; its last update was {now - self._updated_at:.1f} s ago"]
        lines += self.story.tell_about(self.leader, now)
        for work, worker in sorted(self._moving):
            moves = "takes the gradient of" if work is Work.TAKE else "gives weights to"
            lines += [f"  it {moves} rank {worker}", *self.story.tell_about(worker, now)]
        return "\n".join(lines)

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
