"""What only ranks can find out: how many they are, where, on which processors, how fast edges are, where all can write."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from consensus.coding.layout import Layout
from consensus.doctor.check import Check, State
from consensus.doctor.folder import FolderReport, check_folder, try_folder
from consensus.doctor.forks import check_forks, send_beside_a_child
from consensus.doctor.measure import measure_system
from consensus.doctor.session import PING, Ballast, Inbox, is_ping, session
from consensus.protocol.events import ModelSwapped
from consensus.transport.base import CHUNK_BYTES, Transport
from consensus.transport.idle import cpus, crowded
from consensus.types import Edge, Rank, Seconds

PINGS = 200
"""Small messages there and back, per edge."""

MODELS = 4
"""Models swapped, per edge."""

MODEL_BYTES = 8 * CHUNK_BYTES

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
    right : list of bool
        By rank: whether models arrive as they were sent beside forked processes.
    folder : FolderReport
        Of the folder for runs.
    system : dict, optional
        What :meth:`consensus.coding.system.System.to_dict` gives, if it was measured.
    """

    hosts: list[str]
    cpus: list[list[int]]
    edges: list[EdgeSpeed]
    right: list[bool]
    folder: FolderReport
    system: dict[str, Any] | None = None

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
        edges = [EdgeSpeed(**edge) for edge in table["edges"]]
        return cls(**{**table, "edges": edges, "folder": FolderReport(**table["folder"])})


def take(transport: Transport, out: Path, layout: Layout | None = None) -> Survey:
    """Look around, measure every edge of the ring, one after the other, and try a folder. Collective.

    Parameters
    ----------
    transport : Transport
        Of the ranks, not connected.
    out : Path
        The folder for runs.
    layout : Layout, optional
        Of a system to be measured as well.
    """
    places = transport.gather((socket.gethostname(), sorted(cpus())))
    edges = [_measure(transport, edge) for edge in ring(transport.size)]
    beside = [other for edge in ring(transport.size) if transport.rank in edge for other in edge if other != transport.rank]
    return Survey(
        [host for host, _ in places],
        [own for _, own in places],
        edges,
        send_beside_a_child(transport, beside),
        try_folder(transport, out),
        None if layout is None else measure_system(transport, layout).to_dict(),
    )


def ring(size: int) -> list[Edge]:
    """The edges of a ring; for two ranks one, for one none.

    Examples
    --------
    >>> ring(4), ring(2), ring(1)
    ([(0, 1), (1, 2), (2, 3), (0, 3)], [(0, 1)], [])
    """
    along = [(rank, rank + 1) for rank in range(size - 1)]
    return [*along, (0, size - 1)] if size > 2 else along


def _measure(transport: Transport, edge: Edge) -> EdgeSpeed:
    own = transport.rank
    partners = [rank for rank in edge if rank != own] if own in edge else []
    figures = None
    with session(transport, partners, Ballast(MODEL_BYTES)) as inbox:
        if partners:
            figures = _talk(transport, inbox, partners[0], own == edge[0])
    latency, bandwidth = transport.gather(figures)[edge[0]]
    return EdgeSpeed(*edge, latency, bandwidth)


def _talk(transport: Transport, inbox: Inbox, peer: Rank, begins: bool) -> tuple[Seconds, float]:
    trips = []
    for _ in range(PINGS):
        began = transport.now()
        if begins:
            transport.send(peer, PING)
        inbox.next(is_ping)
        if not begins:
            transport.send(peer, PING)
        trips.append(transport.now() - began)
    began = transport.now()
    for number in range(1, MODELS + 1):
        transport.swap(peer, number, number)
        inbox.next(lambda event: isinstance(event, ModelSwapped))
    took = transport.now() - began
    return float(np.median(trips)) / 2, MODELS * MODEL_BYTES / max(took, 1e-9)


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
        yield check_forks(survey.right)
    yield check_folder(survey.folder)


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
