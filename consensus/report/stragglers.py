"""Which ranks and edges are slow, whether it is compute or network, and whether always or now and then.

All scores are relative to the run's own ranks and edges, so they say who is slower than the others, not whether all are slow. The
typical value is always the *lower* median: of two ranks, or of two halves, the faster one shows what is possible.

The thresholds are ours, no paper's:

- :data:`SLOW_COMPUTE`, 1.25. Medians over hundreds of steps of equal ranks agree within a few per cent; a rank that stands out
  by a quarter is not chance, and who waits for it in every round loses that quarter.
- :data:`SLOW_NETWORK`, 2. Transfers scatter more than steps, because they need the attention of two processes.
- :data:`TAIL`, 3. What takes three times the typical time is an event of its own and not the usual scatter.
- :data:`MATERIAL`, 5 %. Whatever the scores say, what costs a rank less of its time than that is not worth acting on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from consensus.report.columns import Columns, Floats, columns
from consensus.report.transfers import Transfers, transfers
from consensus.trace import Trace
from consensus.types import Edge, Rank, Seconds

SLOW_COMPUTE = 1.25
"""A rank whose median step is so many times the typical one is persistently slow."""

SLOW_NETWORK = 2.0
"""An edge, or a rank, whose median transfer is so many times the typical one is persistently slow."""

TAIL = 3.0
"""A step or transfer is slow by itself if it takes so many times the typical one."""

MATERIAL = 0.05
"""The share of a rank's time that has to be lost before anything is called slow."""


class Kind(StrEnum):
    """Whether something is slow always, now and then, or not."""

    NONE = "none"
    OCCASIONAL = "occasional"
    PERSISTENT = "persistent"


class Verdict(StrEnum):
    """What makes a rank slow."""

    NONE = "none"
    COMPUTE = "compute"
    NETWORK = "network"
    BOTH = "both"


@dataclass(frozen=True, slots=True)
class Spread:
    """Median, mean and 95th percentile of durations, seconds; 0 where there are none."""

    median: Seconds
    mean: Seconds
    p95: Seconds


@dataclass(frozen=True, slots=True)
class Delay:
    """How slow something is.

    Attributes
    ----------
    score : float
        Its median in relation to the typical one.
    tail : float
        How often, of 1, it took over :data:`TAIL` times the typical duration.
    lost : float
        The share of the rank's time spent in excess of the typical duration.
    kind : Kind
        What follows from them.
    """

    score: float
    tail: float
    lost: float
    kind: Kind


@dataclass(frozen=True, slots=True)
class RankFinding:
    """What one rank's trace says about it.

    Attributes
    ----------
    rank : int
        Whose.
    rounds : int
        How many it closed.
    compute, wait, mix : Spread
        Of its rounds, the first left out.
    computing : Delay or None
        Of its steps; None before its second round.
    talking : Delay or None
        Of its transfers; None where models are not exchanged over edges.
    """

    rank: Rank
    rounds: int
    compute: Spread
    wait: Spread
    mix: Spread
    computing: Delay | None
    talking: Delay | None

    @property
    def slow(self) -> dict[str, Kind]:
        """Which of compute and network are slow, and how."""
        delays = (("compute", self.computing), ("network", self.talking))
        return {name: delay.kind for name, delay in delays if delay is not None and delay.kind is not Kind.NONE}

    @property
    def verdict(self) -> Verdict:
        """What makes it slow."""
        return Verdict.BOTH if len(self.slow) > 1 else Verdict(next(iter(self.slow), "none"))


@dataclass(frozen=True, slots=True)
class EdgeFinding:
    """What the two ends of an edge say about it.

    Attributes
    ----------
    edge : (int, int)
        Which.
    exchanges : int
        How many it carried, those of a rank's first round left out.
    median : float
        Of their transfers, seconds.
    score : float
        In relation to the typical edge.
    tail : float
        How often, of 1, a transfer took over :data:`TAIL` times the typical one.
    slow : bool
        Whether the score is :data:`SLOW_NETWORK` or more, and the transfers over it cost one of its ends :data:`MATERIAL`.
    """

    edge: Edge
    exchanges: int
    median: Seconds
    score: float
    tail: float
    slow: bool


@dataclass(frozen=True, slots=True)
class Findings:
    """What the traces of a run say about its ranks and edges.

    Attributes
    ----------
    ranks : tuple of RankFinding
        In the order of the traces.
    edges : tuple of EdgeFinding
        Of the edges that were used, slowest first.
    step, transfer : float
        The typical ones, seconds; 0 where there are none.
    """

    ranks: tuple[RankFinding, ...]
    edges: tuple[EdgeFinding, ...]
    step: Seconds
    transfer: Seconds


def assess(traces: Sequence[Trace]) -> Findings:
    """Find what is slow in a run.

    A rank's network is judged by the lower median over its edges: one slow link is the link's affair, and is found among the
    edges; a rank whose every link is slow is slow itself. Each rank's first round, which pays for warming up, is left out.

    Parameters
    ----------
    traces
        Of all ranks of one run.
    """
    table = [columns(trace) for trace in traces]
    step = typical([float(np.median(rank.compute[1:])) for rank in table if rank.compute.size > 1])
    moved = transfers(traces)
    transfer = typical([float(np.median(on_edge.seconds)) for on_edge in moved.values()])
    busy = {rank.rank: float((rank.compute[1:] + rank.wait[1:] + rank.mix[1:]).sum()) for rank in table}
    edges = {edge: _edge(on_edge, transfer, busy) for edge, on_edge in moved.items()}
    ranks = tuple(_rank(rank, step, _talking(rank.rank, edges, moved, transfer, busy[rank.rank]), busy) for rank in table)
    return Findings(ranks, tuple(sorted(edges.values(), key=lambda found: (-found.score, found.edge))), step, transfer)


def typical(values: Sequence[float]) -> float:
    """The lower median; 0 of nothing.

    Examples
    --------
    >>> typical([3.0, 1.0]), typical([1.0, 5.0, 2.0]), typical([])
    (1.0, 2.0, 0.0)
    """
    return sorted(values)[(len(values) - 1) // 2] if values else 0.0


def _spread(seconds: Floats) -> Spread:
    if not seconds.size:
        return Spread(0.0, 0.0, 0.0)
    return Spread(float(np.median(seconds)), float(seconds.mean()), float(np.percentile(seconds, 95)))


def _rank(rank: Columns, step: Seconds, talking: Delay | None, busy: Mapping[Rank, Seconds]) -> RankFinding:
    computing = None
    steps = rank.compute[1:]
    if steps.size and step > 0:
        excess = np.maximum(steps - step, 0)
        late = steps > TAIL * step
        whole = busy[rank.rank]
        score, lost = float(np.median(steps)) / step, float(excess.sum()) / whole
        kind = _kind(score >= SLOW_COMPUTE, lost, float(excess[late].sum()) / whole)
        computing = Delay(score, float(late.mean()), lost, kind)
    compute, wait, mix = (_spread(seconds[1:]) for seconds in (rank.compute, rank.wait, rank.mix))
    return RankFinding(rank.rank, rank.compute.size, compute, wait, mix, computing, talking)


def _kind(persistent: bool, lost: float, lost_in_tail: float) -> Kind:
    if persistent and lost >= MATERIAL:
        return Kind.PERSISTENT
    return Kind.OCCASIONAL if lost_in_tail >= MATERIAL else Kind.NONE


def _edge(on_edge: Transfers, transfer: Seconds, busy: Mapping[Rank, Seconds]) -> EdgeFinding:
    median = float(np.median(on_edge.seconds))
    score = median / transfer if transfer > 0 else 1.0
    lost = float(np.maximum(on_edge.seconds - transfer, 0).sum())
    times = [busy[end] for end in on_edge.edge if busy.get(end)]
    slow = score >= SLOW_NETWORK and bool(times) and lost / min(times) >= MATERIAL
    tail = float((on_edge.seconds > TAIL * transfer).mean()) if transfer > 0 else 0.0
    return EdgeFinding(on_edge.edge, on_edge.seconds.size, median, score, tail, slow)


def _talking(
    rank: Rank, edges: Mapping[Edge, EdgeFinding], moved: Mapping[Edge, Transfers], transfer: Seconds, busy: Seconds
) -> Delay | None:
    own = [found for edge, found in edges.items() if rank in edge]
    if not own or not transfer > 0 or not busy > 0:
        return None
    lost, lost_in_tail = (
        _lost(rank, [moved[found.edge] for found in own], transfer, least) / busy for least in (transfer, TAIL * transfer)
    )
    score, tail = typical([found.score for found in own]), typical([found.tail for found in own])
    # The tail of a rank of which the typical edge has none is that of single links, and not its own.
    return Delay(score, tail, lost, _kind(score >= SLOW_NETWORK, lost, lost_in_tail if tail > 0 else 0.0))


def _lost(rank: Rank, moved: Sequence[Transfers], transfer: Seconds, least: Seconds) -> Seconds:
    """What the transfers over ``least`` cost in excess of the typical one; those of one round go on at the same time."""
    worst: dict[int, float] = {}
    for on_edge in moved:
        end = on_edge.edge.index(rank)
        for k in np.flatnonzero(on_edge.seconds > least):
            round_ = on_edge.rounds[k][end]
            worst[round_] = max(worst.get(round_, 0.0), float(on_edge.seconds[k]) - transfer)
    return sum(worst.values())
