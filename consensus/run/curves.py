"""Pictures of runs against wall-clock time, several runs on the same axes."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from consensus.run.results import Metrics

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_PANELS = (
    ("accuracy", "Accuracy of the averaged model", "test accuracy", False),
    ("loss", "Loss of the averaged model", "test cross-entropy", True),
    ("consensus_distance", "Distance between the ranks", "consensus distance", True),
    ("mean_backups", "Neighbours not waited for", "backups per round", False),
)


CURVES = "curves.png"
"""The picture of one run, in its folder."""

_LOG = logging.getLogger("consensus")


@contextmanager
def dispensable(path: Path) -> Iterator[None]:
    """Do without a picture that cannot be written: say so, and leave no half of it."""
    try:
        yield
    except OSError as error:
        with suppress(OSError):
            path.unlink(missing_ok=True)
        _LOG.warning("%s: the picture cannot be written (%s); the numbers are there all the same", path, error.strerror or error)


def draw_curves(runs: Mapping[str, Sequence[Metrics]], path: str | PathLike[str]) -> None:
    """Draw accuracy, loss, consensus distance and backups of runs against seconds.

    Parameters
    ----------
    runs
        Lines of ``metrics.jsonl`` by the label of the run.
    path
        The picture to write; its suffix says in which format.
    """
    # Loaded here, not above: it takes a second, and ranks other than 0 draw nothing.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 7.5), layout="constrained")
    axes = figure.subplots(2, 2, sharex=True).flat
    for axis, (key, title, label, logarithmic) in zip(axes, _PANELS, strict=True):
        _draw(axis, runs, key, logarithmic)
        axis.set_title(title, fontsize=11)
        axis.set_ylabel(label)
        axis.xaxis.set_tick_params(labelbottom=True)
        axis.grid(alpha=0.3)
        axis.set_xlim(left=0)
    for axis in (figure.axes[2], figure.axes[3]):
        axis.set_xlabel("seconds")
    handles = figure.axes[0].get_lines()
    figure.legend(handles, list(runs), loc="outside lower center", ncols=min(4, max(1, len(runs))), frameon=False)
    figure.savefig(path, dpi=110)


def _draw(axis: Axes, runs: Mapping[str, Sequence[Metrics]], key: str, logarithmic: bool) -> None:
    for lines in runs.values():
        values = [getattr(line, key) for line in lines]
        axis.plot([line.seconds for line in lines], values, marker="o", markersize=3, linewidth=1.6)
    seen = [getattr(line, key) for lines in runs.values() for line in lines]
    # Ranks that agree exactly, as under all-reduce, have distance 0, which no logarithm shows.
    if logarithmic and any(value > 0 for value in seen):
        axis.set_yscale("log", nonpositive="mask")
    elif not logarithmic:
        axis.set_ylim(bottom=0)
