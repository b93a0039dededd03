"""What only ranks can find out: how many they are, where, on which processors, and how fast the edges between them are."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from consensus.doctor.check import Check, State
from consensus.protocol.events import Control, Event, ModelSwapped
from consensus.protocol.messages import Leave, Progress
from consensus.transport.base import CHUNK_BYTES, Bytes, Transport
from consensus.transport.idle import cpus, crowded
from consensus.types import Edge, Rank, Seconds

PINGS = 200
"""Small messages there and back, per edge."""

MODELS = 4
"""Models swapped, per edge."""

MODEL_CHUNKS = 8

SLOW = 10.0
"""An edge is slow if its latency is more than so many times the median's."""


@dataclass(frozen=True)
class EdgeSpeed:
    """How fast an edge is.

    Attributes
    ----------
    i, j : int
        Its ranks.
    latency : float
        Of a control message, one way: half the median round trip, seconds.
    bandwidth : float
        Of models swapped, in each of the two directions at once, bytes per second.
    """

    i: Rank
    j: Rank
    latency: Seconds
    bandwidth: float


@dataclass(frozen=True)
class Survey:
    """What ranks found.

    Attributes
    ----------
    hosts : list of str
        By rank.
    cpus : list of list of int
        Processors that a rank may use, by rank.
    edges : list of EdgeSpeed
        Of a ring.
    """

    hosts: list[str]
    cpus: list[list[int]]
    edges: list[EdgeSpeed]

    @property
    def size(self) -> int:
        """How many ranks there are."""
        return len(self.hosts)

    def to_table(self) -> dict[str, Any]:
        """As what JSON can hold."""
        return asdict(self)

    @classmethod
    def from_table(cls, table: Mapping[str, Any]) -> Survey:
        """What :meth:`to_table` made a table of."""
        return cls(table["hosts"], table["cpus"], [EdgeSpeed(**edge) for edge in table["edges"]])


def take(transport: Transport) -> Survey:
    """Look around and measure every edge of the ring, one after the other. Collective."""
    places = transport.gather((socket.gethostname(), sorted(cpus())))
    edges = [_measure(transport, edge) for edge in ring(transport.size)]
    return Survey([host for host, _ in places], [own for _, own in places], edges)


def ring(size: int) -> list[Edge]:
    """The edges of a ring; for two ranks one, for one none.

    Examples
    --------
    >>> ring(4), ring(2), ring(1)
    ([(0, 1), (1, 2), (2, 3), (0, 3)], [(0, 1)], [])
    """
    along = [(rank, rank + 1) for rank in range(size - 1)]
    return [*along, (0, size - 1)] if size > 2 else along


class _Ballast:
    """A parcel of zeros; what arrives is dropped."""

    def __init__(self) -> None:
        self.chunks: Sequence[Bytes] = [np.zeros(CHUNK_BYTES, np.uint8) for _ in range(MODEL_CHUNKS)]
        self._spare: list[Bytes] = []

    def incoming(self, peer: Rank) -> int:
        """How many chunks a peer sends: as many as this rank has."""
        return len(self.chunks)

    def outgoing(self, peer: Rank) -> Sequence[Bytes]:
        return self.chunks

    def lend(self, peer: Rank, index: int) -> Bytes:
        return self._spare.pop() if self._spare else np.empty(CHUNK_BYTES, np.uint8)

    def deliver(self, peer: Rank, index: int, data: Bytes) -> None:
        self._spare.append(data)

    def release(self, peer: Rank, index: int) -> None:
        """Do nothing: what is sent never changes."""


def _measure(transport: Transport, edge: Edge) -> EdgeSpeed:
    own = transport.rank
    others = [rank for rank in range(transport.size) if rank != own]
    partners = [rank for rank in edge if rank != own] if own in edge else []
    transport.connect(partners, _Ballast())
    inbox = _Inbox(transport)
    figures = _talk(transport, inbox, partners[0], own == edge[0]) if partners else None
    for rank in others:
        transport.send(rank, Leave(own))
    for _ in others:
        inbox.next(_is_goodbye)
    transport.disconnect()
    latency, bandwidth = transport.gather(figures)[edge[0]]
    return EdgeSpeed(*edge, latency, bandwidth)


def _talk(transport: Transport, inbox: _Inbox, peer: Rank, begins: bool) -> tuple[Seconds, float]:
    trips = []
    for _ in range(PINGS):
        began = transport.now()
        if begins:
            transport.send(peer, Progress(0))
        inbox.next(_is_ping)
        if not begins:
            transport.send(peer, Progress(0))
        trips.append(transport.now() - began)
    began = transport.now()
    for number in range(1, MODELS + 1):
        transport.swap(peer, number, number)
        inbox.next(lambda event: isinstance(event, ModelSwapped))
    took = transport.now() - began
    return float(np.median(trips)) / 2, MODELS * MODEL_CHUNKS * CHUNK_BYTES / max(took, 1e-9)


class _Inbox:
    """Events in the order in which they are wanted."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._events: list[Event] = []

    def next(self, wanted: Callable[[Event], bool]) -> None:
        """Wait for an event and take it out."""
        while True:
            for index, event in enumerate(self._events):
                if wanted(event):
                    del self._events[index]
                    return
            self._events += self._transport.wait(None)


def _is_ping(event: Event) -> bool:
    return isinstance(event, Control) and isinstance(event.message, Progress)


def _is_goodbye(event: Event) -> bool:
    return isinstance(event, Control) and isinstance(event.message, Leave)


def check_survey(survey: Survey, meant: int | None) -> Iterator[Check]:
    """Judge what ranks found.

    Parameters
    ----------
    survey : Survey
        From :func:`take`.
    meant : int, optional
        How many ranks the launcher was to start.
    """
    if meant is not None and meant != survey.size:
        advice = "launcher and MPI library do not know each other; under Slurm try srun --mpi=pmix, or mpirun inside sbatch"
        yield Check("ranks", State.FAIL, f"{survey.size} seen, {meant} started", advice)
    else:
        yield Check("ranks", State.OK, f"{survey.size}")
    per_host = Counter(survey.hosts)
    yield Check("hosts", State.OK, ", ".join(f"{host} ({ranks} ranks)" for host, ranks in per_host.items()))
    shared = False
    for host in per_host:
        sets = [frozenset(own) for own, where in zip(survey.cpus, survey.hosts, strict=True) if where == host]
        shared = shared or crowded(sets)
        yield _check_processors(host, sets)
    if survey.edges:
        yield _check_edges(survey.edges, shared)


def _check_processors(host: str, sets: Sequence[frozenset[int]]) -> Check:
    together = frozenset().union(*sets)
    found = f"{len(sets)} ranks may use {len(together)}"
    if not crowded(sets):
        return Check(f"processors of {host}", State.OK, found)
    advice = "ranks share processors: fine for trials, but a step takes as long as the others on it let it"
    if len(together) == 1:
        advice += "; all are bound to one, start them with --bind-to none"
    return Check(f"processors of {host}", State.WARN, found, advice)


def _check_edges(edges: Sequence[EdgeSpeed], shared: bool) -> Check:
    median = float(np.median([edge.latency for edge in edges]))
    # Where ranks share processors, a slow answer says only that somebody else was computing.
    slow = [] if shared else [edge for edge in edges if edge.latency > SLOW * median]
    if not slow:
        return Check("edges", State.OK, f"{len(edges)} of the ring answer, {median * 1e6:.0f} us in the median")
    pairs = ", ".join(f"{edge.i}-{edge.j}" for edge in slow)
    advice = f"edges {pairs} take more than {SLOW:g} times as long as the median; look at the network between those hosts"
    return Check("edges", State.WARN, f"{len(edges)} of the ring answer, {len(slow)} slowly", advice)
