"""One rank of a simulated network: it carries out what its engine commands, and takes its steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from consensus.errors import ConfigError, ProtocolError
from consensus.protocol.commands import Broadcast, Command, DropModel, Finish, Mix, SendControl, StartStep, SwapModel, WakeAt
from consensus.protocol.events import Control, Event, LeaveWanted, ModelSwapped, StepDone, Tick
from consensus.protocol.messages import Message, record
from consensus.protocol.neighbour import NeighbourEngine
from consensus.timing import Stream
from consensus.types import Rank, Round, Seconds

if TYPE_CHECKING:
    from consensus.protocol.story import Recorder
    from consensus.sim.network import Network


_STEP_DONE, _TICK, _LEAVE = StepDone(), Tick(), LeaveWanted()


class Line:
    """What a worker knows of the way to a neighbour."""

    __slots__ = ("control", "model", "peer", "take")

    def __init__(self, peer: Worker, control: Seconds, model: Seconds) -> None:
        self.peer, self.control, self.model = peer, control, model
        self.take = peer.taking


class Worker:
    """One rank.

    Parameters
    ----------
    network : Network
        Where it is.
    engine : NeighbourEngine
        Decides.
    stream : Stream
        How long its local steps take.

    Attributes
    ----------
    messages, models : int
        How many it has sent.
    """

    __slots__ = (
        "_began", "_duration", "_handle", "_kernel", "_letter", "_network", "_said", "_steps", "_stream", "_wake_at", "apart",
        "asked", "delay", "engine", "lines", "messages", "models", "rank", "slow", "swapped", "taking",
    )  # fmt: skip

    def __init__(self, network: Network, engine: NeighbourEngine, stream: Stream) -> None:
        self._network, self._kernel, self._stream = network, network.kernel, stream
        self.rank, self.engine = engine.rank, engine
        self._handle: Callable[[Event, Seconds], list[Command]] = engine.handle
        self.messages = self.models = 0
        # One object each for all neighbours: in large networks what is in no cache is what takes time.
        self.taking: Callable[[Event], None] = self.take
        self.swapped = ModelSwapped(self.rank)
        self.asked: dict[Rank, SwapModel] = {}
        self.lines: dict[Rank, Line] = {}
        self._said: Message | None = None
        self._letter: Control | None = None
        self._began = self._duration = 0.0
        self._steps = 0
        self._wake_at: Seconds | None = None

    def connect(self, workers: Sequence[Worker]) -> None:
        """Learn how far the others are."""
        network, link, rank = self._network, self._network.link, self.rank
        for peer in self.engine.view.neighbours:
            times = (link.duration(rank, peer, nbytes) for nbytes in (network.control_bytes, network.model_bytes))
            self.lines[peer] = Line(workers[peer], *(network.times.setdefault(seconds, seconds) for seconds in times))
        self.delay = link.latency + network.control_bytes / link.bandwidth
        self.slow: dict[Seconds, list[Rank]] = {}
        for edge in link.slow:
            if rank in edge:
                peer = edge[0] + edge[1] - rank
                self.slow.setdefault(link.duration(rank, peer, network.control_bytes), []).append(peer)
        self.apart = {rank}.union(*self.slow.values())

    def record(self, recorder: Recorder) -> None:
        """Tell ``recorder`` of all that the engine handles."""
        handle = self.engine.handle

        def recorded(event: Event, now: Seconds) -> list[Command]:
            commands = handle(event, now)
            recorder(now, event, commands)
            return commands

        self._handle = recorded

    # -- steps ----------------------------------------------------------------------------------------------------------

    def begin(self, _: object) -> None:
        """Begin to compute."""
        kernel = self._kernel
        self._began, self._steps = kernel.now, 0
        self._duration = duration = next_step(self._stream, self.rank, self.engine.view.round + 1)
        if self._network.combines_first:
            kernel.at(kernel.now + duration, self.taking, _STEP_DONE)
        else:
            self._compute()

    def _compute(self) -> None:
        when = self._began + self._duration * (self._steps + 1) / self._network.every
        self._kernel.at(when, self._computed, None)

    def _computed(self, _: object) -> None:
        network = self._network
        rounds = self.engine.view.round
        self._steps += 1
        network.plant.step(self.rank, rounds + 1)
        if self._steps == network.every:
            self.take(_STEP_DONE)
        elif network.stop(self.rank, rounds):
            self._leave()
        else:
            self._compute()

    def _start(self, command: StartStep) -> None:
        """Go on after a round. It is the engine's last command, for it has not been asked to leave."""
        network, rank, record = self._network, self.rank, self.engine.last
        assert record is not None
        self._wake_at = None
        if network.on_round is not None:
            network.on_round(rank, record, record.opened_at - self._began)
        if network.combines_first:
            for _ in range(network.every):
                network.plant.step(rank, record.round)
                if network.stop(rank, record.round):
                    self._leave()
                    return
        elif network.stop(rank, record.round):
            self._leave()
            return
        self.begin(None)

    def _leave(self) -> None:
        self._network.ended_at[self.rank] = self._kernel.now
        self.take(_LEAVE)

    # -- commands -------------------------------------------------------------------------------------------------------

    def take(self, event: Event) -> None:
        """Hand ``event`` to the engine and carry out what it commands."""
        kernel = self._kernel
        now = kernel.now
        for command in self._handle(event, now):
            if type(command) is SendControl:
                peer, message = command
                # The same message to several neighbours is one object here, too.
                if message is not self._said:
                    self._said, self._letter = message, record(Control, (self.rank, message))
                self.messages += 1
                line = self.lines[peer]
                kernel.at(now + line.control, line.take, self._letter)
            else:
                self._DO[type(command)](self, command)

    def _broadcast(self, command: Broadcast) -> None:
        self._network.send_all(self, Control(self.rank, command.message))

    def _swap(self, command: SwapModel) -> None:
        line = self.lines[command.peer]
        theirs = line.peer.asked.pop(self.rank, None)
        self.models += 1
        if theirs is None:
            self.asked[command.peer] = command
            return
        if theirs.round != command.peer_round or theirs.peer_round != command.round:
            raise ProtocolError(f"rank {self.rank} swaps by {command}, rank {command.peer} by {theirs}")
        self._kernel.at(self._kernel.now + line.model, self._network.swapped, (line.peer, self, command.weight))

    def _mix(self, command: Mix) -> None:
        self._network.plant.mix(self.rank, command.weights)

    def _wake(self, command: WakeAt) -> None:
        self._wake_at = when = command.when
        self._kernel.at(max(when, self._kernel.now), self._tick, when)

    def _tick(self, when: Seconds) -> None:
        if self._wake_at == when:
            self._wake_at = None
            self.take(_TICK)

    def _drop(self, command: DropModel) -> None:
        raise ProtocolError(f"rank {self.rank} takes rank {command.peer} for dead, but no simulated rank dies")

    def _finish(self, command: Finish) -> None:
        """Nothing to do: the rank schedules no more."""

    _DO: ClassVar[dict[type, Callable[[Any, Any], None]]] = {
        Broadcast: _broadcast,
        SwapModel: _swap,
        DropModel: _drop,
        Mix: _mix,
        StartStep: _start,
        WakeAt: _wake,
        Finish: _finish,
    }


def next_step(stream: Stream, rank: Rank, round: Round) -> Seconds:
    """Draw how long the step of ``rank`` before its ``round`` takes, seconds.

    Raises
    ------
    ConfigError
        If that is no finite number from 0 on.
    """
    duration = stream.next()
    if not 0.0 <= duration < math.inf:
        raise ConfigError(
            f"the step of rank {rank}, round {round}, takes {duration} s; expected a finite number of seconds, 0 or more"
        )
    return duration
