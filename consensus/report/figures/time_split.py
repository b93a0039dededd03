"""Where the ranks' time went: stacked bars of compute, wait, mix and the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go

from consensus.report.columns import Columns, Floats
from consensus.report.figures.style import PARTS, framed, shown
from consensus.types import Seconds


def split(rank: Columns) -> dict[str, Seconds]:
    """A rank's time until it closed its last round, seconds by part; "other" is what its rounds do not tell.

    That is mostly keeping copies of the model for evaluation.
    """
    parts = {name: float(getattr(rank, name).sum()) for name in ("compute", "wait", "mix")}
    whole = float(rank.closed[-1]) if rank.closed.size else 0.0
    return {**parts, "other": max(0.0, whole - sum(parts.values()))}


def time_split(ranks: Sequence[Columns]) -> go.Figure:
    """A bar for each rank of a run."""
    return _bars([str(rank.rank) for rank in ranks], [split(rank) for rank in ranks], "rank", "seconds", 380)


def time_split_of_runs(runs: Mapping[str, Sequence[Columns]]) -> go.Figure:
    """A bar for each run: the mean over its ranks."""
    means = []
    for ranks in runs.values():
        splits = [split(rank) for rank in ranks]
        means.append({name: float(np.mean([one[name] for one in splits])) for name in PARTS})
    return _bars([shown(label) for label in runs], means, "", "seconds, mean over ranks", 380)


def _bars(names: Sequence[str], splits: Sequence[Mapping[str, Seconds]], x: str, y: str, height: int) -> go.Figure:
    wholes = np.array([sum(one.values()) for one in splits])
    figure = go.Figure()
    for part, colour in PARTS.items():
        seconds: Floats = np.array([one[part] for one in splits])
        shares = np.divide(100 * seconds, wholes, out=np.zeros_like(wholes), where=wholes > 0)
        figure.add_bar(
            x=list(names),
            y=seconds.round(6),
            customdata=shares.round(1),
            name=part,
            marker={"color": colour, "line": {"width": 0}},
            hovertemplate="%{y:.3f} s, %{customdata} %",
        )
    above = {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "traceorder": "normal"}
    framed(figure, height, barmode="stack", bargap=0.25, legend=above, hovermode="x unified")
    figure.update_xaxes(title_text=x, type="category")
    return figure.update_yaxes(title_text=y)
