"""The driver: carries out what an engine commands, on any transport. It decides nothing.

One loop serves every run: a training script's optimizer hooks, the experiments of run files, the tests on the in-process twin.
(The plan had it above the optimizer; it has to be below, because the optimizer's hooks *are* its only caller.)
"""

from __future__ import annotations

import atexit
import logging
import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, ClassVar, Generic, NamedTuple, Protocol, TypeVar

from consensus.errors import ConsensusError, StallError
from consensus.protocol.commands import (
    Apply,
    Broadcast,
    Command,
    Discard,
    DropModel,
    Finish,
    GiveModel,
    Install,
    Mix,
    SendControl,
    StartStep,
    SwapModel,
    TakeModel,
    WakeAt,
)
from consensus.protocol.events import Control, Event, LeaveWanted, ModelTaken, StepDone, Tick
from consensus.protocol.messages import Message, Progress, Stop
from consensus.protocol.rounds import Phase, RoundRecord
from consensus.protocol.story import Recorder
from consensus.transport.base import Bytes, Parcel, Transport
from consensus.transport.endings import ending
from consensus.transport.failures import JobEnded
from consensus.types import Rank, Round, Seconds

_COMPUTING = Phase.COMPUTING
_OVER = (_COMPUTING, Phase.LEFT, Phase.FINISHED)
"""What a round ends in: the next step, or, where others say when training is over, none."""
_FOR_THE_APPLICATION = frozenset({Progress, Stop})
LOOK_EVERY: Seconds = 0.1
"""How often, at least, a server's application is called."""

_LOG = logging.getLogger("consensus")


class Engine(Protocol):
    """What decides: of a neighbour exchange, of a parameter server, or of one of its workers."""

    phase: Phase
    last: RoundRecord | None

    @property
    def peers(self) -> tuple[Rank, ...]:
        """The ranks that models go to and come from."""

    @property
    def round(self) -> Round:
        """How many rounds have begun."""

    @property
    def waits_since(self) -> Seconds | None:
        """Since when it has waited, or, if it serves, kept somebody waiting; None where no time would be too long."""

    def handle(self, event: Event, now: Seconds) -> list[Command]:
        """Take one event and return what to do."""

    def describe(self, now: Seconds) -> str:
        """What is waited for, in words."""


class Mixer(Parcel, Protocol):
    """The parcel of a neighbour exchange, which also does the arithmetic; :class:`consensus.flat.FlatModel` is the one in use."""

    def begin(self) -> None:
        """Make the current model ready to be sent."""

    def expect(self, peer: Rank, weight: float | None, last: bool) -> None:
        """A model of ``peer`` is coming, counts for ``weight`` (None: known only at ``mix``), and may be the round's last."""

    def forget(self, peer: Rank) -> None:
        """The rest of ``peer``'s model will not come."""

    def mix(self, weights: tuple[tuple[Rank, float], ...]) -> None:
        """Average: x <- (1 - sum w_j) x + sum w_j x_j."""


class Served(Parcel, Protocol):
    """The parcel of a parameter server (:mod:`consensus.served`) or of a worker (:mod:`consensus.pushed`)."""

    def begin(self) -> None:
        """A step is done."""

    def taken(self, peer: Rank) -> Event:
        """All chunks of ``peer`` are here; what that means."""


class RoundTimes(NamedTuple):
    """Where one round's time went, seconds: the local step, waiting for others, and averaging arithmetic."""

    compute: Seconds
    wait: Seconds
    mix: Seconds


class _Timed:
    """A mixer whose arithmetic is timed on the transport's clock, so that waiting and mixing can be told apart."""

    def __init__(self, mixer: Mixer | Served, now: Callable[[], Seconds]) -> None:
        self._mixer = mixer
        self._now = now
        self.seconds = 0.0

    @property
    def chunks(self) -> Sequence[Bytes]:
        return self._mixer.chunks

    def incoming(self, peer: Rank) -> int:
        return self._mixer.incoming(peer)

    def outgoing(self, peer: Rank) -> Sequence[Bytes]:
        return self._mixer.outgoing(peer)

    def lend(self, peer: Rank, index: int) -> Bytes:
        return self._mixer.lend(peer, index)

    def deliver(self, peer: Rank, index: int, data: Bytes) -> None:
        begin = self._now()
        self._mixer.deliver(peer, index, data)
        self.seconds += self._now() - begin

    def release(self, peer: Rank, index: int) -> None:
        begin = self._now()
        self._mixer.release(peer, index)
        self.seconds += self._now() - begin


_E = TypeVar("_E", bound=Engine)


class Driver(Generic[_E]):
    """One rank's loop.

    Parameters
    ----------
    engine : Engine
        Decides.
    transport : Transport
        Acts on the world; it is connected here.
    mixer : Mixer or Served
        Holds the model; the latter for an engine of a parameter server.
    stall_warning : float
        After this many seconds of waiting in one round, and again each time as many have passed, what the rank waits for is
        logged as a warning; it goes on waiting. Seconds; ``inf`` for never.
    stall_abort : float
        After this many seconds of waiting in one round a :class:`~consensus.errors.StallError` is raised. A rank that computes
        does not wait, nor does one that has left, and a server only while a worker waits for it. Seconds; ``inf`` for never.
    on_message : callable, optional
        Called with (peer, message) for application messages (Progress, Stop); they may come whenever this rank is in a round.
    before_mix : callable, optional
        Called in every round that exchanges, before the averaged model begins to replace the own one.
    on_round : callable, optional
        Called with (record, times) after each round.
    recorder : callable, optional
        Called with (now, event, commands) for each event the engine has handled.
    step_began : float, optional
        When the first local step began, on the transport's clock; now by default.
    interrupted : callable, optional
        Asked while a step is stretched: whether it is of no use any more.
    """

    def __init__(
        self,
        engine: _E,
        transport: Transport,
        mixer: Mixer | Served,
        *,
        stall_warning: Seconds = 30.0,
        stall_abort: Seconds = math.inf,
        on_message: Callable[[Rank, Message], None] | None = None,
        before_mix: Callable[[], None] | None = None,
        on_round: Callable[[RoundRecord, RoundTimes], None] | None = None,
        recorder: Recorder | None = None,
        step_began: Seconds | None = None,
        interrupted: Callable[[], bool] | None = None,
    ) -> None:
        self.engine: _E = engine
        self._transport = transport
        self._now = transport.now
        self._mixer: Any = mixer
        self._timed = _Timed(mixer, transport.now)
        self._stall_warning, self._stall_abort = stall_warning, stall_abort
        self._on_message = on_message
        self._before_mix = before_mix
        self._on_round = on_round
        self._recorder = recorder
        self._interrupted = interrupted
        self._wake_at: Seconds | None = None
        self._replacing = False
        self._serves = self._drained = False
        self._counted: RoundRecord | None = None
        transport.connect(engine.peers, self._timed)
        self._step_began = transport.now() if step_began is None else step_began

    def exchange(self) -> RoundRecord:
        """Run one round: the local step is done; return when it is closed and mixed."""
        transport, timed, now = self._transport, self._timed, self._now
        missing = transport.pace(self.engine.round + 1, now() - self._step_began)
        if missing > 0:
            self._stretch(missing)
        opened = now()
        timed.seconds = 0.0
        self._replacing = False
        # What came while this rank computed is history by now; the round opens on the present state of the neighbours. A look may
        # hand out one message of each sender and leave the next ones, so one look is not enough: news of rounds long closed
        # would close this one as soon as it opens.
        while events := transport.poll():
            for event in events:
                self._feed(event)
        self._mixer.begin()
        self._feed(StepDone())
        if self.engine.phase not in _OVER:
            self._run_until(*_OVER)
        closed = now()
        record = self.engine.last
        assert record is not None
        if self._on_round is not None:
            self._on_round(record, RoundTimes(opened - self._step_began, closed - opened - timed.seconds, timed.seconds))
        self._step_began = now()
        return record

    def hear(self) -> None:
        """Take in what has come meanwhile, in the middle of a step."""
        for event in self._transport.poll():
            self._feed(event)

    def _stretch(self, missing: Seconds) -> None:
        transport, interrupted = self._transport, self._interrupted
        if interrupted is None:
            transport.sleep(missing)  # a rank that computes hears nothing
            return
        until = self._now() + missing
        while not interrupted() and self._now() < until:
            for event in transport.wait(until):
                self._feed(event)

    def serve(self, look: Callable[[], None] | None = None) -> None:
        """Serve until all other ranks have left, then free the transport.

        Parameters
        ----------
        look : callable, optional
            Called every now and then, every :data:`LOOK_EVERY` seconds at least.
        """
        self._serves, self._step_began = True, self._now()
        self._run_until(Phase.FINISHED, look=look)
        self._transport.disconnect()

    def send_all(self, message: Message) -> None:
        """Send an application message to every other rank."""
        self._broadcast(Broadcast(message))

    def leave(self) -> None:
        """Say goodbye. The other ranks go on without this one; it may do as it likes, but see :meth:`drain`."""
        self._feed(LeaveWanted())
        if self.engine.phase not in (Phase.LEFT, Phase.FINISHED):
            self._run_until(Phase.LEFT, Phase.FINISHED)

    def drain(self) -> None:
        """After :meth:`leave`: take in what the others still send until they have left as well, then free the transport."""
        if self.engine.phase is not Phase.FINISHED:
            self._run_until(Phase.FINISHED)
        self._transport.disconnect()
        self._drained = True

    def abandon(self) -> None:
        """Leave after an exception, without waiting for anybody; what the others still send is taken in when Python exits."""
        try:
            self.leave()
        except ConsensusError:
            _LOG.exception("rank %d could not leave in order after an exception", self._transport.rank)
            return
        # The channels must be empty when MPI is finalised, which comes after Python's own exit handlers.
        atexit.register(self._drain_at_exit)

    def _drain_at_exit(self) -> None:
        # An exception that nobody caught is to end the whole job now, not when the other ranks have finished.
        if not (self._drained or ending().failed()):
            # Whoever ends meanwhile has said why.
            with suppress(JobEnded):
                self.drain()

    def _run_until(self, *phases: Phase, look: Callable[[], None] | None = None) -> None:
        engine, wait, feed = self.engine, self._transport.wait, self._feed
        warn_at, abort_at = self._now() + self._stall_warning, self._abort_at()
        last = engine.last
        while True:
            until = min(warn_at, abort_at) if self._wake_at is None else min(warn_at, abort_at, self._wake_at)
            for event in wait(until if look is None else min(until, self._now() + LOOK_EVERY)):
                feed(event)
            if look is not None:
                look()
                if engine.last is not last:
                    last, warn_at = engine.last, self._now() + self._stall_warning
            if engine.phase in phases:
                return
            now = self._now()
            if self._wake_at is not None and now >= self._wake_at:
                self._wake_at = None
                feed(Tick())
                if engine.phase in phases:
                    return
            if now >= abort_at:
                abort_at = self._abort_at()
                if now >= abort_at:
                    raise self._stalled(now)
            if now >= warn_at:
                warn_at = now + self._stall_warning
                if engine.phase is not Phase.LEFT:
                    _LOG.warning("stalled, and goes on waiting:\n%s", engine.describe(now))

    def _abort_at(self) -> Seconds:
        """When the present wait is too long; where nobody waits, when to look again."""
        since = self.engine.waits_since
        return (self._now() if since is None else since) + self._stall_abort

    def _stalled(self, now: Seconds) -> StallError:
        return StallError(
            f"rank {self._transport.rank} has waited in one round for {self._stall_abort:g} s, which stall_abort allows\n"
            f"{self.engine.describe(now)}\n"
            "Look at what the ranks that are waited for do (are they stopped, swapping, on a host that does not answer?); a run "
            "with checkpoints goes on by consensus run FILE --resume latest. Where steps may take so long, raise stall_abort"
        )

    def _feed(self, event: Event) -> None:
        if type(event) is ModelTaken:
            event = self._mixer.taken(event.peer)
        if type(event) is Control and type(event.message) in _FOR_THE_APPLICATION:
            if self._on_message is not None:
                self._on_message(event.peer, event.message)
            return
        now = self._now()
        commands = self.engine.handle(event, now)
        if self._recorder is not None:
            self._recorder(now, event, commands)
        if self._serves and self.engine.last is not self._counted:
            self._count_update(now)
        for command in commands:
            if isinstance(command, SendControl):  # most are
                self._transport.send(command.peer, command.message)
            else:
                self._DO[type(command)](self, command)

    def _broadcast(self, command: Broadcast) -> None:
        transport = self._transport
        for peer in range(transport.size):
            if peer != transport.rank:
                transport.send(peer, command.message)

    def _swap(self, command: SwapModel) -> None:
        if command.last:
            self._replace()
        self._mixer.expect(command.peer, command.weight, command.last)
        self._transport.swap(command.peer, command.round, command.peer_round)

    def _drop(self, command: DropModel) -> None:
        self._mixer.forget(command.peer)

    def _mix(self, command: Mix) -> None:
        self._replace()
        begin = self._now()
        self._mixer.mix(command.weights)
        self._timed.seconds += self._now() - begin

    def _apply(self, command: Apply) -> None:
        begin = self._now()
        made = self._mixer.apply(command.workers, command.factor)
        self._timed.seconds += self._now() - begin
        self._feed(made)

    def _count_update(self, now: Seconds) -> None:
        record = self._counted = self.engine.last
        if self._on_round is not None and record is not None:
            mixed = self._timed.seconds
            self._on_round(record, RoundTimes(0.0, max(0.0, now - self._step_began - mixed), mixed))
        self._timed.seconds, self._step_began = 0.0, now

    def _give(self, command: GiveModel) -> None:
        self._transport.give(command.peer)

    def _take(self, command: TakeModel) -> None:
        self._transport.take(command.peer)

    def _discard(self, command: Discard) -> None:
        self._mixer.discard(command.peer)

    def _install(self, command: Install) -> None:
        begin = self._now()
        self._mixer.install()
        self._timed.seconds += self._now() - begin

    def _replace(self) -> None:
        if self._before_mix is not None and not self._replacing:
            self._before_mix()
        self._replacing = True

    def _wake(self, command: WakeAt) -> None:
        self._wake_at = command.when

    def _go_on(self, command: StartStep | Finish) -> None:
        """Nothing to do: the loop watches the engine's phase."""
        self._wake_at = None

    _DO: ClassVar[dict[type, Callable[..., None]]] = {
        Broadcast: _broadcast,
        SwapModel: _swap,
        DropModel: _drop,
        Mix: _mix,
        Apply: _apply,
        GiveModel: _give,
        TakeModel: _take,
        Discard: _discard,
        Install: _install,
        WakeAt: _wake,
        StartStep: _go_on,
        Finish: _go_on,
    }


