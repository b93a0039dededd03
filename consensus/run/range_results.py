"""What a range test leaves behind: ``range-test.json``, a picture, and the line for a run file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path

import numpy as np

from consensus.config import RunConfig
from consensus.run.folder import write_atomically
from consensus.run.range_test import SAFETY, Curve
from consensus.run.results import dumps

NUMBERS = "range-test.json"
PICTURE = "range-test.png"


def setting(table: Mapping[int, float]) -> str:
    """The line of a run file's section ``[server]`` that makes steps by ``table``.

    Examples
    --------
    >>> setting({1: 0.3141592, 8: 1.0})
    'learning_rate = { name = "knee", table = { 1 = 0.314, 8 = 1 } }'
    """
    rates = ", ".join(f"{k} = {rate:.3g}" for k, rate in table.items())
    return f'learning_rate = {{ name = "knee", table = {{ {rates} }} }}'


def write_range_test(folder: Path, config: RunConfig, curves: Sequence[Curve], table: Mapping[int, float]) -> None:
    """Write ``range-test.json`` and ``range-test.png``.

    Parameters
    ----------
    folder : Path
        Is there.
    config : RunConfig
        Of the run file.
    curves : sequence of Curve
        One for each k, at least one.
    table : mapping of int to float
        As :func:`consensus.run.range_test.knee_table` returns it.
    """
    plan = curves[0].plan
    numbers = {
        "lr": config.optimizer.lr,
        "workers": config.workers(config.run.ranks or 1),
        "seed": config.run.seed,
        "start": plan.start,
        "stop": plan.stop,
        "steps": plan.steps,
        "repetitions": plan.repetitions,
        "width": plan.width,
        "safety": SAFETY,
        "table": {str(k): rate for k, rate in table.items()},
        "rates": plan.rates[:-1].tolist(),
        "curves": [
            {"k": curve.gradients, "knee": curve.knee, "knees": curve.knees.tolist(), "losses": curve.losses.tolist()}
            for curve in curves
        ],
    }
    write_atomically(folder / NUMBERS, dumps(numbers) + "\n")
    draw_range_test(curves, table, folder / PICTURE)


def draw_range_test(curves: Sequence[Curve], table: Mapping[int, float], path: str | PathLike[str]) -> None:
    """Draw the mean smoothed loss against the rate, a line for each k: a dot at the knee, a tick on the axis at the rate to take.

    Parameters
    ----------
    curves, table
        As for :func:`write_range_test`.
    path
        The picture to write; its suffix says in which format.
    """
    # Loaded here, not above: it takes a second, and what goes wrong is to be said before.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axis = figure.subplots()
    for curve in curves:
        mean = curve.smoothed.mean(axis=0)
        (line,) = axis.plot(curve.rates, mean, linewidth=1.6, label=f"k = {curve.gradients}")
        axis.plot(curve.knee, np.interp(curve.knee, curve.rates, mean), marker="o", color=line.get_color())
        axis.plot(
            table[curve.gradients], 0.02, marker="|", markersize=14, color=line.get_color(), transform=axis.get_xaxis_transform()
        )
    axis.set_xscale("log")
    axis.set_xlabel("learning rate of the step, in units of optimizer.lr")
    axis.set_ylabel("loss of the next batches, smoothed; at most that at first")
    axis.set_title("Range test: dots are knees, ticks below are the rates of the table", fontsize=11)
    axis.grid(alpha=0.3)
    axis.legend(frameon=False)
    figure.savefig(path, dpi=110)
