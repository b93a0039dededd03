"""Ranks that give and take models on a virtual clock: what a simulated parameter server and simulated coded gradients share.

As in :mod:`consensus.sim.network` links do not contend, not even at a server, updates take no time, and a message is handled
when it arrives. A transfer begins when both ends have asked for it. A worker that is interrupted drops its step at once.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Protocol

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
from consensus.protocol.story import Recorder
from consensus.protocol.worker import WorkerEngine
from consensus.sim.kernel import Kernel
from consensus.sim.network import OnRound, Stop
from consensus.sim.sites import Chunks, ServerSite, Site, WorkerSite
from consensus.sim.worker import next_step
from consensus.timing import Stream
from consensus.types import Rank, Seconds


class LinkTimes(Protocol):
    """How long what is sent takes; :class:`consensus.timing.Link` is one."""

    def duration(self, i: Rank, j: Rank, nbytes: int) -> Seconds:
        """Seconds from the start of a send of ``nbytes`` bytes from ``i`` until ``j`` has all of it."""


class Engine(Protocol):
    """What decides at a rank."""

    rank: Rank
    phase: Phase
    last: RoundRecord | None

    def handle(self, event: Event, now: Seconds) -> list[Command]:
        """Take one event and return what to do."""

    def describe(self, now: Seconds) -> str:
        """What is waited for."""


class NodeNetwork(ABC):
    """Ranks, what they send each other, and the clock.

    Parameters
    ----------
    size : int
        Number of ranks; whoever makes the network puts as many nodes into ``nodes``.
    link : LinkTimes
        How long messages and transfers take.
    control_bytes : int
        Size of a message, bytes.
    on_round : callable, optional
        Told (rank, record, seconds of the local step before) of each round of a rank.
    kernel : Kernel, optional
        The clock, if others schedule on it too.

    Attributes
    ----------
    ended_at : list of float
        By rank, when it left, seconds; NaN before.
    """

    nodes: list[Node]

    def __init__(
        self,
        size: int,
        link: LinkTimes,
        *,
        control_bytes: int = WIRE_BYTES,
        on_round: OnRound | None = None,
        kernel: Kernel | None = None,
    ) -> None:
        if control_bytes < 0:
            raise ConfigError(f"control_bytes = {control_bytes}: expected 0 bytes or more")
        self.kernel = kernel if kernel is not None else Kernel()
        self.size, self.link, self.control_bytes, self.on_round = size, link, control_bytes, on_round
        self.ended_at = [math.nan] * size
        self.nodes = []

    @abstractmethod
    def transfer_bytes(self, giver: Rank, taker: Rank) -> int:
        """Size of what ``giver`` gives ``taker``, bytes."""

    def run(self, until: Seconds = math.inf) -> None:
        """Run to the end of all ranks, or to a time.

        Raises
        ------
        ProtocolError
            If ranks wait for what will never come.
        """
        self.kernel.run(until)
        waiting = [node.engine for node in self.nodes if node.engine.phase is not Phase.FINISHED]
        if until == math.inf and waiting:
            told = "\n".join(engine.describe(self.kernel.now) for engine in waiting)
            raise ProtocolError(f"ranks {[engine.rank for engine in waiting]} wait, and nothing can happen any more\n{told}")

    def bytes_sent(self, rank: Rank) -> int:
        """Transfers and control messages of ``rank`` so far, bytes."""
        node = self.nodes[rank]
        return node.messages * self.control_bytes + node.given

    def send(self, sender: Rank, peer: Rank, message: Message) -> None:
        """Put a message on its way."""
        node = self.nodes[sender]
        node.messages += 1
        when = self.kernel.now + self.link.duration(sender, peer, self.control_bytes)
        self.kernel.at(when, self.nodes[peer].take, Control(sender, message))

    def start_if_agreed(self, giver: Rank, taker: Rank) -> None:
        """Let a transfer begin when it has been asked for at both ends."""
        one, other = self.nodes[giver], self.nodes[taker]
        if taker in one.giving and giver in other.taking:
            other.taking.discard(giver)
            when = self.kernel.now + self.link.duration(giver, taker, self.transfer_bytes(giver, taker))
            self.kernel.at(when, self._moved, (one, other, one.giving.pop(taker)))

    def _moved(self, argument: tuple[Node, Node, Chunks]) -> None:
        one, other, chunks = argument
        giver, taker = one.engine.rank, other.engine.rank
        for index, chunk in enumerate(chunks):
            memory = other.site.lend(giver, index)
            memory[:] = chunk
            one.site.release(taker, index)
            other.site.deliver(giver, index, memory)
        one.take(ModelGiven(taker))
        other.take(other.site.taken(giver))


class Node:
    """A rank: carries out what its engine commands."""

    def __init__(self, network: NodeNetwork, engine: Engine, site: Site, recorder: Recorder | None = None) -> None:
        self.network, self.engine, self.site, self._recorder = network, engine, site, recorder
        self.giving: dict[Rank, Chunks] = {}
        self.taking: set[Rank] = set()
        self.messages = self.given = 0

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
            self.given += network.transfer_bytes(rank, command.peer)
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


class ServerNode(Node):
    """A serving rank."""

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


class WorkerNode(Node):
    """A working rank."""

    engine: WorkerEngine
    site: WorkerSite

    def __init__(
        self,
        network: NodeNetwork,
        engine: WorkerEngine,
        site: WorkerSite,
        stream: Stream,
        stop: Stop,
        recorder: Recorder | None = None,
    ) -> None:
        super().__init__(network, engine, site, recorder)
        self._stream, self._stop = stream, stop
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
            self.engine.loss = self.compute(step)
            self.take(StepDone())

    def compute(self, step: int) -> float:
        """Do what the ``step``-th step does; return what :meth:`WorkerSite.step` does."""
        return self.site.step(step)

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
        if self._stop(rank, engine.round):
            self.end()
            self.take(LeaveWanted())
        else:
            self.begin(None)

    def end(self) -> None:
        """What is under way is not to be finished."""
        self.network.ended_at[self.engine.rank] = self.network.kernel.now
        self._step += 1
