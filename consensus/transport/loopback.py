"""Ranks as threads of one process on a virtual clock: the deterministic twin of the MPI transport.

One thread at a time runs. A rank goes on until it waits, sleeps, polls or joins a collective; then the earliest thing that is to
happen, by (virtual time, order of scheduling), happens next, and all delays come from one seeded generator. So a run is a
function of its seed, races included, and computing takes no virtual time.

Faithful in what is delicate: control messages of one sender keep their order, models overtake them; a model moves when both ends
have asked for it (small ones too, which MPI may send before); a chunk is copied out of the sender's memory when it arrives,
before it is released, so a sender that writes too early is found out; messages of a rank that connects again wait for the
receiver to do so; messages to a silent peer are held by the same outbox.
"""

from __future__ import annotations

import math
import pickle
import random
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from functools import partial, reduce
from typing import Any, NamedTuple, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from consensus.errors import ConfigError, ProtocolError
from consensus.protocol.events import Control, Event, ModelGiven, ModelSwapped, ModelTaken
from consensus.protocol.messages import WIRE_BYTES, Leave, Message, decode, encode
from consensus.protocol.outbox import Outbox
from consensus.transport.base import Bytes, Parcel
from consensus.transport.baton import Baton
from consensus.types import Rank, Round, Seconds

_T = TypeVar("_T")

POLL_COST: Seconds = 1e-6
"""Virtual time that a look for messages takes; without it a loop of polls would stop the clock."""


class _Letter(NamedTuple):
    """A control message; ``probing``: its sender is to learn when it is taken."""

    peer: Rank
    wire: bytes
    probing: bool


class _Taken(NamedTuple):
    """``peer`` has taken a probing letter."""

    peer: Rank


class _Chunk(NamedTuple):
    """Chunk ``number`` of ``peer``'s model."""

    peer: Rank
    number: int
    data: Bytes


class _Left(NamedTuple):
    """Chunk ``number`` of the own model has left for ``peer``."""

    peer: Rank
    number: int


_Item: TypeAlias = _Letter | _Taken | _Chunk | _Left


class _World:
    """What the ranks share: the baton, the delays, each other."""

    def __init__(self, size: int, seed: int, latency: tuple[Seconds, Seconds], bandwidth: float, limit: int) -> None:
        self.baton = Baton(size)
        self.limit, self.bandwidth = limit, bandwidth
        self._random, self._latency = random.Random(seed), latency
        self.meeting: dict[Rank, tuple[str, Any]] = {}
        self.ranks = [LoopbackTransport(self, rank, size) for rank in range(size)]

    def delay(self) -> Seconds:
        """Draw the delay of one message."""
        return self._random.uniform(*self._latency)


class LoopbackTransport:
    """One rank of a loopback world; :func:`run` makes them."""

    def __init__(self, world: _World, rank: Rank, size: int) -> None:
        self.rank, self.size, self.bytes_sent = rank, size, 0
        self.members: Sequence[Rank] = range(size)
        self._world, self._baton = world, world.baton
        self._parcel: Parcel | None = None
        self._connections = 0
        self._inboxes: defaultdict[int, deque[_Item]] = defaultdict(deque)
        self._waiting = False
        self._handlers: dict[type, Callable[[Any], None]] = {
            _Letter: self._take_letter,
            _Taken: self._take_taken,
            _Chunk: self._take_chunk,
            _Left: self._take_left,
        }

    def now(self) -> Seconds:
        """Virtual seconds since the start of the run."""
        return self._baton.now

    def sleep(self, duration: Seconds) -> None:
        """Let virtual time pass."""
        self._baton.sleep(self.rank, max(0.0, duration), f"sleeping for {duration:.6f} s")

    def pace(self, round: Round, elapsed: Seconds) -> Seconds:
        """Leave the step as it was."""
        return 0.0

    def connect(self, neighbours: Sequence[Rank], parcel: Parcel) -> None:
        """Be ready to receive from everybody."""
        self._apart("connect")
        self._parcel = parcel
        self._connections += 1
        self._rounds: dict[Rank, tuple[Round, Round]] = {}
        self._offered: dict[Rank, Sequence[Bytes]] = {}
        self._wanted: set[Rank] = set()
        self._leaving = dict.fromkeys(neighbours, 0)
        self._coming = dict.fromkeys(neighbours, 0)
        self._swapping: set[Rank] = set()
        self._open = set(range(self.size)) - {self.rank}
        self._outboxes = {peer: Outbox(self._world.limit) for peer in self._open}
        self._arrival = dict.fromkeys(self._open, 0.0)
        self._events: list[Event] = []

    def send(self, peer: Rank, message: Message) -> None:
        """Send ``message``, or hold it while ``peer`` has been silent for long."""
        self._connected()
        self._write(peer, self._outboxes[peer].push(message))

    def _write(self, peer: Rank, messages: list[Message]) -> None:
        for message in messages:
            probing = message is messages[-1] and self._outboxes[peer].probing
            self._arrival[peer] = max(self._arrival[peer], self._baton.now + self._world.delay())
            self._post(self._arrival[peer], peer, _Letter(self.rank, encode(message), probing))
            self.bytes_sent += WIRE_BYTES

    def _post(self, when: Seconds, peer: Rank, item: _Item) -> None:
        self._baton.at(when, partial(self._world.ranks[peer]._arrive, self._connections, item))

    def _arrive(self, connection: int, item: _Item) -> None:
        current = self._connections if self._parcel is not None else self._connections + 1
        if connection < current:
            # A sender may be gone when it would learn that its probe was taken; nothing else may be left over.
            if isinstance(item, _Taken):
                return
            raise ProtocolError(f"{item} arrived at rank {self.rank} after its connection {connection} had ended")
        self._inboxes[connection].append(item)
        if self._waiting and connection == current:
            self._baton.wake(self.rank)

    def swap(self, peer: Rank, round: Round, peer_round: Round) -> None:
        """Ask for the swap; it moves when ``peer`` has asked as well."""
        other = self._near(peer, "swap models with")
        self._refuse(peer, self._leaving[peer] or self._coming[peer], "swap models with")
        self._offer(peer)
        self._want(peer)
        if not self._coming[peer]:
            self._events.append(ModelSwapped(peer))
            return
        self._swapping.add(peer)
        theirs = other._rounds.pop(self.rank, None) if other._connections == self._connections else None
        if theirs is None:
            self._rounds[peer] = round, peer_round
        elif theirs != (peer_round, round):
            raise ProtocolError(
                f"ranks {self.rank} and {peer} disagree on the rounds they swap: "
                f"{(round, peer_round)} says the one, {theirs[::-1]} the other"
            )
        self._match(other)
        other._match(self)

    def give(self, peer: Rank) -> None:
        """Offer what is outgoing; it moves when ``peer`` takes."""
        other = self._near(peer, "give a model to")
        self._refuse(peer, self._leaving[peer], "give a model to")
        self._offer(peer)
        if self._leaving[peer]:
            self._match(other)
        else:
            self._events.append(ModelGiven(peer))

    def take(self, peer: Rank) -> None:
        """Be ready for what ``peer`` gives."""
        other = self._near(peer, "take a model from")
        self._refuse(peer, self._coming[peer], "take a model from")
        self._want(peer)
        if self._coming[peer]:
            other._match(self)
        else:
            self._events.append(ModelTaken(peer))

    def _near(self, peer: Rank, act: str) -> LoopbackTransport:
        self._connected()
        if peer not in self._leaving:
            raise ProtocolError(f"rank {self.rank} was told to {act} rank {peer}, which is not its neighbour")
        return self._world.ranks[peer]

    def _refuse(self, peer: Rank, chunks: int, act: str) -> None:
        if chunks:
            raise ProtocolError(
                f"rank {self.rank} was told to {act} rank {peer} while one with it is under way; one at a time: wait for its end"
            )

    def _offer(self, peer: Rank) -> None:
        chunks = self._connected().outgoing(peer)
        self._leaving[peer] = len(chunks)
        if chunks:
            self._offered[peer] = chunks

    def _want(self, peer: Rank) -> None:
        self._coming[peer] = self._connected().incoming(peer)
        if self._coming[peer]:
            self._wanted.add(peer)

    def _match(self, taker: LoopbackTransport) -> None:
        """Schedule the arrival of each chunk if both ends have asked; what is there at that time is what arrives."""
        peer = taker.rank
        if self._connections != taker._connections or peer not in self._offered or self.rank not in taker._wanted:
            return
        taker._wanted.remove(self.rank)
        when = left = self._baton.now + self._world.delay()
        for index, chunk in enumerate(self._offered.pop(peer)):
            when += len(chunk) / self._world.bandwidth
            self._baton.at(when, partial(self._land, peer, index, chunk))
            left = max(left, when + self._world.delay())
            self._post(left, self.rank, _Left(peer, index))
            self.bytes_sent += len(chunk)

    def _land(self, peer: Rank, index: int, chunk: Bytes) -> None:
        self._world.ranks[peer]._arrive(self._connections, _Chunk(self.rank, index, chunk.copy()))

    def _take_letter(self, letter: _Letter) -> None:
        peer, message = letter.peer, decode(letter.wire)
        if peer not in self._open:
            raise ProtocolError(f"rank {self.rank} got {message} from rank {peer} after its Leave")
        if isinstance(message, Leave) and message.who == peer:
            self._open.discard(peer)
        self._events.append(Control(peer, message))
        if letter.probing:
            self._post(self._baton.now + self._world.delay(), peer, _Taken(self.rank))
        self._write(peer, self._outboxes[peer].heard())

    def _take_taken(self, taken: _Taken) -> None:
        self._write(taken.peer, self._outboxes[taken.peer].heard())

    def _take_chunk(self, chunk: _Chunk) -> None:
        parcel, peer = self._connected(), chunk.peer
        landed = parcel.lend(peer, chunk.number)
        landed[:] = chunk.data
        parcel.deliver(peer, chunk.number, landed)
        self._coming[peer] -= 1
        if peer in self._swapping:
            self._end_swap(peer)
        elif not self._coming[peer]:
            self._events.append(ModelTaken(peer))

    def _take_left(self, left: _Left) -> None:
        peer = left.peer
        self._connected().release(peer, left.number)
        self._leaving[peer] -= 1
        if peer in self._swapping:
            self._end_swap(peer)
        elif not self._leaving[peer]:
            self._events.append(ModelGiven(peer))

    def _end_swap(self, peer: Rank) -> None:
        if not self._coming[peer] and not self._leaving[peer]:
            self._swapping.remove(peer)
            self._events.append(ModelSwapped(peer))

    def _drain(self) -> list[Event]:
        inbox = self._inboxes[self._connections]
        while inbox:
            item = inbox.popleft()
            self._handlers[type(item)](item)
        events, self._events = self._events, []
        return events

    def poll(self) -> list[Event]:
        """What has happened; takes :data:`POLL_COST` of virtual time."""
        self._connected()
        self._baton.sleep(self.rank, POLL_COST, "polling")
        return self._drain()

    def wait(self, until: Seconds | None) -> list[Event]:
        """What has happened, pausing until there is something or virtual time reaches ``until``."""
        self._connected()
        if events := self._drain():
            return events
        if until is not None and until <= self._baton.now:
            return self.poll()
        doing = "waiting" if until is None else f"waiting (until {until:.6f} s)"
        while until is None or self._baton.now < until:
            self._waiting = True
            try:
                self._baton.pause(self.rank, doing, math.inf if until is None else until)
            finally:
                self._waiting = False
            if events := self._drain():
                return events
        return []

    def disconnect(self) -> None:
        """End the connection.

        Raises
        ------
        ProtocolError
            If a rank has not said goodbye, a model is under way, or something was not handed out.
        """
        self._connected()
        left, moving = self._inboxes[self._connections], [peer for peer, chunks in self._leaving.items() if chunks]
        moving += [peer for peer, chunks in self._coming.items() if chunks and peer not in moving]
        if self._open or moving or left:
            raise ProtocolError(
                f"rank {self.rank} was to disconnect before ranks {sorted(self._open)} have said goodbye, with models under way "
                f"with ranks {moving} and {list(left)} not handed out; disconnect only after Finish"
            )
        del self._inboxes[self._connections]
        self._parcel = None

    def _connected(self) -> Parcel:
        if self._parcel is None:
            raise ProtocolError(f"rank {self.rank} is not connected; call connect first")
        return self._parcel

    def _apart(self, act: str) -> None:
        if self._parcel is not None:
            raise ProtocolError(f"rank {self.rank} cannot {act} while connected; call disconnect first")

    def _meet(self, act: str, item: Any) -> list[Any]:
        """Return everybody's ``item``, by rank, when all ranks have come."""
        self._apart(act)
        meeting = self._world.meeting
        meeting[self.rank] = act, item
        if len(meeting) == self.size:
            acts = [meeting[rank][0] for rank in range(self.size)]
            if len(set(acts)) > 1:
                raise ProtocolError(f"the ranks joined different collectives: {acts}")
            self._world.meeting = {}
            for rank in range(self.size):
                self._baton.wake(rank)
        self._baton.pause(self.rank, f"in {act}")
        return [meeting[rank][1] for rank in range(self.size)]

    def broadcast(self, buffer: Bytes, root: Rank = 0) -> None:
        """Collective, in place: everybody's ``buffer`` becomes ``root``'s."""
        buffer[...] = self._meet("broadcast", buffer.copy() if self.rank == root else None)[root]

    def sum(self, buffer: NDArray[Any]) -> None:
        """Collective, in place: everybody's ``buffer`` becomes the sum over ranks, added in their order."""
        buffer[...] = reduce(np.add, self._meet("sum", buffer.copy()))

    def gather(self, item: Any) -> list[Any]:
        """Collective: everybody's picklable ``item``, by rank; each rank gets copies of its own."""
        return [pickle.loads(pickled) for pickled in self._meet("gather", pickle.dumps(item))]


def run(
    size: int,
    function: Callable[[LoopbackTransport], _T],
    *,
    seed: int = 0,
    latency: tuple[Seconds, Seconds] = (1e-5, 1e-4),
    bandwidth: float = 1e10,
    limit: int = 32,
) -> list[_T]:
    """Run ``function`` on every rank of a loopback world.

    Parameters
    ----------
    size
        Number of ranks.
    function
        What each rank does with its transport.
    seed
        Seeds all delays; the same seed gives the same run.
    latency
        Smallest and largest delay of a message, seconds, drawn uniformly.
    bandwidth
        Of each direction of each edge, bytes per second.
    limit
        Messages to a silent peer before its outbox holds.

    Returns
    -------
    list
        What ``function`` returned, by rank.

    Raises
    ------
    ConfigError
        If there is no rank, or a delay is negative or a bandwidth not positive.
    ProtocolError
        If the ranks deadlock; the message says what each is doing.

    Examples
    --------
    >>> run(3, lambda transport: transport.gather(transport.rank**2)[-1])
    [4, 4, 4]
    """
    if size < 1:
        raise ConfigError(f"a loopback world needs at least 1 rank, not {size}")
    if not 0 <= latency[0] <= latency[1]:
        raise ConfigError(f"a loopback world needs delays 0 <= low <= high, not {latency}")
    if not bandwidth > 0:
        raise ConfigError(f"a loopback world needs a bandwidth above 0 bytes per second, not {bandwidth}")
    world = _World(size, seed, latency, bandwidth, limit)
    return world.baton.run([partial(function, transport) for transport in world.ranks])
