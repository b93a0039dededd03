"""An attached optimizer with coded gradients: the master, an edge, a worker."""

from __future__ import annotations

import hashlib
import math
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from consensus.alike import flatten, start_alike
from consensus.coded_models import CodedWorkerModel, MasterModel, OnUpdate, RelayModel
from consensus.coding.gradient_code import GradientCode
from consensus.coding.layout import MASTER, Layout
from consensus.driver import Driver
from consensus.errors import ConfigError
from consensus.flat import FlatModel
from consensus.payload import Payload
from consensus.protocol.coded import CodedRule, CodedWorkerEngine, MasterEngine, RelayEngine
from consensus.protocol.messages import Message
from consensus.protocol.rounds import Phase
from consensus.protocol.service import PushMode
from consensus.rules.coded import Sufficient
from consensus.serving import ServedHandle, ServingHandle
from consensus.transport.base import Transport
from consensus.types import Rank, Round, Seconds

PartLoss: TypeAlias = Callable[[int, int], tuple[Tensor, int]]
"""``part_loss(step, part)``: the sum of the losses of that part's samples at that step, and how many samples these are."""


class Share(NamedTuple):
    """The parts that the worker ``rank`` computes, and what each is multiplied by."""

    rank: Rank
    parts: tuple[int, ...]
    coefficients: list[float]


def share_of(code: GradientCode, layout: Layout, rank: Rank) -> Share:
    """What a working rank computes."""
    seat = layout.seat(rank)
    if seat is None:
        raise ConfigError(f"rank {rank} is no worker")
    return Share(rank, code.assignment(*seat), code.coefficients(*seat).tolist())


class CodedHandle(ServedHandle):
    """A rank of a system with coded gradients; :meth:`train` is its whole training.

    Attributes
    ----------
    code : GradientCode
        Who computes what.
    layout : Layout
        Which rank is what.
    """

    works = False
    servers = 1

    def __init__(self, model: nn.Module, optimizer: Optimizer, flat: FlatModel, transport: Transport, code: GradientCode) -> None:
        super().__init__(model, optimizer, flat, transport)
        self.code = code
        self.layout = Layout(code.workers_per_edge, relayed=not code.direct)
        self._trained = False
        self._driver: Driver[Any]

    def train(
        self,
        part_loss: PartLoss,
        *,
        steps: Round | None = None,
        until: Callable[[], bool] | None = None,
        on_update: OnUpdate | None = None,
    ) -> None:
        """Train; all ranks call it with the same arguments, and each does what it is for. Returns when training is over.

        The master makes ``steps`` updates, each with the exact gradient of all parts. Replicas of a part must compute the same:
        what ``part_loss`` draws from torch's generator is seeded here by (step, part); which samples a step takes is its own
        affair. Afterwards only the master has the newest model; :meth:`average` gives it to all.

        Parameters
        ----------
        part_loss : callable
            See :data:`PartLoss`; called on workers only. Must not use or clear the parameters' gradients.
        steps : int, optional
            Updates to make.
        until : callable, optional
            Asked on the master, several times a second: whether to stop.
        on_update : callable, optional
            Called on the master after each update, with (mean loss, samples, residual); a scheduler can be advanced here.

        Raises
        ------
        ConfigError
            If nothing would end training, or this rank has trained already.
        CodingError
            On the master, if so many ranks have left that no gradient can be decoded any more.
        NonFiniteLoss
            On a worker, if a gradient has a NaN or an infinity in it.
        """
        if steps is None and until is None:
            raise ConfigError("train: nothing would end it; give steps=1000, or until=a function that says so")
        if steps is not None and (isinstance(steps, bool) or not isinstance(steps, int) or steps < 1):
            raise ConfigError(f"steps = {steps!r}, expected a whole number of updates, 1 or more")
        if self._trained:
            raise ConfigError("train: this session is over; attach again to train on")
        self._trained = True
        self._train(part_loss, steps, until, on_update)

    @abstractmethod
    def _train(
        self, part_loss: PartLoss, steps: Round | None, until: Callable[[], bool] | None, on_update: OnUpdate | None
    ) -> None:
        """Do this rank's share."""

    def send_all(self, message: Message) -> None:
        """See :meth:`ServedHandle.send_all`."""
        if not self._trained:
            self._driver.send_all(message)

    def _step_begins(self, closure: bool) -> None:
        raise ConfigError("the master alone makes steps, inside handle.train(part_loss); call no optimizer.step() of your own")

    def _step_ended(self) -> None:
        """The update is made."""

    def _pause(self) -> None:
        if not self._trained:
            raise ConfigError("call handle.train(part_loss, steps=...) on all ranks first; until then all models are alike")

    def _end(self) -> None:
        # Without training, or after an exception in it that somebody has caught, this rank has not left yet.
        if self._driver.engine.phase is not Phase.FINISHED:
            self._trained = True
            self._driver.leave()
            self._driver.drain()

    def _is_waited_for(self) -> bool:
        return self._driver.engine.phase is not Phase.FINISHED

    def _abandon(self) -> None:
        if self._driver.engine.phase is not Phase.FINISHED:
            self._trained = True
            self._driver.abandon()

    def _rule(self, layer: Any, first: Rank, approximate: bool) -> CodedRule:
        return Sufficient(layer, first, approximate)


class MasterHandle(ServingHandle, CodedHandle):
    """The rank whose model counts, and whose optimizer makes the updates.

    Attributes
    ----------
    engine : MasterEngine
        Decides.
    """

    engine: MasterEngine
    _parcel: MasterModel

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        flat: FlatModel,
        transport: Transport,
        code: GradientCode,
        *,
        payload: Payload,
        push: PushMode,
        approximate: bool,
        stall_warning: Seconds,
        stall_abort: Seconds,
        on_message: Callable[[Rank, Message], None] | None = None,
    ) -> None:
        super().__init__(model, optimizer, flat, transport, code)
        below = self.layout.below
        self.engine = MasterEngine(
            MASTER,
            below,
            self._rule(code.master, below.start, approximate),
            size=transport.size,
            push="wait" if self.layout.relayed else push,
            limit=None,
            now=transport.now(),
        )
        self._serving = False
        self._parcel = MasterModel(flat, payload, code.master, below.start, approximate, optimizer)
        self._driver = Driver(
            self.engine,
            transport,
            self._parcel,
            stall_warning=stall_warning,
            stall_abort=stall_abort,
            on_message=on_message,
            on_round=self._count_round,
        )

    def engine_state(self) -> dict[str, Any]:
        """See :meth:`consensus.protocol.server.ServerEngine.state`; and how exact the updates were."""
        return {**super().engine_state(), "worst_residual": self.worst_residual}

    def resume(self, state: Mapping[str, Any]) -> None:
        """See :meth:`ServedHandle.resume`."""
        super().resume(state)
        self._parcel.worst_residual = state["worst_residual"]

    @property
    def worst_residual(self) -> float:
        """How far from exact a decoded gradient was at most, 0 to rounding."""
        return self._parcel.worst_residual

    def _train(
        self, part_loss: PartLoss, steps: Round | None, until: Callable[[], bool] | None, on_update: OnUpdate | None
    ) -> None:
        engine = self.engine
        engine.limit = steps

        def updated(loss: float, samples: int, residual: float) -> None:
            engine.loss = loss
            if on_update is not None:
                on_update(loss, samples, residual)
            if until is not None and until():
                engine.limit = engine.round + 1  # this very update is the last

        def look() -> None:
            if until is not None and engine.phase is Phase.OPEN and until():
                self._driver.leave()

        self._parcel.on_update = updated
        engine.begin(self.transport.now())
        self._serving = True
        self._driver.serve(look)
        self._serving = False

    def _step_begins(self, closure: bool) -> None:
        if not self._serving:
            super()._step_begins(closure)

    def send_all(self, message: Message) -> None:
        """See :meth:`ServedHandle.send_all`."""
        if self._serving and self.engine.phase is Phase.OPEN:
            self._driver.send_all(message)


class RelayHandle(ServingHandle, CodedHandle):
    """An edge.

    Attributes
    ----------
    engine : RelayEngine
        Decides.
    """

    engine: RelayEngine
    _parcel: RelayModel

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        flat: FlatModel,
        transport: Transport,
        code: GradientCode,
        *,
        payload: Payload,
        push: PushMode,
        approximate: bool,
        stall_warning: Seconds,
        stall_abort: Seconds,
        on_message: Callable[[Rank, Message], None] | None = None,
    ) -> None:
        super().__init__(model, optimizer, flat, transport, code)
        edge = self.layout.edges.index(transport.rank)
        own, layer = self.layout.workers[edge], code.edges[edge]
        rule = self._rule(layer, own.start, approximate)
        self.engine = RelayEngine(transport.rank, MASTER, own, rule, size=transport.size, push=push, now=transport.now())
        self._parcel = RelayModel(flat, payload, layer, own.start, approximate)
        self._driver = Driver(
            self.engine,
            transport,
            self._parcel,
            stall_warning=stall_warning,
            stall_abort=stall_abort,
            on_message=on_message,
            on_round=self._count_round,
        )

    def _train(
        self, part_loss: PartLoss, steps: Round | None, until: Callable[[], bool] | None, on_update: OnUpdate | None
    ) -> None:
        self.engine.begin(self.transport.now())
        self._driver.serve()


class CodedWorkerHandle(CodedHandle):
    """A worker.

    Attributes
    ----------
    engine : CodedWorkerEngine
        Decides.
    share : Share
        The parts whose gradients it computes.
    """

    works = True

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        flat: FlatModel,
        transport: Transport,
        code: GradientCode,
        *,
        payload: Payload,
        push: PushMode,
        approximate: bool,
        stall_warning: Seconds,
        stall_abort: Seconds,
        on_message: Callable[[Rank, Message], None] | None = None,
    ) -> None:
        super().__init__(model, optimizer, flat, transport, code)
        rank = transport.rank
        self.share = share_of(code, self.layout, rank)
        self.engine = CodedWorkerEngine(rank, self.layout.above(rank), MASTER, transport.size, push=push)
        self._parcel = CodedWorkerModel(flat, payload)
        self._driver = Driver(
            self.engine,
            transport,
            self._parcel,
            stall_warning=stall_warning,
            stall_abort=stall_abort,
            on_message=on_message,
            on_round=self._count_round,
            interrupted=lambda: self.engine.interrupted,
        )

    def resume(self, state: Mapping[str, Any]) -> None:
        """See :meth:`ServedHandle.resume`."""
        self.engine.resume(state)

    def _train(
        self, part_loss: PartLoss, steps: Round | None, until: Callable[[], bool] | None, on_update: OnUpdate | None
    ) -> None:
        engine, driver = self.engine, self._driver

        def useless() -> bool:
            driver.hear()
            return engine.interrupted

        while engine.phase is Phase.COMPUTING:
            loss = encode(self._parcel, self.optimizer, part_loss, self.share, engine.version, useless)
            engine.loss = math.nan if loss is None else loss
            driver.exchange()
        driver.drain()


def encode(
    parcel: CodedWorkerModel,
    optimizer: Optimizer,
    part_loss: PartLoss,
    share: Share,
    step: int,
    useless: Callable[[], bool],
) -> float | None:
    """Compute a worker's coded gradient of the weights that it has.

    Each loss is multiplied by its part's coefficient before it is differentiated, and gradients add up where they always do: so
    coding costs no pass over them.

    Parameters
    ----------
    parcel : CodedWorkerModel
        Takes it.
    optimizer : Optimizer
        Of the model.
    part_loss : callable
        See :data:`PartLoss`.
    share : Share
        What this worker computes.
    step : int
        The weights' version.
    useless : callable
        Asked before each part: whether to stop, because nothing of it is wanted any more.

    Returns
    -------
    float or None
        The mean loss of the worker's samples; None if it stopped.
    """
    optimizer.zero_grad()
    total = samples = plain = computed = 0.0
    on_cpu = all(parameter.device.type == "cpu" for group in optimizer.param_groups for parameter in group["params"])
    # torch.manual_seed goes through all kinds of accelerators, which takes as long as a small part's gradient.
    seed = torch.default_generator.manual_seed if on_cpu else torch.manual_seed
    with _own_generator():
        for part, coefficient in zip(share.parts, share.coefficients, strict=True):
            if useless():
                return None
            seed(seed_of(step, part))
            loss, count = part_loss(step, part)
            torch.autograd.backward(loss * coefficient)
            value = loss.item()
            total, samples = total + coefficient * value, samples + coefficient * count
            plain, computed = plain + value, computed + count
    parcel.encode(total, samples, lambda: f"the gradient of rank {share.rank} at step {step}, of parts {list(share.parts)},")
    optimizer.zero_grad()
    return plain / max(computed, 1.0)


def seed_of(step: int, part: int) -> int:
    """The seed of torch's generator for a part at a step."""
    digest = hashlib.blake2b(f"{step} {part}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


@contextmanager
def _own_generator() -> Iterator[None]:
    """What a worker draws for itself does not depend on which parts it has."""
    before = torch.get_rng_state()
    try:
        yield
    finally:
        torch.set_rng_state(before)


def attach_coded(
    model: nn.Module,
    optimizer: Optimizer,
    *,
    code: GradientCode,
    buffers: Literal["average", "local"],
    transport: Transport,
    payload: str,
    push: PushMode,
    approximate: bool,
    any_kappa: bool,
    **options: Any,
) -> CodedHandle:
    """Attach with coded gradients, see :func:`consensus.attach`. Collective.

    Parameters
    ----------
    model, optimizer, buffers, transport
        As of :func:`consensus.attach`.
    code : GradientCode
        Who computes what.
    payload : str
        In which dtype coded gradients travel.
    push : "wait" or "interrupt"
        Whether a worker finishes its parts when newer weights have come.
    approximate : bool
        Whether to go on with inexact gradients when too few ranks are left for exact ones.
    any_kappa : bool
        Whether a payload will do that amplified rounding errors spoil.
    **options
        ``stall_warning``, ``stall_abort``, ``on_message``.

    Raises
    ------
    ConfigError
        If the code does not suit the ranks, the payload not the code, or the model cannot be coded.
    """
    check_coded(code, transport.size, payload, push, any_kappa)
    flat = flatten(model, optimizer, buffers)
    if any(body != numel for body, (_, numel) in zip(flat.bodies, flat.layout, strict=True)):
        raise ConfigError(
            "averaged buffers (BatchNorm statistics) come from batches and cannot be decoded from combinations; use "
            'buffers="local", or a model without them'
        )
    agreed = {"model": flat.signature, "code": _signature(code), "payload": payload, "push": push, "approximate": approximate}
    start_alike(transport, flat, agreed)
    layout, rank = Layout(code.workers_per_edge, relayed=not code.direct), transport.rank
    kind = MasterHandle if rank == MASTER else RelayHandle if rank in layout.edges else CodedWorkerHandle
    return kind(
        model, optimizer, flat, transport, code, payload=Payload(flat, payload), push=push, approximate=approximate, **options
    )


def _signature(code: GradientCode) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for edge, workers in enumerate(code.workers_per_edge):
        for worker in range(workers):
            digest.update(repr(code.assignment(edge, worker)).encode())
            digest.update(code.coefficients(edge, worker).tobytes())
    return f"{type(code).__name__} of {list(code.workers_per_edge)} workers, {code.parts} parts ({digest.hexdigest()})"


def check_coded(code: GradientCode, size: int, payload: str, push: PushMode, any_kappa: bool) -> None:
    """Make sure that a code suits the ranks and the payload; raises ConfigError."""
    if push not in ("wait", "interrupt"):
        raise ConfigError(f"push = {push!r}: expected 'wait' or 'interrupt': with coded gradients, weights are not asked for")
    layout = Layout(code.workers_per_edge, relayed=not code.direct)
    if layout.size != size:
        edges = f"{len(layout.edges)} edges, " if layout.relayed else ""
        raise ConfigError(
            f"the code is for {layout.size} ranks (a master, {edges}{sum(code.workers_per_edge)} workers), but there are {size}; "
            f"start {layout.size}, or change workers_per_edge"
        )
    code.check_dtype(payload, allow=any_kappa)
