"""The driver: carries out what an engine commands, on any transport. It decides nothing.

One loop serves every run: a training script's optimizer hooks, the experiments of run files, the tests on the in-process twin.
(The plan had it above the optimizer; it has to be below, because the optimizer's hooks *are* its only caller.)
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from typing import ClassVar, NamedTuple, Protocol

from consensus.protocol.commands import Broadcast, DropModel, Finish, Mix, SendControl, StartStep, SwapModel, WakeAt
from consensus.protocol.events import Control, Event, LeaveWanted, StepDone, Tick
from consensus.protocol.messages import Message, Progress, Stop
from consensus.protocol.neighbour import NeighbourEngine, Phase, RoundRecord
from consensus.protocol.story import Recorder
from consensus.transport.base import Bytes, Parcel, Transport
from consensus.types import Rank, Seconds

_COMPUTING = Phase.COMPUTING
_FOR_THE_APPLICATION = frozenset({Progress, Stop})
_LOG = logging.getLogger("consensus")


class Mixer(Parcel, Protocol):
    """A parcel that also does the arithmetic; :class:`consensus.flat.FlatModel` is the one in use."""

    def begin(self) -> None:
        """Make the current model ready to be sent."""

    def expect(self, peer: Rank, weight: float | None, last: bool) -> None:
        """A model of ``peer`` is coming, counts for ``weight`` (None: known only at ``mix``), and may be the round's last."""

    def forget(self, peer: Rank) -> None:
        """The rest of ``peer``'s model will not come."""

    def mix(self, weights: tuple[tuple[Rank, float], ...]) -> None:
        """Average: x <- (1 - sum w_j) x + sum w_j x_j."""


class RoundTimes(NamedTuple):
    """Where one round's time went, seconds: the local step, waiting for others, and averaging arithmetic."""

    compute: Seconds
    wait: Seconds
    mix: Seconds


class _Timed:
    """A mixer whose arithmetic is timed on the transport's clock, so that waiting and mixing can be told apart."""

    def __init__(self, mixer: Mixer, now: Callable[[], Seconds]) -> None:
        self._mixer = mixer
        self._now = now
        self.seconds = 0.0

    @property
    def chunks(self) -> Collection[Bytes]:
        return self._mixer.chunks

    def lend(self, index: int) -> Bytes:
        return self._mixer.lend(index)

    def deliver(self, peer: Rank, index: int, data: Bytes) -> None:
        begin = self._now()
        self._mixer.deliver(peer, index, data)
        self.seconds += self._now() - begin

    def release(self, peer: Rank, index: int) -> None:
        begin = self._now()
        self._mixer.release(peer, index)
        self.seconds += self._now() - begin


class Driver:
    """One rank's loop.

    Parameters
    ----------
    engine : NeighbourEngine
        Decides.
    transport : Transport
        Acts on the world; it is connected here.
    mixer : Mixer
        Holds the model.
    stall_warning : float
        After this many seconds of waiting in one round, and again each time as many have passed, what the rank waits for is
        logged as a warning; it goes on waiting. Seconds; ``inf`` for never.
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
    """

    def __init__(
        self,
        engine: NeighbourEngine,
        transport: Transport,
        mixer: Mixer,
        *,
        stall_warning: Seconds = 30.0,
        on_message: Callable[[Rank, Message], None] | None = None,
        before_mix: Callable[[], None] | None = None,
        on_round: Callable[[RoundRecord, RoundTimes], None] | None = None,
        recorder: Recorder | None = None,
        step_began: Seconds | None = None,
    ) -> None:
        self.engine = engine
        self._transport = transport
        self._now = transport.now
        self._mixer = mixer
        self._timed = _Timed(mixer, transport.now)
        self._stall_warning = stall_warning
        self._on_message = on_message
        self._before_mix = before_mix
        self._on_round = on_round
        self._recorder = recorder
        self._wake_at: Seconds | None = None
        self._replacing = False
        transport.connect(engine.view.neighbours, self._timed)  # type: ignore[arg-type]
        self._step_began = transport.now() if step_began is None else step_began

    def exchange(self) -> RoundRecord:
        """Run one round: the local step is done; return when it is closed and mixed."""
        transport, timed, now = self._transport, self._timed, self._now
        transport.pace(self.engine.view.round + 1, now() - self._step_began)
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
        if self.engine.phase is not _COMPUTING:
            self._run_until(_COMPUTING)
        closed = now()
        record = self.engine.last
        assert record is not None
        if self._on_round is not None:
            self._on_round(record, RoundTimes(opened - self._step_began, closed - opened - timed.seconds, timed.seconds))
        self._step_began = now()
        return record

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

    def _run_until(self, *phases: Phase) -> None:
        engine, wait, feed = self.engine, self._transport.wait, self._feed
        warn_at = self._now() + self._stall_warning
        while True:
            for event in wait(warn_at if self._wake_at is None else min(warn_at, self._wake_at)):
                feed(event)
            if engine.phase in phases:
                return
            now = self._now()
            if self._wake_at is not None and now >= self._wake_at:
                self._wake_at = None
                feed(Tick())
                if engine.phase in phases:
                    return
            if now >= warn_at:
                warn_at = now + self._stall_warning
                if engine.phase is not Phase.LEFT:
                    _LOG.warning("stalled, and goes on waiting:\n%s", engine.describe(now))

    def _feed(self, event: Event) -> None:
        if type(event) is Control and type(event.message) in _FOR_THE_APPLICATION:
            if self._on_message is not None:
                self._on_message(event.peer, event.message)
            return
        now = self._now()
        commands = self.engine.handle(event, now)
        if self._recorder is not None:
            self._recorder(now, event, commands)
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
        WakeAt: _wake,
        StartStep: _go_on,
        Finish: _go_on,
    }


