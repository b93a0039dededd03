"""Coded gradients on a virtual clock: master, edges and workers with real engines; time models for steps and transfers."""

from __future__ import annotations

from collections.abc import Sequence

from consensus.coding.layout import MASTER, Layout
from consensus.errors import ConfigError
from consensus.protocol.coded import CodedRule, CodedWorkerEngine, MasterEngine, RelayEngine
from consensus.protocol.commands import Command, Install
from consensus.protocol.events import Event, LeaveWanted
from consensus.protocol.messages import WIRE_BYTES
from consensus.protocol.rounds import Phase
from consensus.protocol.service import PushMode
from consensus.sim.kernel import Kernel
from consensus.sim.network import OnRound
from consensus.sim.nodes import LinkTimes, NodeNetwork, ServerNode, WorkerNode
from consensus.sim.sites import RelaySite, ServerSite, StillRelay, StillServer, StillWorker, WorkerSite
from consensus.timing import Stream
from consensus.types import Rank, Round


class CodedNetwork(NodeNetwork):
    """A master, edges, workers.

    Parameters
    ----------
    layout : Layout
        Who is what.
    master : CodedRule
        When what has come suffices at the master.
    edges : sequence of CodedRule
        The same at each edge that there is a rank for.
    streams : sequence of Stream
        How long the steps of the workers take, all parts of one together.
    link : LinkTimes
        How long messages and transfers take.
    limit : int
        Updates, after which training is over.
    push : "wait" or "interrupt"
        As of :class:`consensus.protocol.coded.CodedWorkerEngine`.
    sites : (ServerSite, sequence of RelaySite, sequence of WorkerSite), optional
        The models of master, edges and workers; none by default.
    model_bytes, payload_bytes, control_bytes : int
        Sizes for the link of the weights, of a coded gradient and of a message, bytes.
    on_round : callable, optional
        Told (rank, record, seconds of the local step before) of each step of a worker, combination of an edge, and update.
    kernel : Kernel, optional
        The clock, if others schedule on it too.

    Attributes
    ----------
    engine : MasterEngine
        The master's.
    """

    def __init__(
        self,
        layout: Layout,
        master: CodedRule,
        edges: Sequence[CodedRule],
        streams: Sequence[Stream],
        link: LinkTimes,
        *,
        limit: Round | None,
        push: PushMode,
        sites: tuple[ServerSite, Sequence[RelaySite], Sequence[WorkerSite]] | None = None,
        model_bytes: int = 0,
        payload_bytes: int = 0,
        control_bytes: int = WIRE_BYTES,
        on_round: OnRound | None = None,
        kernel: Kernel | None = None,
    ) -> None:
        if min(model_bytes, payload_bytes) < 0:
            raise ConfigError(f"model_bytes = {model_bytes}, payload_bytes = {payload_bytes}: expected 0 bytes or more")
        super().__init__(layout.size, link, control_bytes=control_bytes, on_round=on_round, kernel=kernel)
        self.layout, self.model_bytes, self.payload_bytes = layout, model_bytes, payload_bytes
        if sites is None:
            sites = StillServer(), [StillRelay(MASTER) for _ in edges], [StillWorker() for _ in streams]
        size, now = self.size, self.kernel.now
        down: PushMode = "wait" if layout.relayed else push  # edges have nothing to interrupt
        self.engine = MasterEngine(MASTER, layout.below, master, size=size, push=down, limit=limit, now=now)
        self.nodes.append(ServerNode(self, self.engine, sites[0]))
        for edge, rule, relay, own in zip(layout.edges, edges, sites[1], layout.workers, strict=False):
            self.nodes.append(_Relay(self, RelayEngine(edge, MASTER, own, rule, size=size, push=push, now=now), relay))
        self.above = {rank: layout.above(rank) for rank in range(1, size)}
        for rank, stream, worker in zip(range(layout.edges.stop, size), streams, sites[2], strict=True):
            engine = CodedWorkerEngine(rank, self.above[rank], MASTER, size, push=push)
            node = _Worker(self, engine, worker, stream, lambda rank, rounds: False)
            self.nodes.append(node)
            self.kernel.at(now, node.begin, None)

    def transfer_bytes(self, giver: Rank, taker: Rank) -> int:
        """Weights go down, coded gradients up."""
        return self.payload_bytes if self.above.get(giver) == taker else self.model_bytes

    def stop(self) -> None:
        """End training now."""
        if self.engine.phase is Phase.OPEN:
            self.nodes[0].take(LeaveWanted())


class _Relay(ServerNode):
    """An edge."""

    site: RelaySite

    def carry_out(self, command: Command) -> None:
        if isinstance(command, Install):
            self.site.install()
        else:
            super().carry_out(command)


class _Worker(WorkerNode):
    """A worker."""

    engine: CodedWorkerEngine

    def compute(self, step: int) -> float:
        return self.site.step(self.engine.version)

    def take(self, event: Event) -> None:
        was = self.engine.phase
        super().take(event)
        if self.engine.phase is not was and self.engine.phase in (Phase.LEFT, Phase.FINISHED) and was is not Phase.LEFT:
            self.end()
