"""The averaged model: accuracy and loss against seconds and against samples, and what the ranks disagree; runs overlaid."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from consensus.report.figures.style import colour, dash, framed, shown, thin
from consensus.run.results import Metrics


@dataclass(frozen=True, slots=True)
class _Panel:
    """One set of axes: which column against which, and in what words."""

    x: str
    y: str
    title: str
    logarithmic: bool = False


_X_TITLES = {"seconds": "wall clock, seconds", "samples": "samples, all ranks"}

_QUALITY = (
    _Panel("seconds", "accuracy", "Accuracy against wall clock"),
    _Panel("samples", "accuracy", "Accuracy against samples"),
    _Panel("seconds", "loss", "Loss against wall clock", True),
    _Panel("samples", "loss", "Loss against samples", True),
)
_DISAGREEMENT = (
    _Panel("seconds", "consensus_distance", "Consensus distance", True),
    _Panel("seconds", "mean_backups", "Backups per round, mean over ranks"),
)


def quality(runs: Mapping[str, Sequence[Metrics]]) -> go.Figure | None:
    """Accuracy and loss of the averaged model; None if no run knows either.

    Parameters
    ----------
    runs
        Lines of ``metrics.jsonl`` by the label of the run.
    """
    known = any(math.isfinite(value) for lines in runs.values() for line in lines for value in (line.accuracy, line.loss))
    return _draw(runs, _QUALITY, 640) if known else None


def disagreement(runs: Mapping[str, Sequence[Metrics]]) -> go.Figure | None:
    """Consensus distance and mean backups against seconds; None if there are no lines."""
    return _draw(runs, _DISAGREEMENT, 340) if any(runs.values()) else None


def _draw(runs: Mapping[str, Sequence[Metrics]], panels: Sequence[_Panel], height: int) -> go.Figure:
    rows = len(panels) // 2
    titles = [panel.title for panel in panels]
    figure = make_subplots(rows, 2, subplot_titles=titles, horizontal_spacing=0.09, vertical_spacing=0.17)
    for place, panel in enumerate(panels):
        at = {"row": place // 2 + 1, "col": place % 2 + 1}
        seen = [getattr(line, panel.y) for lines in runs.values() for line in lines]
        axis = _logarithmic(seen) if panel.logarithmic else None
        for number, (label, lines) in enumerate(runs.items()):
            # Ranks that agree exactly, as under all-reduce, have distance 0, which no logarithm shows.
            least = 0.0 if axis is not None else -math.inf
            figure.add_trace(_line(label, lines, panel, number, least).update(showlegend=place == 0), **at)
        figure.update_xaxes(title_text=_X_TITLES[panel.x], rangemode="tozero", **at)
        figure.update_yaxes(**(axis or {"rangemode": "tozero"}), **at)
    below = {"orientation": "h", "x": 0.5, "xanchor": "center", "y": -0.13 if rows > 1 else -0.25, "yanchor": "top"}
    framed(figure, height, showlegend=len(runs) > 1, legend=below)
    return figure.update_layout(margin_b=90 if len(runs) > 1 else 52)


def _logarithmic(values: Iterable[float]) -> dict[str, object] | None:
    """An axis for values over orders of magnitude, if there are any that have a logarithm."""
    positive = [value for value in values if 0 < value < math.inf]
    if not positive:
        return None
    spread = max(positive) / min(positive)
    # Labels at powers of ten alone, at 1, 2 and 5 times them, at every digit, or wherever there is room.
    dtick = next((dtick for least, dtick in ((1000, 1), (10, "D2"), (2, "D1")) if spread > least), None)
    return {"type": "log", "dtick": dtick, "tickformat": "~g"}


def _line(label: str, lines: Sequence[Metrics], panel: _Panel, number: int, least: float) -> go.Scatter:
    points = [(getattr(lines[k], panel.x), getattr(lines[k], panel.y)) for k in thin(len(lines))]
    return go.Scatter(
        x=[x for x, _ in points],
        y=[y if math.isfinite(y) and y > least else None for _, y in points],
        name=shown(label),
        legendgroup=str(number),
        mode="lines+markers",
        line={"color": colour(number), "width": 2, "dash": dash(number)},
        marker={"size": 5},
        hovertemplate="%{x:.4~s}: %{y:.4g}",
    )
