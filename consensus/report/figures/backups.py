"""Backups over time: how many neighbours each rank did without, as a heat map."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from consensus.report.columns import Columns, Floats
from consensus.report.figures.style import SCALE, framed
from consensus.types import Seconds

BINS = 200
"""At most so many bins of time, however long the run."""

_ROUNDS_A_BIN = 3


def binned(ranks: Sequence[Columns], until: Seconds) -> tuple[Floats, NDArray[np.float32]]:
    """Mean backups of the rounds that closed in each bin of time.

    Parameters
    ----------
    ranks
        Of one run.
    until
        The end of the last bin, seconds.

    Returns
    -------
    ndarray of float64, shape (bins,)
        The bins' centres, seconds. There are fewer bins if a rank's rounds would leave many empty.
    ndarray of float32, shape (ranks, bins)
        NaN where a rank closed no round.
    """
    rounds = int(np.median([rank.closed.size for rank in ranks]))
    count = max(1, min(BINS, rounds // _ROUNDS_A_BIN))
    edges = np.linspace(0, max(until, np.finfo(float).tiny), count + 1)
    means = np.full((len(ranks), count), np.nan, dtype=np.float32)
    for row, rank in zip(means, ranks, strict=True):
        place = np.clip(np.searchsorted(edges, rank.closed, side="right") - 1, 0, count - 1)
        rounds_in = np.bincount(place, minlength=count)
        sums = np.bincount(place, weights=rank.backups, minlength=count)
        np.divide(sums, rounds_in, out=row, where=rounds_in > 0, casting="same_kind")
    return (edges[:-1] + edges[1:]) / 2, means.round(3)


def backups(ranks: Sequence[Columns], until: Seconds) -> go.Figure:
    """The heat map of one run's ranks, until so many seconds."""
    centres, means = binned(ranks, until)
    heat = go.Heatmap(
        x=centres.round(6),
        y=[rank.rank for rank in ranks],
        z=means,
        colorscale=SCALE,
        zmin=0,
        zmax=max(1.0, float(np.nanmax(means, initial=0.0))),
        colorbar={"title": {"text": "backups", "side": "right"}, "thickness": 14},
        hovertemplate="rank %{y}, around %{x:.2f} s: %{z:.2f} backups a round<extra></extra>",
        hoverongaps=False,
    )
    figure = framed(go.Figure(heat), 140 + min(600, max(160, 26 * len(ranks))))
    figure.update_xaxes(title_text="wall clock, seconds", range=[0, until])
    return figure.update_yaxes(title_text="rank", autorange="reversed", dtick=1 if len(ranks) <= 24 else None)
