"""Runs as TensorBoard scalars. The package tensorboard is an extra; nothing else here needs it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from consensus.errors import ConfigError
from consensus.report.load import LoadedRun
from consensus.types import Seconds

_POINTS = 500
"""Rounds are averaged over stretches, so that a rank's line has no more points."""

_AVERAGED_MODEL = ("accuracy", "loss", "consensus_distance", "mean_backups")
_ROUNDS = ("compute", "wait", "mix", "backups")


class Scalar(NamedTuple):
    """A point of a line.

    Attributes
    ----------
    tag : str
        Which line: group and name.
    value : float
        Finite.
    step : int
        Samples for the averaged model, the rank's own round for what a rank did.
    seconds : float
        On the run's clock.
    """

    tag: str
    value: float
    step: int
    seconds: Seconds


def scalars(run: LoadedRun) -> Iterator[Scalar]:
    """All points of a run: of the averaged model, and of each rank's rounds, averaged over stretches of them."""
    for line in run.metrics:
        for name in _AVERAGED_MODEL:
            value = getattr(line, name)
            if math.isfinite(value):
                yield Scalar(f"model/{name}", value, line.samples, line.seconds)
    for rank in run.columns:
        count = rank.closed.size
        for stretch in np.array_split(np.arange(count), min(count, _POINTS)) if count else ():
            last = int(stretch[-1])
            for name in _ROUNDS:
                value = float(getattr(rank, name)[stretch].mean())
                yield Scalar(f"{name}/rank-{rank.rank}", value, last + 1, float(rank.closed[last]))


def write_tensorboard(runs: Mapping[str, LoadedRun], folder: Path) -> None:
    """Write the scalars of runs, each into a folder of its own.

    Parameters
    ----------
    runs
        By label.
    folder
        What ``tensorboard --logdir`` is to be given; made if it is not there.

    Raises
    ------
    ConfigError
        If the package tensorboard is not installed, or the folder cannot be made.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ConfigError(
            f"--tensorboard needs the package tensorboard, which is not there ({error}); "
            "install it: pip install 'consensus-sgd[tensorboard]'"
        ) from error
    for label, run in runs.items():
        place = folder / re.sub(r"[^\w.=-]+", "-", label)
        begun = next((trace.started for trace in run.traces if not math.isnan(trace.started)), 0.0)
        try:
            writer = SummaryWriter(str(place))
        except OSError as error:
            raise ConfigError(
                f"{place}: no folder can be made there ({error.strerror}); give another: --tensorboard=FOLDER"
            ) from error
        with writer:
            for point in scalars(run):
                writer.add_scalar(point.tag, point.value, point.step, walltime=begun + point.seconds)
