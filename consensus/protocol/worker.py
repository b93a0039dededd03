"""A worker of a parameter server, as a state machine without input or output.

It computes a gradient, pushes it, and goes on from newer weights than it had. With ``pull`` it asks for them when it pushes;
with ``wait`` and ``interrupt`` the server may send them at any time, and it goes on from the newest that have come whole.
Interrupted, it drops the batch at the next opportunity: when the step is done, or before, where the driver can tell.

Deaths of other workers are nothing to it. With a server the model dies, or a share of it, and that ends the run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from consensus.errors import DeadRanks, ProtocolError
from consensus.protocol.commands import Broadcast, Command, Finish, GiveModel, Install, SendControl, StartStep, TakeModel
from consensus.protocol.events import Control, Event, LeaveWanted, ModelGiven, ModelTaken, PeerLost, StepDone, Tick
from consensus.protocol.messages import Fetch, Leave, Push, Weights, foreign
from consensus.protocol.rounds import Exchange, Phase, RoundRecord
from consensus.protocol.service import PushMode
from consensus.protocol.story import Story
from consensus.types import Rank, Seconds


def bereft(rank: Rank, who: Rank, what: str) -> DeadRanks:
    """Return the error with which ``rank`` ends when ``who`` has died, ``what`` it was that nobody else can be."""
    return DeadRanks(
        f"rank {rank} cannot go on: rank {who}, {what}, has died, which had the model that counts, or a share of it; "
        "start again, from a checkpoint if there is one"
    )


class WorkerEngine:
    """A worker's side.

    Parameters
    ----------
    rank : Rank
        This rank.
    server : Rank
        Who serves.
    size : int
        Number of ranks: goodbyes go to all of them.
    push : "wait", "interrupt" or "pull"
        How weights come.

    Attributes
    ----------
    phase : Phase
        COMPUTING, OPEN (pushed, waits for newer weights), LEFT, FINISHED.
    version : int
        Of the weights it works on.
    round : int
        How many steps it has pushed or dropped.
    loss : float
        Of the batch that the next push is about; the owner sets it before StepDone.
    dropped : int
        How many batches were interrupted.
    last : RoundRecord or None
        The last step as a round. Its exchange with the server (none if the batch was dropped) tells the version that the gradient
        was computed at, and when the weights with which it went on were announced and were here.
    """

    def __init__(self, rank: Rank, server: Rank, size: int, *, push: PushMode) -> None:
        self.rank, self.server, self.push = rank, server, push
        self.peers: tuple[Rank, ...] = (server,)
        self.phase = Phase.COMPUTING
        self.story = Story()
        self.last: RoundRecord | None = None
        self.version = self.round = self.dropped = 0
        self.loss = float("nan")
        self._pushes = 0
        self._goodbyes = set(range(size)) - {rank}
        self._coming: tuple[int, Seconds] | None = None
        self._here: tuple[int, Seconds, Seconds] | None = None
        self._giving = False
        self._opened_at = 0.0
        self._out: list[Command] = []

    @property
    def interrupted(self) -> bool:
        """Whether the step under way will be dropped: newer weights are here."""
        return self.push == "interrupt" and self.phase is Phase.COMPUTING and self._here is not None

    def resume(self, state: Mapping[str, Any]) -> None:
        """Go on with the weights of the version that the server has (:meth:`consensus.protocol.server.ServerEngine.state`)."""
        self.version = state["version"]

    def handle(self, event: Event, now: Seconds) -> list[Command]:
        """Take one event and return what to do, in order, before the next event is handled.

        Raises
        ------
        ProtocolError
            If the event cannot happen in this state.
        DeadRanks
            If a server has died.
        """
        out = self._out = []
        self.story.record_pair((now, event))
        if isinstance(event, Control):
            try:
                take = self._MESSAGES[type(event.message)]
            except KeyError:
                raise self._broken(foreign(event.peer, event.message)) from None
            take(self, event.peer, event.message, now)
        else:
            self._EVENTS[type(event)](self, event, now)
        return out

    # -- steps ----------------------------------------------------------------------------------------------------------

    def _step_done(self, event: StepDone, now: Seconds) -> None:
        if self.phase is not Phase.COMPUTING:
            raise self._broken(f"a step was done while {self.phase.value}")
        self.round += 1
        self._opened_at = now
        self.phase = Phase.OPEN
        if self.push == "interrupt" and self._here is not None:
            self.dropped += 1
            self._go_on(now, pushed=False)
            return
        self._giving = True
        self._pushes += 1
        asks = self.push == "pull"  # otherwise it has said already that it has room
        self._out.append(SendControl(self.server, Push(self.version, self._pushes, asks, self.loss)))
        self._out.append(GiveModel(self.server))

    def _go_on_if_ready(self, now: Seconds) -> None:
        # Only when the gradient has left: nothing moves while a rank computes, and it would come a whole step late.
        if self.phase is Phase.OPEN and self._here is not None and not self._giving:
            self._go_on(now, pushed=True)

    def _go_on(self, now: Seconds, pushed: bool) -> None:
        assert self._here is not None
        version, announced, came = self._here
        self._here = None
        reason = f"version {version}" if pushed else f"version {version} interrupted the batch"
        exchanges = (Exchange(self.server, self.version, 1.0, announced, came),) if pushed else ()
        self.last = RoundRecord(self.round, self._opened_at, now, exchanges, (), reason)
        self.version = version
        self._out.append(Install())
        self.phase = Phase.COMPUTING
        self._out.append(StartStep(self.round))

    # -- transfers ------------------------------------------------------------------------------------------------------

    def _weights(self, peer: Rank, message: Weights, now: Seconds) -> None:
        if self._coming is not None:
            raise self._broken(f"version {message.version} comes while version {self._coming[0]} is still coming")
        self._coming = message.version, now
        self._out.append(TakeModel(peer))

    def _taken(self, event: ModelTaken, now: Seconds) -> None:
        if self._coming is None:
            raise self._broken("weights came that the server had not announced")
        self._here, self._coming = (*self._coming, now), None
        if self.phase in (Phase.LEFT, Phase.FINISHED):
            self._finish_if_over()
            return
        if self.push != "pull":
            self._out.append(SendControl(self.server, Fetch(self._here[0])))
        self._go_on_if_ready(now)

    def _given(self, event: ModelGiven, now: Seconds) -> None:
        self._giving = False
        self._go_on_if_ready(now)
        if self.phase is Phase.LEFT:
            self._finish_if_over()

    def _tick(self, event: Tick, now: Seconds) -> None:
        """Nothing waits for the clock."""

    # -- departures -----------------------------------------------------------------------------------------------------

    def _leave(self, event: LeaveWanted, now: Seconds) -> None:
        # Also while it waits for weights: it needs them no more, and takes them in if they come.
        if self.phase in (Phase.COMPUTING, Phase.OPEN):
            self._out.append(Broadcast(Leave(self.rank)))
            self.phase = Phase.LEFT
            self._finish_if_over()

    def _goodbye(self, peer: Rank, message: Leave, now: Seconds) -> None:
        self._gone(message.who, now, dead=message.who != peer)

    def _lost(self, event: PeerLost, now: Seconds) -> None:
        self._gone(event.peer, now, dead=True)

    def _gone(self, who: Rank, now: Seconds, dead: bool) -> None:
        # When it has left as well: what is under way between the two will never have moved.
        if dead and who in self.peers and self.phase is not Phase.FINISHED:
            raise bereft(self.rank, who, "the server" if len(self.peers) == 1 else "a server")
        self._goodbyes.discard(who)
        if self.phase is Phase.LEFT:
            self._finish_if_over()
        elif who == self.server and self.phase is not Phase.FINISHED:
            raise self._broken("the server has left")

    def _finish_if_over(self) -> None:
        if not self._goodbyes and not self._giving and self._coming is None:
            self.phase = Phase.FINISHED
            self._out.append(Finish())

    # -- reporting ------------------------------------------------------------------------------------------------------

    @property
    def waits_since(self) -> Seconds | None:
        """When the step was done whose answer it waits for, None if for none."""
        return self._opened_at if self.phase is Phase.OPEN else None

    def _broken(self, what: str) -> ProtocolError:
        error = ProtocolError(f"rank {self.rank}, step {self.round}: {what}")
        error.add_note("last events:\n" + self.story.tell(now=self.story.latest))
        return error

    def describe(self, now: Seconds) -> str:
        """Return, for a worker that waits for long: since when, for what, and the last events."""
        if self.phase is Phase.LEFT:
            return f"rank {self.rank} has left and waits for the goodbyes of {sorted(self._goodbyes)}"
        told = "its gradient is still leaving" if self._giving else "its gradient has left"
        coming = "none is coming yet" if self._coming is None else f"version {self._coming[0]} is coming"
        wanted = f"weights of rank {self.server} newer than version {self.version}"
        lines = [f"rank {self.rank} waits for {wanted} for {now - self._opened_at:.1f} s: {told}, {coming}"]
        for peer in self.peers:
            lines += self.story.tell_about(peer, now)
        return "\n".join(lines)

    _EVENTS: ClassVar[dict[type, Callable[..., None]]] = {
        StepDone: _step_done,
        ModelTaken: _taken,
        ModelGiven: _given,
        LeaveWanted: _leave,
        PeerLost: _lost,
        Tick: _tick,
    }
    _MESSAGES: ClassVar[dict[type, Callable[..., None]]] = {Weights: _weights, Leave: _goodbye}
