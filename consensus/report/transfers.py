"""How long models took over every edge, from both ends' traces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from consensus.report.columns import Floats
from consensus.trace import Trace
from consensus.types import Edge, Round, Seconds

Rounds: TypeAlias = tuple[Round, Round]
"""An exchange on an edge: the lower rank's round, and the higher rank's."""


@dataclass(frozen=True, slots=True)
class Transfers:
    """The exchanges over one edge.

    Attributes
    ----------
    edge : (int, int)
        Which.
    rounds : tuple of (int, int)
        The two ranks' rounds of each exchange.
    seconds : ndarray of float64, shape (exchanges,)
        From the agreement until both models had arrived.
    """

    edge: Edge
    rounds: tuple[Rounds, ...]
    seconds: Floats


def transfers(traces: Sequence[Trace]) -> dict[Edge, Transfers]:
    """The transfers of every edge that was used.

    Both ends time an exchange. The one that hears of the agreement first counts, besides the transfer, how long the other took to
    hear of it; so the shorter of the two times is the transfer's. The first round of a rank pays for warming up and is left out.

    Parameters
    ----------
    traces
        Of any ranks.
    """
    found: dict[Edge, dict[Rounds, Seconds]] = {}
    for trace in traces:
        own = trace.rank
        for record in trace.rounds:
            for peer, theirs, agreed, complete in record.exchanges:
                if record.round == 1 or theirs == 1:
                    continue
                edge, rounds = ((own, peer), (record.round, theirs)) if own < peer else ((peer, own), (theirs, record.round))
                on_edge = found.setdefault(edge, {})
                on_edge[rounds] = min(complete - agreed, on_edge.get(rounds, np.inf))
    return {
        edge: Transfers(edge, tuple(on_edge), np.fromiter(on_edge.values(), np.float64, len(on_edge)))
        for edge, on_edge in sorted(found.items())
    }
