"""An attached optimizer with a parameter server: the serving rank's handle, and a worker's."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from torch import nn
from torch.optim import Optimizer

from consensus.alike import PARTIAL
from consensus.buffers import BufferPolicy, averaged_buffers
from consensus.bundle import Bundle, share
from consensus.driver import Driver
from consensus.errors import ConfigError, DeadRanks
from consensus.flat import FlatModel
from consensus.handle import Handle
from consensus.protocol.messages import Message
from consensus.protocol.server import ServerEngine, check_push
from consensus.protocol.service import SERVER, Factor, PushMode, ServerRule
from consensus.protocol.shard import FollowingEngine, LeadingEngine, ShardedWorkerEngine
from consensus.protocol.worker import WorkerEngine
from consensus.pushed import PushedModel
from consensus.served import ServedModel
from consensus.transport.base import Transport
from consensus.types import Rank, Round, Seconds

_LOG = logging.getLogger("consensus")


class ServedHandle(Handle):
    """A rank of a parameter server system."""

    works: bool
    """Whether this rank computes gradients; a serving rank does not, and must not run the training loop."""

    servers: int
    """How many ranks serve a share of the model each."""

    @abstractmethod
    def send_all(self, message: Message) -> None:
        """Send an application message to every other rank, as long as there is a session."""

    @abstractmethod
    def resume(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint: model and optimizer have been put back, and nothing has been served, pushed or trained yet.

        Parameters
        ----------
        state : mapping
            What :meth:`engine_state` gave at the rank that decides, for all ranks alike.
        """

    def _agree(self) -> None:
        # Who lives is known after a collective call. Another rank's model would do for the transport, and be wrong.
        self.transport.gather(None)
        dead = [server for server in range(self.servers) if server not in self.transport.members]
        if dead:
            raise DeadRanks(
                f"rank {self.rank} cannot have the model that counts: it, or a share of it, was at ranks {dead}, which have "
                "died; start again, from a checkpoint if there is one"
            )
        # What is exchanged and no more: the server's counters and local buffers have seen no batch, and are nobody's.
        state = Bundle(self.flat)
        state.copy_weights(self.flat)
        for server in range(self.servers):
            for index in share(len(state.chunks), self.servers, server):
                self.transport.broadcast(state.chunks[index], server)
        self.flat.restore(state.bytes)

    def average(self) -> None:
        """See :meth:`Handle.average`; with a server it ends the session."""
        super().average()
        PARTIAL.discard(self.model)

    def _part(self) -> None:
        """The session is over, and of several servers each has a share of the model."""
        if self.servers > 1:
            PARTIAL.add(self.model)


class Gives(Protocol):
    """The model at a rank that gives weights to others."""

    def resume(self) -> None:
        """The model that it has now is the one to give."""


class ServingHandle(ServedHandle):
    """A rank that gives weights and gathers gradients: a server; with coded gradients the master and the edges.

    Attributes
    ----------
    engine : ServerEngine or FollowingEngine
        Decides.
    """

    engine: ServerEngine | FollowingEngine
    _parcel: Gives

    @property
    def lost(self) -> frozenset[Rank]:
        """Those that have died of the ranks that send gradients here."""
        return self.engine.lost

    @property
    def progress(self) -> Round:
        """Updates made, of an earlier life too."""
        return self.engine.round

    def engine_state(self) -> dict[str, Any]:
        """See :meth:`consensus.protocol.server.ServerEngine.state`."""
        return self.engine.state()

    def resume(self, state: Mapping[str, Any]) -> None:
        """See :meth:`ServedHandle.resume`."""
        self.engine.resume(state)
        self._parcel.resume()


class ServerHandle(ServingHandle):
    """A serving rank: its optimizer makes the updates, its model (or its share of it) is the one that counts.

    Attributes
    ----------
    engine : ServerEngine or FollowingEngine
        Decides; of several servers the first one does.
    """

    works = False

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        flat: FlatModel,
        transport: Transport,
        *,
        rule: ServerRule,
        push: PushMode,
        factor: Factor,
        servers: int,
        stall_warning: Seconds,
        stall_abort: Seconds,
        on_message: Callable[[Rank, Message], None] | None = None,
    ) -> None:
        super().__init__(model, optimizer, flat, transport)
        self.servers = servers
        rank, now, workers, others = transport.rank, transport.now(), range(servers, transport.size), range(1, servers)
        if rank != SERVER:
            self.engine = FollowingEngine(rank, SERVER, workers, transport.size)
        elif servers == 1:
            self.engine = ServerEngine(rank, workers, rule, push=push, factor=factor, now=now)
        else:
            self.engine = LeadingEngine(rank, workers, rule, followers=others, push=push, factor=factor, now=now)
        self._serving = True
        self._parcel = ServedModel(flat, optimizer, servers, rank)
        self._driver = Driver(
            self.engine,
            transport,
            self._parcel,
            stall_warning=stall_warning,
            stall_abort=stall_abort,
            on_message=on_message,
            on_round=self._count_round,
        )

    @property
    def decides(self) -> ServerEngine | None:
        """The engine that decides, if it is here."""
        return self.engine if isinstance(self.engine, ServerEngine) else None

    def serve(self, look: Callable[[], None] | None = None) -> None:
        """Serve until all workers have left.

        Parameters
        ----------
        look : callable, optional
            Called several times a second.

        Raises
        ------
        DeadRanks
            If all workers have died, or another server.
        """
        self.engine.begin(self.transport.now())
        self._driver.serve(look)
        self._serving = False
        self._part()
        decides = self.decides
        if decides is not None and decides.deserted:
            raise DeadRanks(
                f"rank {self.rank} serves nobody any more: all workers, ranks {list(decides.members)}, have died, "
                f"after {decides.round} updates; start again, from a checkpoint if there is one"
            )

    def send_all(self, message: Message) -> None:
        """See :meth:`ServedHandle.send_all`."""
        if self._serving:
            self._driver.send_all(message)

    def _step_begins(self, closure: bool) -> None:
        if not self._serving:
            raise ConfigError(
                "this rank has served and must not train as well: run the training loop only where handle.works is true"
            )

    def _step_ended(self) -> None:
        """The update is made."""

    def _pause(self) -> None:
        """The session has ended."""

    def _end(self) -> None:
        """The session has ended."""

    def _abandon(self) -> None:
        """Nobody waits for this rank any more, or everybody does, until the launcher ends the job."""


class WorkerHandle(ServedHandle):
    """A working rank: ``optimizer.step()`` pushes the gradient and comes back with newer weights.

    The step itself is made at the server. Here the gradients are put away before the optimizer would use them, so that it finds
    nothing to do; the numbers in its groups, which a scheduler may change, go along, and the server steps with their mean.

    Attributes
    ----------
    engine : WorkerEngine
        Decides.
    """

    works = True

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        flat: FlatModel,
        transport: Transport,
        *,
        rule: ServerRule,
        push: PushMode,
        servers: int,
        stall_warning: Seconds,
        stall_abort: Seconds,
        on_message: Callable[[Rank, Message], None] | None = None,
    ) -> None:
        super().__init__(model, optimizer, flat, transport)
        self.servers = servers
        self._rule = rule
        rank, size = transport.rank, transport.size
        self.engine = (
            WorkerEngine(rank, SERVER, size, push=push)
            if servers == 1
            else ShardedWorkerEngine(rank, range(servers), size, push=push)
        )
        self._over = False
        self._driver = Driver(
            self.engine,
            transport,
            PushedModel(flat, optimizer, servers),
            stall_warning=stall_warning,
            stall_abort=stall_abort,
            on_message=on_message,
            on_round=self._count_round,
            interrupted=(lambda: self.engine.interrupted) if push == "interrupt" else None,
        )

    @property
    def progress(self) -> Round:
        """The version of the weights that it has."""
        return self.engine.version

    def resume(self, state: Mapping[str, Any]) -> None:
        """See :meth:`ServedHandle.resume`."""
        self.engine.resume(state)

    def send_all(self, message: Message) -> None:
        """See :meth:`ServedHandle.send_all`."""
        if not self._over:
            self._driver.send_all(message)

    def _step_begins(self, closure: bool) -> None:
        if closure:
            raise ConfigError("a worker of a parameter server pushes gradients, but this step computes them in a closure")
        if self._over:
            raise ConfigError("this rank has left the parameter server (averaging or closing ends the session); attach again")
        if self._rule.uses_losses and self._loss is None:
            raise ConfigError(
                f"rule {self._rule.name!r} decides by the batches' losses: call handle.report_loss(loss.item()) before every "
                "optimizer.step()"
            )
        if self._unscale():
            self.engine.loss = float("nan") if self._loss is None else self._loss
            self._loss = None
            self._driver.exchange()
        for group in self.optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = None

    def _unscale(self) -> bool:
        """Do what GradScaler leaves to the kernels of fused optimizers, which have nothing to do here; false to skip the step."""
        found, scale = getattr(self.optimizer, "found_inf", None), getattr(self.optimizer, "grad_scale", None)
        if found is not None and found.item():
            return False
        if scale is not None:
            for parameter in (each for group in self.optimizer.param_groups for each in group["params"]):
                if parameter.grad is not None:
                    parameter.grad.div_(scale.to(parameter.grad.device))
        return True

    def _step_ended(self) -> None:
        """The server makes the steps."""

    def _pause(self) -> None:
        if not self._over:
            self._over = True
            self._part()
            self._driver.leave()
            self._driver.drain()

    def _end(self) -> None:
        self._pause()

    def _is_waited_for(self) -> bool:
        return not self._over

    def _abandon(self) -> None:
        if not self._over:
            self._over = True
            self._part()
            self._driver.abandon()


def served_handle(
    model: nn.Module,
    optimizer: Optimizer,
    flat: FlatModel,
    transport: Transport,
    *,
    rule: ServerRule,
    push: PushMode | None,
    factor: Factor,
    servers: int,
    **options: Any,
) -> ServerHandle | WorkerHandle:
    """The handle of this rank; all ranks have the same model by now.

    Parameters
    ----------
    model, optimizer, flat, transport
        As of :class:`consensus.handle.Handle`.
    rule : ServerRule
        Of the server.
    push : "wait", "interrupt", "pull" or None
        None: "wait" where the rule allows it, otherwise "pull".
    factor : callable
        The learning rate rule.
    servers : int
        How many ranks serve a share of the model each: ranks 0 to ``servers`` - 1.
    **options
        ``stall_warning``, ``stall_abort``, ``on_message``.

    Raises
    ------
    ConfigError
        If no rank is left to work, the rule does not suit those that are, or the model cannot be shared out.
    """
    if servers < 1 or servers >= transport.size:
        raise ConfigError(
            f"servers = {servers} with {transport.size} ranks: expected one or more that serve and one or more that work; start "
            "more, as in mpirun -n 3"
        )
    check_shares(flat, servers)
    push = default_push(rule) if push is None else push
    check_push(rule, push)
    rule.fit(transport.size - servers)
    if transport.rank < servers:
        return ServerHandle(model, optimizer, flat, transport, rule=rule, push=push, factor=factor, servers=servers, **options)
    return WorkerHandle(model, optimizer, flat, transport, rule=rule, push=push, servers=servers, **options)


def check_shares(flat: FlatModel, servers: int) -> None:
    """Raise :class:`~consensus.errors.ConfigError` if the model cannot be shared out to so many servers."""
    if servers > len(flat.chunks):
        raise ConfigError(
            f"servers = {servers}: the model has {flat.nbytes} bytes, expected enough for a share of each; use at most "
            f"{len(flat.chunks)} servers"
        )
    if servers > 1 and any(body != numel for body, (_, numel) in zip(flat.bodies, flat.layout, strict=True)):
        raise ConfigError(
            f"servers = {servers}: averaged buffers (BatchNorm statistics) are pooled as a whole, so a model that has some needs "
            'one server; use servers=1 (or buffers="local", if the statistics that the servers\' models began with will do)'
        )


def warn_of_local_buffers(model: nn.Module, buffers: BufferPolicy) -> None:
    """Say what local buffers come to at a rank that sees no batch."""
    if buffers == "local" and averaged_buffers(model, "average"):
        _LOG.warning(
            'buffers = "local": the server sees no batches, so its model keeps the statistics (BatchNorm\'s) that it began with, '
            'and is evaluated with them; buffers = "average" brings it those of the workers\' batches'
        )


def default_push(rule: ServerRule) -> PushMode:
    """How weights get to the workers if nobody says."""
    return "wait" if rule.synchronous else "pull"
