"""Ranks as MPI processes; the only module that imports mpi4py, and only when a transport is made.

*Receives.* One persistent receive per neighbour for its control messages, one from anybody for the news of all other ranks.
Each is started again only after its message was handed out: MPI orders how messages are matched with receives, not how receives
complete, so two posted receives of one channel could complete in the wrong order. A channel ends with its Leave.

*Tags.* A rank may connect again while another still waits for the last Leave of the connection before. Tags alternate between
connections, so that such early messages wait; nobody is two connections ahead, for the one between needs everybody's Leave.

*Sends.* Control messages are small and leave at once (MPI stores them); an :class:`~consensus.protocol.outbox.Outbox` bounds how
many a silent peer must store. Models go straight from the caller's memory, a few chunks in flight per edge.

*One list of requests.* It is built by `connect`: the control receives, then a window of chunks for every edge and direction, each
with its handler in a parallel list. A place whose request is null costs nanoseconds in each look, rebuilding the list far more.

*A look is two.* Open MPI's Testsome lets the library progress only where it finds nothing completed, and then returns without
looking again: what has come since the last look is found by the next one. A single look would find nothing after a long step,
whatever had come meanwhile, and a rank that waits would sleep once more on each message.

*Deaths.* Where the library lets a job outlive its ranks (:mod:`consensus.transport.failures`), the look at the requests raises
when a rank dies. What else had completed is then found out request by request; the dead rank's requests leave the list. Hearsay
counts as well: a ``Leave`` on behalf of a rank cuts its edge before the engine, told of the death, gives up its model.

The connection and its channels share that list and call each other; hence one file. What moves models along an edge is in
:mod:`consensus.transport.edge`.
"""

from __future__ import annotations

import os
import pickle
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial, wraps
from itertools import repeat
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from numpy.typing import NDArray

from consensus.errors import ProtocolError
from consensus.protocol.events import Control, Event, PeerLost
from consensus.protocol.messages import WIRE_BYTES, Leave, Message, decode, encode
from consensus.protocol.outbox import Outbox
from consensus.transport.base import Bytes, Parcel
from consensus.transport.edge import Edge
from consensus.transport.endings import ending
from consensus.transport.failures import Failures, end_with_others, outlives, prepare
from consensus.transport.forks import watch_forks
from consensus.transport.gathering import gathered
from consensus.transport.idle import Idle, cpus, crowded
from consensus.types import Rank, Round, Seconds

if TYPE_CHECKING:
    from mpi4py import MPI

CONTROL, NEWS, MODEL, TAGS = range(4)

COLLECTIVE_ELEMENTS = 1 << 28
"""Most elements in one collective call, far below the 2^31 at which MPI libraries with 32-bit counts fail."""

REAP = 64
"""How many requests of sends pile up before the completed ones are dropped; a look at each send would cost more than the send."""

ROOMY = Idle(patience=1e-3, longest=1e-4)
CROWDED = Idle(patience=5e-5, longest=5e-4)
# Measured with 8 ranks of a ring on 2 loaded cores, 270 k parameters, each rank waiting for all its neighbours. After steps that
# sleep for 10 to 30 ms, a round took 29.5 ms and 2.8 ms of processor time with a blocking Waitsome, 29.4 and 2.7 with spinning,
# 28.9 and 2.7 with yielding, 30.3 and 2.0 with sleeps of 0.1 ms after 0.05 ms, 31.2 and 2.2 after 1 ms. After steps that compute
# for 2 to 6 ms: 22.2, 21.5, 22.3, 22.9 and 24.7 ms, within the noise. With 4 ranks and no steps at all, sleeping at once makes
# 0.66 ms of 0.46 ms, sleeping after 0.2 ms does not. So a short patience, then sleeps, which leave the cores to whoever computes.


class _Channel:
    """The control messages of one neighbour, or the news of all ranks that are none."""

    def __init__(self, link: _Connection, source: int, tag: int, senders: Iterable[Rank]) -> None:
        self.open = set(senders)
        self._link = link
        self._buffer = bytearray(WIRE_BYTES)
        self.request = link.comm.Recv_init(self._buffer, source, tag)
        self.request.Start()

    def arrived(self, peer: Rank) -> None:
        """Hand out what arrived from ``peer`` and, unless all senders have said goodbye, be ready for more."""
        message = decode(self._buffer)
        if type(message) is Leave:
            if message.who == peer:
                self.open.discard(peer)
            else:
                self._link.rumours.append(message.who)
        if self.open:
            self.request.Start()
        self._link.take(peer, message)


class _Connection:
    """What lives from `connect` to `disconnect`."""

    def __init__(
        self, mpi: Any, comm: MPI.Intracomm, failures: Failures, tags: int, neighbours: Sequence[Rank], parcel: Parcel
    ) -> None:
        self.comm, self.parcel = comm, parcel
        self.requests: list[MPI.Request] = []
        self.events: list[Event] = [PeerLost(peer) for peer in sorted(failures.dead)]
        self.rumours: list[Rank] = []
        self.moving = self.bytes_sent = 0
        self._failures, self._caught = failures, failures.caught
        self._null, self._testsome = mpi.REQUEST_NULL, mpi.Request.Testsome
        self._handlers: list[Callable[[], None]] = []
        self._sends: list[MPI.Request] = []
        self._reap_at = REAP
        self._probes: list[tuple[MPI.Request, Rank]] = []
        others = set(range(comm.Get_size())) - {comm.Get_rank()}
        living = others - failures.dead
        self._outboxes = {peer: Outbox() for peer in living}
        self._tag = {peer: tags + (CONTROL if peer in neighbours else NEWS) for peer in living}
        self._channels = {peer: _Channel(self, peer, tags + CONTROL, [peer]) for peer in neighbours if peer in living}
        self._places = {peer: self.reserve(partial(channel.arrived, peer)) for peer, channel in self._channels.items()}
        for peer, place in self._places.items():
            self.requests[place] = self._channels[peer].request
        self.edges = {peer: Edge(self, peer, tags + MODEL) for peer in neighbours}
        for peer in failures.dead.intersection(neighbours):
            self.edges[peer].cut()
        self._news: _Channel | None = None
        self._status = mpi.Status()
        # A death may be raised by the very look that completes the receive from anybody: the message is there, and its sender in
        # the status; the next look finds an idle receive, which has none.
        self._told_by: Rank = mpi.ANY_SOURCE
        if strangers := living - set(neighbours):
            self._news = _Channel(self, mpi.ANY_SOURCE, tags + NEWS, strangers)

    def reserve(self, handler: Callable[[], None]) -> int:
        """Return the number of a new place in the list of requests."""
        self.requests.append(self._null)
        self._handlers.append(handler)
        return len(self._handlers) - 1

    def vacate(self, place: int) -> MPI.Request:
        """Return the request of ``place``, which is empty from now on."""
        request, self.requests[place] = self.requests[place], self._null
        return request

    def take(self, peer: Rank, message: Message) -> None:
        """Hand out ``message``, a sign of life; the last words of a dead rank are void."""
        outbox = self._outboxes.get(peer)
        if outbox is None:
            return
        self.events.append(Control(peer, message))
        if released := outbox.heard():
            self._write(peer, released)

    def send(self, peer: Rank, message: Message) -> None:
        """Send ``message``, or hold it while ``peer`` has been silent for long, or drop it if ``peer`` is dead."""
        outbox = self._outboxes.get(peer)
        if outbox is not None and (released := outbox.push(message)):
            self._write(peer, released)

    def _write(self, peer: Rank, messages: list[Message]) -> None:
        tag, sends = self._tag[peer], self._sends
        self.bytes_sent += WIRE_BYTES * len(messages)
        probe = messages.pop() if self._outboxes[peer].probing else None
        for message in messages:
            sends.append(self.comm.Isend(encode(message), peer, tag))
        if probe is not None:
            # A synchronous send completes when the peer has matched it, and so all before it: the sign of life wanted.
            self._probes.append((self.comm.Issend(encode(probe), peer, tag), peer))
        if len(sends) >= self._reap_at:
            self._sends = self._failures.sweep(sends)
            self._reap_at = REAP + 2 * len(self._sends)

    def poll(self) -> list[Event]:
        """Let MPI progress and hand out what has happened."""
        self._failures.heed_ends()
        try:
            done = self._testsome(self.requests)
            if not done:
                self._failures.heed_ends()
                done = self._testsome(self.requests)
        except self._caught as error:
            done = self._outlive(error)
        if done:
            for place in done:
                self._handlers[place]()
        news = self._news
        if news is not None and news.open:
            try:
                if news.request.Test(self._status):
                    news.arrived(self._told_by if self._status.source < 0 else self._status.source)
            except self._caught as error:
                self._told_by = self._status.source
                self._lose(self._failures.fallen(error))
        if self._probes:
            self._look_at_probes()
        if self.rumours:
            self._believe()
        events, self.events = self.events, []
        return events

    def _outlive(self, error: Exception) -> list[int]:
        """Retire the requests of the dead, the cause of ``error``; return the places where others have completed meanwhile."""
        while True:
            self._lose(self._failures.fallen(error))
            try:
                # What has completed is not said where a look raises. A started receive that was completed tests as an idle one.
                done = [self._places[peer] for peer, channel in self._channels.items() if channel.open and channel.request.Test()]
            except self._caught as another:
                error = another
            else:
                return done + [place for edge in self.edges.values() for place in edge.overlooked()]

    def _believe(self) -> None:
        fresh, self.rumours = set(self.rumours) - self._failures.dead, []
        self._failures.dead |= fresh
        self._lose(sorted(fresh))

    def _lose(self, dead: Iterable[Rank]) -> None:
        for peer in dead:
            self.events.append(PeerLost(peer))
            del self._outboxes[peer]
            held = [request for request, to in self._probes if to == peer]
            self._probes = [(request, to) for request, to in self._probes if to != peer]
            if peer in self._channels:
                del self._channels[peer]
                held += [self.vacate(self._places[peer]), *self.edges[peer].cut()]
            elif self._news is not None:
                self._news.open.discard(peer)
                if not self._news.open:
                    # Left open it would take what a later connection sends with the same tag.
                    self._news.request.Cancel()
                    held.append(self._news.request)
                    self._news = None
            self._failures.keep(held)

    def _look_at_probes(self) -> None:
        try:
            taken = [peer for request, peer in self._probes if request.Test()]
        except self._caught as error:
            self._lose(self._failures.fallen(error))
            return
        if taken:
            self._probes = [(request, peer) for request, peer in self._probes if request]
            for peer in taken:
                if released := self._outboxes[peer].heard():
                    self._write(peer, released)

    def _open_channels(self) -> list[_Channel]:
        return [*self._channels.values(), *([] if self._news is None else [self._news])]

    def leaving(self) -> list[Rank]:
        """Return the living ranks that have not said goodbye yet."""
        return sorted(rank for channel in self._open_channels() for rank in channel.open)

    def all_sent(self) -> bool:
        """Whether MPI has no message of this rank left to send, to a living rank."""
        return not self._failures.sweep([*self._sends, *(request for request, _ in self._probes)])

    def moved_with(self) -> list[Rank]:
        """Return the ranks with which a model is under way."""
        return [peer for peer, edge in self.edges.items() if edge.busy]

    def free(self) -> None:
        """Free the receives, none of which is started."""
        for channel in self._open_channels():
            channel.request.Free()


_P = ParamSpec("_P")
_T = TypeVar("_T")


def _or_end(method: Callable[Concatenate[MpiTransport, _P], _T]) -> Callable[Concatenate[MpiTransport, _P], _T]:
    """End this rank where ``method`` fails because another one has ended with an error: then all calls of MPI fail."""

    @wraps(method)
    def guarded(self: MpiTransport, /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        try:
            return method(self, *args, **kwargs)
        except self._failures.caught:
            end_with_others(self._comm)
            raise

    return guarded


class MpiTransport:
    """One rank of an MPI communicator.

    Parameters
    ----------
    comm
        The ranks; duplicated (a collective call), so that no message of anybody else is mistaken for one of these. Default:
        ``MPI.COMM_WORLD``.
    """

    def __init__(self, comm: MPI.Intracomm | None = None) -> None:
        prepare(os.environ)  # in time unless the program has loaded MPI itself
        from mpi4py import MPI

        watch_forks()
        self._mpi = MPI
        try:
            self._comm = (MPI.COMM_WORLD if comm is None else comm).Dup()
            self._failures = Failures(MPI, self._comm)
            ending().revokes(self._revoke)
            host = self._comm.Split_type(MPI.COMM_TYPE_SHARED)
            self._idle = CROWDED if crowded(host.allgather(cpus())) else ROOMY
            host.Free()
        except MPI.Exception:
            if outlives(MPI, MPI.COMM_WORLD):
                end_with_others(MPI.COMM_WORLD)
            raise
        self.rank: Rank = self._comm.Get_rank()
        self.size: int = self._comm.Get_size()
        self._link: _Connection | None = None
        self._connections = self._sent_before = 0

    def _revoke(self) -> None:
        # A method of this object, so that it lives until then: a request of a send that is freed under way is a fatal error.
        self._failures.revoke()

    now = staticmethod(time.monotonic)
    """Seconds on the machine's monotonic clock."""

    def sleep(self, duration: Seconds) -> None:
        """Sleep."""
        time.sleep(duration)

    def pace(self, round: Round, elapsed: Seconds) -> Seconds:
        """Leave the step as it was."""
        return 0.0

    def _connected(self) -> _Connection:
        if self._link is None:
            raise ProtocolError(f"rank {self.rank} is not connected; call connect first")
        return self._link

    def _edge(self, peer: Rank, act: str) -> Edge:
        edges = self._connected().edges
        if peer not in edges:
            raise ProtocolError(f"rank {self.rank} was told to {act} rank {peer}, which is not its neighbour")
        return edges[peer]

    def _apart(self, act: str) -> MPI.Intracomm:
        if self._link is not None:
            raise ProtocolError(f"rank {self.rank} cannot {act} while connected; call disconnect first")
        return self._comm

    @_or_end
    def connect(self, neighbours: Sequence[Rank], parcel: Parcel) -> None:
        """Post the receives for every other rank; nothing is sent and nobody is waited for."""
        comm = self._apart("connect")
        self._link = _Connection(self._mpi, comm, self._failures, TAGS * (self._connections % 2), neighbours, parcel)
        self._connections += 1

    @_or_end
    def send(self, peer: Rank, message: Message) -> None:
        """Send ``message``, or hold it while ``peer`` has been silent for long."""
        self._connected().send(peer, message)

    @_or_end
    def swap(self, peer: Rank, round: Round, peer_round: Round) -> None:
        """Start both directions; with one swap per edge at a time, MPI's order tells the models of two rounds apart."""
        self._edge(peer, "swap models with").swap()

    @_or_end
    def give(self, peer: Rank) -> None:
        """Start to send what is outgoing to ``peer``."""
        self._edge(peer, "give a model to").give()

    @_or_end
    def take(self, peer: Rank) -> None:
        """Start to receive what ``peer`` gives."""
        self._edge(peer, "take a model from").take()

    @_or_end
    def poll(self) -> list[Event]:
        """Let MPI progress and hand out what has happened."""
        return self._connected().poll()

    @_or_end
    def wait(self, until: Seconds | None) -> list[Event]:
        """Poll until something has happened or the clock reaches ``until``."""
        link = self._connected()
        if events := link.poll():
            return events
        began = now = time.monotonic()
        while until is None or now < until:
            self._idle.pause(now - began, link.moving > 0)
            if events := link.poll():
                return events
            now = time.monotonic()
        return []

    @_or_end
    def disconnect(self) -> None:
        """Wait until all own messages are sent, and free the receives.

        Raises
        ------
        ProtocolError
            If a rank has not said goodbye or a model is under way: messages would be left over.
        """
        link = self._connected()
        if link.leaving() or link.moved_with():
            raise ProtocolError(
                f"rank {self.rank} was to disconnect before ranks {link.leaving()} have said goodbye and with models under way "
                f"with ranks {link.moved_with()}; disconnect only after Finish"
            )
        began = time.monotonic()
        while not link.all_sent():
            self._idle.pause(time.monotonic() - began, False)
        link.free()
        self._sent_before += link.bytes_sent
        self._link = None

    @property
    def members(self) -> Sequence[Rank]:
        """The ranks that took part in the last collective; those that died before it did not."""
        return self._failures.members

    def broadcast(self, buffer: Bytes, root: Rank = 0) -> None:
        """Collective, in place: everybody's ``buffer`` becomes ``root``'s, or the first survivor's if that was dead before."""
        self._apart("broadcast")
        source = root if root in self.members else self.members[0]

        def spread(comm: MPI.Intracomm, members: Sequence[Rank]) -> None:
            if source not in members:
                raise ProtocolError(f"rank {source} died while it told the others what all are to begin with; start again")
            for part in parts(buffer):
                comm.Bcast(part, members.index(source))

        self._failures.together(spread)

    def sum(self, buffer: NDArray[Any]) -> None:
        """Collective, in place: everybody's ``buffer`` becomes the sum over ranks that live."""
        self._apart("sum")
        # What a rank put in is needed again if another one dies meanwhile.
        own = list(parts(buffer.copy())) if self._failures.outlived else repeat(self._mpi.IN_PLACE)

        def total(comm: MPI.Intracomm, members: Sequence[Rank]) -> None:
            for mine, part in zip(own, parts(buffer), strict=False):
                comm.Allreduce(mine, part, self._mpi.SUM)

        self._failures.together(total)

    def gather(self, item: Any) -> list[Any]:
        """Collective: everybody's small picklable ``item``, in the order of ``members``."""
        self._apart("gather")
        own = pickle.dumps(item)
        return [pickle.loads(each) for each in self._failures.together(lambda comm, members: gathered(comm, own))]

    @property
    def bytes_sent(self) -> int:
        """Payload and control bytes sent since the transport was made."""
        return self._sent_before + (self._link.bytes_sent if self._link else 0)

    def close(self) -> None:
        """Free the communicators. Collective; with dead ranks they are left to the end, for it takes all."""
        comm = self._apart("close")
        ending().forgets(self._revoke)
        if self._failures.close():
            comm.Free()


def parts(buffer: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Yield ``buffer`` in flat views of at most :data:`COLLECTIVE_ELEMENTS` elements.

    Raises
    ------
    ProtocolError
        If ``buffer`` is not contiguous: a flat view of it does not exist.
    """
    if not buffer.flags.c_contiguous:
        raise ProtocolError(
            f"a collective works in place on contiguous memory, not on strides {buffer.strides} of shape {buffer.shape}"
        )
    flat = buffer.reshape(-1)
    for start in range(0, flat.size, COLLECTIVE_ELEMENTS):
        yield flat[start : start + COLLECTIVE_ELEMENTS]
