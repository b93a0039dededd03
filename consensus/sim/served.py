"""A parameter server and its workers on a virtual clock: real engines and rules; time models for steps and transfers."""

from __future__ import annotations

from collections.abc import Sequence

from consensus.errors import ConfigError
from consensus.protocol.messages import WIRE_BYTES
from consensus.protocol.server import ServerEngine
from consensus.protocol.service import SERVER, Factor, PushMode, ServerRule
from consensus.protocol.shard import FollowingEngine, LeadingEngine, ShardedWorkerEngine
from consensus.protocol.story import Recorder
from consensus.protocol.worker import WorkerEngine
from consensus.sim.kernel import Kernel
from consensus.sim.network import OnRound, Stop
from consensus.sim.nodes import LinkTimes, NodeNetwork, ServerNode, WorkerNode
from consensus.sim.sites import ServerSite, StillServer, StillWorker, WorkerSite
from consensus.timing import Stream
from consensus.types import Rank


class ServedNetwork(NodeNetwork):
    """A server, of one or more shards, and its workers.

    Parameters
    ----------
    rule : ServerRule
        Decides.
    streams : sequence of Stream
        How long the steps of the workers, the ranks after the servers, take.
    link : LinkTimes
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
        link: LinkTimes,
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
        if model_bytes < 0:
            raise ConfigError(f"model_bytes = {model_bytes}: expected 0 bytes or more")
        servers = 1 + len(followers)
        super().__init__(len(streams) + servers, link, control_bytes=control_bytes, on_round=on_round, kernel=kernel)
        self.share_bytes = -(-model_bytes // servers)
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
        self.nodes.append(ServerNode(self, self.engine, server if server is not None else StillServer(), recorded[0]))
        for rank, follower in enumerate(followers, 1):
            self.nodes.append(ServerNode(self, FollowingEngine(rank, SERVER, ranks, self.size), follower, recorded[rank]))
        for engine, site, stream, recorder in zip(self.workers, sites, streams, recorded[servers:], strict=True):
            node = WorkerNode(self, engine, site, stream, stop, recorder)
            self.nodes.append(node)
            self.kernel.at(self.kernel.now, node.begin, None)

    def transfer_bytes(self, giver: Rank, taker: Rank) -> int:
        """A share of the model, or of a gradient."""
        return self.share_bytes
