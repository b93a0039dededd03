"""Who was whose backup: the graph, each edge coloured by the share of rounds in which it was used."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import networkx as nx
import plotly.graph_objects as go
from plotly.colors import sample_colorscale

from consensus.report.figures.style import LINE_SCALE, framed
from consensus.topology.drawing import layout
from consensus.trace import Trace
from consensus.types import Edge, Rank

_CLASSES = 20

DRAWABLE = 1500
"""Of more ranks nothing can be made out, and it takes minutes to place them."""

_WAY = 0.4
"""How far along an edge its marker is: halfway, the diameters of a circle would have theirs in one place."""

_COLOURS = [list(step) for step in LINE_SCALE]


@dataclass(frozen=True, slots=True)
class Use:
    """How one rank used the edge to a neighbour.

    Attributes
    ----------
    exchanges : int
        Rounds in which it exchanged with it.
    backups : int
        Rounds in which it did without.
    """

    exchanges: int
    backups: int

    @property
    def share(self) -> float:
        """Of the rounds in which the neighbour was there; 0 of none."""
        rounds = self.exchanges + self.backups
        return self.exchanges / rounds if rounds else 0.0


def uses(traces: Sequence[Trace]) -> dict[tuple[Rank, Rank], Use]:
    """How each rank used the edge to each neighbour, by (rank, neighbour).

    An exchange counts alike at both ends, but the ends have closed different numbers of rounds.
    """
    found: dict[tuple[Rank, Rank], Use] = {}
    for trace in traces:
        exchanged = Counter(exchange[0] for record in trace.rounds for exchange in record.exchanges)
        without = Counter(peer for record in trace.rounds for peer in record.backups)
        found |= {(trace.rank, peer): Use(exchanged[peer], without[peer]) for peer in {*exchanged, *without}}
    return found


def network(traces: Sequence[Trace], edges: Collection[Edge]) -> go.Figure:
    """The graph of one run.

    Parameters
    ----------
    traces
        Of all its ranks.
    edges
        Of the graph, used or not.
    """
    graph: nx.Graph[Rank] = nx.Graph()
    graph.add_nodes_from(range(len(traces)))
    graph.add_edges_from(edges)
    positions = {rank: (float(x), float(y)) for rank, (x, y) in layout(graph).items()}
    used = uses(traces)
    never = Use(0, 0)
    shares = {(i, j): (used.get((i, j), never).share + used.get((j, i), never).share) / 2 for i, j in sorted(edges)}
    figure = framed(go.Figure([*_lines(shares, positions), _middles(shares, used, positions), _nodes(traces, positions)]), 560)
    figure.update_layout(showlegend=False, hovermode="closest", margin={"l": 24, "r": 24, "t": 24, "b": 24})
    figure.update_xaxes(visible=False)
    return figure.update_yaxes(visible=False, scaleanchor="x")


def _lines(shares: Mapping[Edge, float], positions: Mapping[Rank, tuple[float, float]]) -> Iterable[go.Scatter]:
    """One trace for each class of shares: a trace has one colour, and a trace for each edge makes large graphs slow."""
    classes: dict[int, list[Edge]] = {}
    for edge, share in shares.items():
        classes.setdefault(round(share * _CLASSES), []).append(edge)
    for level, members in sorted(classes.items()):
        ends = [[*(positions[end] for end in edge), (None, None)] for edge in members]
        yield go.Scatter(
            x=[x for points in ends for x, _ in points],
            y=[y for points in ends for _, y in points],
            mode="lines",
            line={"width": 1.5 + 4 * level / _CLASSES, "color": sample_colorscale(_COLOURS, level / _CLASSES)[0]},
            hoverinfo="skip",
        )


def _middles(
    shares: Mapping[Edge, float], used: Mapping[tuple[Rank, Rank], Use], positions: Mapping[Rank, tuple[float, float]]
) -> go.Scatter:
    """What the pointer finds, and what the scale of colours belongs to."""
    places = [[(1 - _WAY) * start + _WAY * end for start, end in zip(positions[i], positions[j], strict=True)] for i, j in shares]
    return go.Scatter(
        x=[x for x, _ in places],
        y=[y for _, y in places],
        mode="markers",
        marker={
            "size": 7,
            "color": [100 * share for share in shares.values()],
            "cmin": 0,
            "cmax": 100,
            "colorscale": _COLOURS,
            "colorbar": {"title": {"text": "rounds with an exchange, %", "side": "right"}, "thickness": 14},
        },
        customdata=["<br>".join(_direction(pair, used) for pair in (edge, edge[::-1])) for edge in shares],
        hovertemplate="%{customdata}<extra></extra>",
    )


def _direction(pair: tuple[Rank, Rank], used: Mapping[tuple[Rank, Rank], Use]) -> str:
    i, j = pair
    use = used.get(pair, Use(0, 0))
    return f"rank {i}: with {j} in {100 * use.share:.1f} % of its rounds ({use.exchanges}), {j} was its backup in {use.backups}"


def _nodes(traces: Sequence[Trace], positions: Mapping[Rank, tuple[float, float]]) -> go.Scatter:
    few = len(traces) <= 64
    means = [sum(len(record.backups) for record in trace.rounds) / max(1, len(trace.rounds)) for trace in traces]
    return go.Scatter(
        x=[positions[trace.rank][0] for trace in traces],
        y=[positions[trace.rank][1] for trace in traces],
        mode="markers+text" if few else "markers",
        text=[str(trace.rank) for trace in traces],
        textfont={"color": "white", "size": 12},
        marker={"size": 26 if few else 10, "color": "#3d4a5c", "line": {"width": 1, "color": "#9aa5b1"}},
        customdata=[
            f"rank {trace.rank}: {len(trace.rounds)} rounds, {mean:.2f} backups a round"
            for trace, mean in zip(traces, means, strict=True)
        ],
        hovertemplate="%{customdata}<extra></extra>",
    )
