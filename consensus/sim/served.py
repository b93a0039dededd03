"""A parameter server and its workers on a virtual clock: real engines and rules, time models for steps, messages and transfers.

As in :mod:`consensus.sim.network` links do not contend, not even at the server, updates take no time, and a message is handled
when it arrives. A transfer begins when both ends have asked for it. A worker that is interrupted drops its step at once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeAlias

from consensus.errors import ConfigError, ProtocolError
from consensus.protocol.commands import (
    Apply,
    Broadcast,
    Command,
    Discard,
    Finish,
    GiveModel,
    Install,
    SendControl,
    StartStep,
    TakeModel,
)
from consensus.protocol.events import Control, Event, LeaveWanted, ModelGiven, StepDone
from consensus.protocol.messages import WIRE_BYTES, Message
from consensus.protocol.rounds import Phase, RoundRecord
from consensus.protocol.server import ServerEngine
from consensus.protocol.service import SERVER, Factor, PushMode, ServerRule
from consensus.protocol.shard import FollowingEngine, LeadingEngine, ShardedWorkerEngine
from consensus.protocol.story import Recorder
from consensus.protocol.worker import WorkerEngine
from consensus.sim.kernel import Kernel
from consensus.sim.network import OnRound, Stop
from consensus.sim.sites import Chunks, ServerSite, Site, StillServer, StillWorker, WorkerSite
from consensus.sim.worker import next_step
from consensus.timing import Link, Stream
from consensus.types import Rank, Seconds


class ServedNetwork:
    """A server, of one or more shards, and its workers.

    Parameters
    ----------
    rule : ServerRule
        Decides.
    streams : sequence of Stream
        How long the steps of the workers, the ranks after the servers, take.
    link : Link
        How long messages and transfers take.
    stop : callable
        Asked with (worker, its steps) after each: whether it leaves.
    push, factor
        As of :class:`consensus.protocol.server.ServerEngine`.
    server : ServerSite, optional
        The server's model; none by default.
    followers : sequence of ServerSite
        Those of further servers, which have a share of the model each.
    workers : sequence of WorkerSite, optional
        The workers' models.
    model_bytes, control_bytes : int
        Sizes for the link, bytes; weights and gradients are equally large.
    on_round : callable, optional
        Told (rank, record, seconds of the local step before) of each step of a worker, and of each update.
    recorders : sequence of callable, optional
        See :data:`consensus.protocol.story.Recorder`, one a rank.
    kernel : Kernel, optional
        The clock, if others schedule on it too.

    Attributes
    ----------
    engine : ServerEngine
        The server's; of several, the one's that decides.
    workers : list of WorkerEngine
        By worker.
    ended_at : list of float
        By rank, when it left, seconds; NaN before. Servers leave last.
    """

    def __init__(
        self,
        rule: ServerRule,
        streams: Sequence[Stream],
        link: Link,
        *,
        stop: Stop,
        push: PushMode,
        factor: Factor = lambda k, n: 1.0,
        server: ServerSite | None = None,
        followers: Sequence[ServerSite] = (),
        workers: Sequence[WorkerSite] | None = None,
        model_bytes: int = 0,
        control_bytes: int = WIRE_BYTES,
        on_round: OnRound | None = None,
        recorders: Sequence[Recorder] | None = None,
        kernel: Kernel | None = None,
    ) -> None:
        if min(model_bytes, control_bytes) < 0:
            raise ConfigError(f"model_bytes = {model_bytes}, control_bytes = {control_bytes}: expected 0 bytes or more")
        self.kernel = kernel if kernel is not None else Kernel()
        servers = 1 + len(followers)
        self.link, self.control_bytes = link, control_bytes
        self.share_bytes = -(-model_bytes // servers)
        self.stop, self.on_round = stop, on_round
        self.size = len(streams) + servers
        self.ended_at = [math.nan] * self.size
        ranks, now = range(servers, self.size), self.kernel.now
        if servers == 1:
            self.engine = ServerEngine(SERVER, ranks, rule, push=push, factor=factor, now=now)
            self.workers = [WorkerEngine(rank, SERVER, self.size, push=push) for rank in ranks]
        else:
            others = range(1, servers)
            self.engine = LeadingEngine(SERVER, ranks, rule, followers=others, push=push, factor=factor, now=now)
            self.workers = [ShardedWorkerEngine(rank, range(servers), self.size, push=push) for rank in ranks]
        sites: Sequence[WorkerSite] = workers if workers is not None else [StillWorker() for _ in ranks]
        recorded = recorders if recorders is not None else [None] * self.size
        self._server = _Server(self, self.engine, server if server is not None else StillServer(), recorded[0])
        self._nodes: list[_Node] = [self._server]
        for rank, follower in enumerate(followers, 1):
            self._nodes.append(_Server(self, FollowingEngine(rank, SERVER, ranks, self.size), follower, recorded[rank]))
        for engine, site, stream, recorder in zip(self.workers, sites, streams, recorded[servers:], strict=True):
            node = _Worker(self, engine, site, stream, recorder)
            self._nodes.append(node)
            self.kernel.at(self.kernel.now, node.begin, None)

    def run(self, until: Seconds = math.inf) -> None:
        """Run to the end of all ranks, or to a time.

        Raises
        ------
        ProtocolError
            If ranks wait for what will never come.
        """
        self.kernel.run(until)
        waiting = [node.engine for node in self._nodes if node.engine.phase is not Phase.FINISHED]
        if until == math.inf and waiting:
            told = "\n".join(engine.describe(self.kernel.now) for engine in waiting)
            raise ProtocolError(f"ranks {[engine.rank for engine in waiting]} wait, and nothing can happen any more\n{told}")

    def bytes_sent(self, rank: Rank) -> int:
        """Transfers and control messages of ``rank`` so far, bytes."""
        node = self._nodes[rank]
        return node.messages * self.control_bytes + node.models * self.share_bytes

    def send(self, sender: Rank, peer: Rank, message: Message) -> None:
        """Put a message on its way."""
        node = self._nodes[sender]
        node.messages += 1
        when = self.kernel.now + self.link.duration(sender, peer, self.control_bytes)
        self.kernel.at(when, self._nodes[peer].take, Control(sender, message))

    def start_if_agreed(self, giver: Rank, taker: Rank) -> None:
        """Let a transfer begin when it has been asked for at both ends."""
        one, other = self._nodes[giver], self._nodes[taker]
        if taker in one.giving and giver in other.taking:
            other.taking.discard(giver)
            when = self.kernel.now + self.link.duration(giver, taker, self.share_bytes)
            self.kernel.at(when, self._moved, (one, other, one.giving.pop(taker)))

    def _moved(self, argument: tuple[_Node, _Node, Chunks]) -> None:
        one, other, chunks = argument
        giver, taker = one.engine.rank, other.engine.rank
        for index, chunk in enumerate(chunks):
            memory = other.site.lend(giver, index)
            memory[:] = chunk
            one.site.release(taker, index)
            other.site.deliver(giver, index, memory)
        one.take(ModelGiven(taker))
        other.take(other.site.taken(giver))


_Engine: TypeAlias = ServerEngine | FollowingEngine | WorkerEngine


class _Node:
    """A rank: carries out what its engine commands."""

    def __init__(self, network: ServedNetwork, engine: _Engine, site: Site, recorder: Recorder | None) -> None:
        self.network, self.engine, self.site, self._recorder = network, engine, site, recorder
        self.giving: dict[Rank, Chunks] = {}
        self.taking: set[Rank] = set()
        self.messages = self.models = 0

    def take(self, event: Event) -> None:
        """Hand ``event`` to the engine and carry out what it commands."""
        now = self.network.kernel.now
        commands = self.engine.handle(event, now)
        if self._recorder is not None:
            self._recorder(now, event, commands)
        self.handled(event)
        for command in commands:
            self.carry_out(command)

    def handled(self, event: Event) -> None:
        """The engine has judged ``event``, and nothing of what it commands is done yet."""

    def carry_out(self, command: Command) -> None:
        """Do what both kinds of rank do."""
        network, rank = self.network, self.engine.rank
        if isinstance(command, SendControl):
            network.send(rank, command.peer, command.message)
        elif isinstance(command, GiveModel):
            self.models += 1
            self.giving[command.peer] = self.site.outgoing(command.peer)
            network.start_if_agreed(rank, command.peer)
        elif isinstance(command, TakeModel):
            self.taking.add(command.peer)
            network.start_if_agreed(command.peer, rank)
        elif isinstance(command, Broadcast):
            for peer in range(network.size):
                if peer != rank:
                    network.send(rank, peer, command.message)
        elif not isinstance(command, Finish):
            raise ProtocolError(f"rank {rank} cannot carry out {command}")


class _Server(_Node):
    """A serving rank."""

    engine: ServerEngine | FollowingEngine
    site: ServerSite
    _told: RoundRecord | None = None

    def handled(self, event: Event) -> None:
        network, record = self.network, self.engine.last
        if record is not self._told and record is not None and network.on_round is not None:
            self._told = record
            network.on_round(self.engine.rank, record, 0.0)

    def carry_out(self, command: Command) -> None:
        network = self.network
        if isinstance(command, Apply):
            self.take(self.site.apply(command.workers, command.factor))
        elif isinstance(command, Discard):
            self.site.discard(command.peer)
        else:
            super().carry_out(command)
            if isinstance(command, Finish):
                network.ended_at[self.engine.rank] = network.kernel.now


class _Worker(_Node):
    """A working rank."""

    engine: WorkerEngine
    site: WorkerSite

    def __init__(
        self, network: ServedNetwork, engine: WorkerEngine, site: WorkerSite, stream: Stream, recorder: Recorder | None
    ) -> None:
        super().__init__(network, engine, site, recorder)
        self._stream = stream
        self._began = 0.0
        self._step = 0

    def begin(self, _: object) -> None:
        """Begin to compute."""
        kernel = self.network.kernel
        self._began = kernel.now
        self._step += 1
        kernel.at(kernel.now + next_step(self._stream, self.engine.rank, self._step), self._computed, self._step)

    def _computed(self, step: int) -> None:
        if step == self._step:  # not one that was interrupted meanwhile
            self.engine.loss, self.engine.scale = self.site.step(step)
            self.take(StepDone())

    def take(self, event: Event) -> None:
        super().take(event)
        if self.engine.interrupted:
            super().take(StepDone())

    def carry_out(self, command: Command) -> None:
        if isinstance(command, Install):
            self.site.install()
        elif isinstance(command, StartStep):
            self._start()
        else:
            super().carry_out(command)

    def _start(self) -> None:
        network, engine, rank = self.network, self.engine, self.engine.rank
        assert engine.last is not None
        if network.on_round is not None:
            network.on_round(rank, engine.last, engine.last.opened_at - self._began)
        if network.stop(rank, engine.round):
            network.ended_at[rank] = network.kernel.now
            self._step += 1
            self.take(LeaveWanted())
        else:
            self.begin(None)
