"""Consensus SGD on an attached optimizer: after every step (or H of them) average with the fastest neighbours."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, Literal, Self

from torch import nn
from torch.optim import Optimizer

from consensus.driver import Driver
from consensus.errors import ConfigError
from consensus.flat import FlatModel
from consensus.handle import Handle
from consensus.protocol.decision import Rule
from consensus.protocol.messages import Message
from consensus.protocol.neighbour import NeighbourEngine, Weights
from consensus.recording.writer import EventWriter
from consensus.step_scale import ScaledStep, StepScale, factor
from consensus.transport.base import Transport
from consensus.types import Rank, Seconds

Order = Literal["adapt-combine", "combine-adapt"]

STUCK_AFTER: Seconds = 60.0
"""So long, by default, a partial rule waits in one round for a neighbour that does not come: longer than steps differ by."""


class NeighbourHandle(Handle):
    """An optimizer whose steps alternate with averaging among neighbours.

    ``order="adapt-combine"`` averages right after a step. ``"combine-adapt"`` averages right before the next training forward
    pass, so the gradient is taken at the averaged model, and the last step is not averaged any more: the same alternating
    sequence shifted by half a round.

    Pausing (to average over all ranks, or to end) means to leave as at the end of training: only that lets ranks which stand at
    different rounds meet without one waiting in a round for another that waits in a collective call. The next step opens a new
    session, a fresh engine on all ranks; the Leave messages have swept all channels clean in between.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        flat: FlatModel,
        transport: Transport,
        *,
        adjacency: Mapping[Rank, Collection[Rank]],
        rule: Rule,
        every: int,
        order: Order,
        weights: Weights,
        stall_warning: Seconds,
        stall_abort: Seconds,
        stuck_after: Seconds,
        on_message: Callable[[Rank, Message], None] | None = None,
        recorder: EventWriter | None = None,
        step_scale: StepScale = "none",
    ) -> None:
        super().__init__(model, optimizer, flat, transport)
        self._scaled = ScaledStep(optimizer) if step_scale == "participation" else None
        self.rule = rule
        self._adjacency = adjacency
        self._every = every
        self._weights = weights
        self._stall_warning, self._stall_abort, self._stuck_after = stall_warning, stall_abort, stuck_after
        self._on_message = on_message
        self._recorder = recorder
        self._steps = 0
        self._combines_first = order == "combine-adapt"
        self._combine_due = self._combines_first
        if self._combines_first:
            self._hooks.append(model.register_forward_pre_hook(_BeforeForward(self)))
        self._paused_at: Seconds | None = None
        self._driver: Driver[NeighbourEngine] | None = self._open()

    @property
    def engine(self) -> NeighbourEngine | None:
        """The engine of the current session, None while paused."""
        return None if self._driver is None else self._driver.engine

    def send_all(self, message: Message) -> None:
        """Send an application message (Progress, Stop) to every other rank; nothing while paused."""
        if self._driver is not None:
            self._driver.send_all(message)

    @property
    def lost(self) -> frozenset[Rank]:
        """See :attr:`Handle.lost`."""
        return frozenset() if self._driver is None else self._driver.engine.lost

    @property
    def steps(self) -> int:
        """Local steps taken; where rounds have several, a checkpoint may fall between them."""
        return self._steps

    def resume(self, steps: int) -> None:
        """Go on as after so many local steps; before the first one."""
        self._steps = steps
        self._combine_due = self._combines_first and steps % self._every == 0

    def _open(self) -> Driver[NeighbourEngine]:
        engine = NeighbourEngine(
            self.rank, self._adjacency, self.rule, weights=self._weights, stuck_after=self._stuck_after
        )
        if self._recorder is not None:
            self._recorder.begin(engine, weights=self._weights)
        return Driver(
            engine,
            self.transport,
            self.flat,
            stall_warning=self._stall_warning,
            stall_abort=self._stall_abort,
            on_message=self._on_message,
            before_mix=self._before_mix,
            on_round=self._count_round,
            recorder=None if self._recorder is None else self._recorder.record,
            step_began=self._paused_at,
        )

    def _before_mix(self) -> None:
        if self.before_change is not None:
            self.before_change()

    def _exchange(self) -> None:
        if self._driver is None:
            self._driver = self._open()
        self._driver.exchange()

    def _step_begins(self, closure: bool) -> None:
        if self._combine_due and not closure:
            raise ConfigError(
                'order="combine-adapt" averages right before a forward pass of the attached model in training mode, and none '
                "came since the last step; call the attached model itself (not a part or a copy of it, not after model.eval()), "
                'or use order="adapt-combine"'
            )
        if self._scaled is not None and self._driver is not None:
            engine = self._driver.engine
            self._scaled.begin(factor(engine.participation, engine.view.round))

    def _step_ended(self) -> None:
        if self._scaled is not None:
            self._scaled.end()
        self._steps += 1
        if self._steps % self._every == 0:
            if self._combines_first:
                self._combine_due = True
            else:
                self._exchange()

    def combine_before_forward(self) -> None:
        """Average if that is due; a forward pass in training mode is about to begin."""
        if self._combine_due and not self._lent:
            self._combine_due = False
            self._exchange()

    def _pause(self) -> None:
        driver = self._driver or self._open()
        driver.leave()
        driver.drain()
        self._driver = None
        self._paused_at = self.transport.now()

    def _end(self) -> None:
        # Even if paused: the other ranks may have gone on to a new session, which counts on this rank until it says goodbye.
        self._pause()

    def _is_waited_for(self) -> bool:
        return True

    def _abandon(self) -> None:
        self._driver = self._driver or self._open()
        self._driver.abandon()


class _BeforeForward:
    """The forward hook of combine-adapt. A copy of the model is another model: in it, the hook does nothing."""

    def __init__(self, handle: NeighbourHandle | None = None) -> None:
        self._handle = handle

    def __call__(self, module: nn.Module, args: Any) -> None:
        if self._handle is not None and module.training:
            self._handle.combine_before_forward()

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return type(self)()

    def __reduce__(self) -> tuple[type[Self], tuple[()]]:
        return type(self), ()
