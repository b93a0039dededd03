"""What the pictures have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

COLOURS: Mapping[str, str] = MappingProxyType(
    {
        "allreduce": "black",
        "full": "tab:gray",
        "static_backup b=1": "tab:cyan",
        "static_backup b=2": "tab:blue",
        "dtur": "tab:red",
        "pathsearch": "tab:orange",
        "gap": "tab:green",
    }
)
"""A rule has the same colour in all of them."""


LINES: Mapping[str, str] = MappingProxyType({"static_backup b=2": "--", "gap": "-."})
"""Those that often lie on another one."""


def style(rule: str) -> dict[str, Any]:
    """How the line of ``rule`` looks."""
    width = 2.4 if rule == "dtur" else 1.5
    return {"color": COLOURS[rule], "linestyle": LINES.get(rule, "-"), "linewidth": width, "marker": "o", "markersize": 4}


def tick_at(axis: Axis, values: Sequence[float], words: str) -> None:
    """Put ticks at ``values`` and nowhere else, labelled by the format ``words``."""
    axis.set_ticks(list(values), [words.format(value) for value in values])
    axis.set_ticks([], minor=True)


def round_numbers(low: float, high: float) -> list[float]:
    """1, 3, 10, 30 ... from just below ``low`` to just above ``high``.

    Examples
    --------
    >>> round_numbers(4.0, 250.0)
    [3.0, 10.0, 30.0, 100.0, 300.0]
    """
    every = [digit * 10.0**power for power in range(-3, 7) for digit in (1.0, 3.0)]
    return [value for value in every if low / 1.5 < value < high * 1.5]


def key(rules: Sequence[str]) -> dict[str, Line2D]:
    """Lines for a legend, by rule."""
    from matplotlib.lines import Line2D

    return {rule: Line2D([], [], **style(rule)) for rule in rules}


def save(figure: Figure, path: Path) -> Path:
    """Write the picture, and the folder if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    return path
