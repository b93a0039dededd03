"""What all figures share: colours that work on light and dark, sizes, and text that Plotly shows as it is."""

from __future__ import annotations

import html
from collections.abc import Sequence

import plotly.graph_objects as go

SERIES = ("#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#8c6bb1", "#a6761d")
"""One a run. Okabe and Ito's palette, which the colour-blind can tell apart, less the yellow and the black that pages hide."""

PARTS = {"compute": "#009e73", "wait": "#e69f00", "mix": "#0072b2", "other": "#9aa5b1"}
"""One for each part of a rank's time."""

SCALE = ((0.0, "#dfe9f2"), (0.35, "#9ecae1"), (0.7, "#4292c6"), (1.0, "#08519c"))
"""From nothing to much, for areas."""

LINE_SCALE = ((0.0, "#a3afbb"), (0.5, "#e0a030"), (1.0, "#c2410c"))
"""From nothing to much, for lines: what is nothing is to be seen as well, and all of it on light and on dark."""

POINTS = 1000
"""A line has no more of them: a screen has not."""


def shown(text: object) -> str:
    """Text as Plotly is to show it; it takes some HTML for markup, and links at that.

    Examples
    --------
    >>> shown('<a href="http://example.org">run</a>')
    '&lt;a href=&quot;http://example.org&quot;&gt;run&lt;/a&gt;'
    """
    return html.escape(str(text))


def colour(number: int) -> str:
    """That of a run."""
    return SERIES[number % len(SERIES)]


def dash(number: int) -> str:
    """That of a run: another one when the colours begin again."""
    return ("solid", "dash", "dot")[number // len(SERIES) % 3]


def thin(count: int) -> Sequence[int]:
    """Which of so many points to draw: evenly spread, the last among them.

    Examples
    --------
    >>> list(thin(3)), len(thin(20_000)) <= POINTS, thin(20_000)[-1]
    ([0, 1, 2], True, 19999)
    """
    stride = -(-count // POINTS)
    return range(count - 1, -1, -stride)[::-1] if stride else ()


def framed(figure: go.Figure, height: int, **layout: object) -> go.Figure:
    """The figure with the layout that all have; colours of text and lines are the page's affair."""
    figure.update_layout(
        template={},
        height=height,
        margin={"l": 64, "r": 24, "t": 40, "b": 52},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        hoverlabel={"namelength": -1},
        **layout,
    )
    return figure
