"""Checkpoints of a run, and how a run goes on from one."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from consensus.checkpoint.due import Due
from consensus.checkpoint.folder import Moment
from consensus.checkpoint.state import capture, restore
from consensus.checkpoint.store import Store
from consensus.config import RunConfig
from consensus.errors import ConfigError
from consensus.run.prepare import Task
from consensus.statistics import Statistics
from consensus.transport.base import Transport
from consensus.types import Rank, Round, Seconds

FOLDER = "checkpoints"
"""The folder in a run's."""

LATEST = "latest"
"""In place of a run: the newest of its name that has a complete set of checkpoints, or none."""

_LOG = logging.getLogger("consensus")


@dataclass(frozen=True)
class Position:
    """Where one rank goes on.

    Attributes
    ----------
    rounds : int
        That it had closed.
    steps : int
        Local steps that it had taken.
    samples : int
        That it had processed.
    seconds : float
        On the run's clock, the same at all ranks.
    statistics : Statistics
        Its sums so far.
    training : mapping or None
        What :func:`consensus.checkpoint.state.capture` took; None if all ranks start from the mean of the models.
    """

    rounds: Round
    steps: int
    samples: int
    seconds: Seconds
    statistics: Statistics
    training: Mapping[str, Any] | None

    def restore(self, task: Task) -> None:
        """Put the training back where it was."""
        if self.training is not None:
            restore(self.training, task.model, task.optimizer, task.scheduler, task.sampler)


class Checkpoints:
    """One rank's checkpoints while it trains.

    Parameters
    ----------
    config
        Of the run; ``checkpoint.every`` is set.
    folder
        Of the run.
    task
        What is trained.
    rank, size
        Whose, of how many.
    rounds, seconds
        Where the rank begins.
    """

    def __init__(
        self, config: RunConfig, folder: Path, task: Task, rank: Rank, size: int, rounds: Round, seconds: Seconds
    ) -> None:
        assert config.checkpoint.every is not None
        self._due = Due.parse(config.checkpoint.every)
        self._store = Store(folder / FOLDER, rank, size, config.checkpoint.keep, run=config.run.name)
        self._task = task
        self._written = self._due.number(rounds=rounds, seconds=seconds)

    def look(self, statistics: Statistics, steps: int, samples: int, seconds: Seconds, lost: Collection[Rank]) -> None:
        """Write one if it is due, after each step; of ranks that are ``lost`` a set needs no file."""
        number = self._due.after(self._written, rounds=statistics.rounds, seconds=seconds)
        if number is not None:
            self._written = number
            self._write(number, statistics, steps, samples, seconds, lost, last=False)

    def end(self, statistics: Statistics, steps: int, samples: int, seconds: Seconds, lost: Collection[Rank]) -> None:
        """Write the last one: this rank stops."""
        number = self._due.next(rounds=statistics.rounds, seconds=seconds)
        self._write(number, statistics, steps, samples, seconds, lost, last=True)

    def _write(
        self,
        number: int,
        statistics: Statistics,
        steps: int,
        samples: int,
        seconds: Seconds,
        lost: Collection[Rank],
        *,
        last: bool,
    ) -> None:
        task = self._task
        state = {
            "training": capture(task.model, task.optimizer, task.scheduler, task.sampler),
            "statistics": asdict(statistics),
            "steps": steps,
            "samples": samples,
        }
        self._store.write(number, state, rounds=statistics.rounds, seconds=seconds, lost=lost, last=last)


@dataclass(frozen=True)
class Found:
    """A set of checkpoints to go on from.

    Attributes
    ----------
    run : Path
        The run's folder.
    moment : Moment
        Which set.
    ranks : int
        How many there were.
    """

    run: Path
    moment: Moment
    ranks: int

    def told(self) -> dict[str, Any]:
        """What ``summary.json`` says of it."""
        return {"run": str(self.run), "set": str(self.moment), "ranks": self.ranks}


def find(config: RunConfig, name: str) -> Found | None:
    """The newest complete set of a run.

    Parameters
    ----------
    config
        Of the run that is to go on.
    name
        Folder of the earlier run, or :data:`LATEST`.

    Returns
    -------
    Found or None
        None for :data:`LATEST` if there is none yet: the run begins.

    Raises
    ------
    ConfigError
        If the folder has none.
    """
    if name == LATEST:
        runs = sorted(Path(config.run.out).glob(f"{config.run.name}-*/{FOLDER}"), key=lambda path: path.stat().st_mtime)
        return next((found for path in reversed(runs) if (found := _newest(path.parent)) is not None), None)
    run = Path(name)
    found = _newest(run) if (run / FOLDER).is_dir() else None
    if found is None:
        raise ConfigError(
            f"--resume {name}: no complete set of checkpoints in {run / FOLDER}; name the folder of a run that had "
            f"checkpoint.every set, or {LATEST!r} for the newest"
        )
    return found


def _newest(run: Path) -> Found | None:
    store = Store(run / FOLDER, 0, 1)
    moment = store.newest()
    if moment is None:
        return None
    return Found(run, moment, max(header.size for header in store.headers(moment).values()))


def take_up(found: Found, task: Task, transport: Transport) -> Position:
    """Where this rank goes on. Collective; before the ranks start alike.

    With as many ranks as before each goes on where it was. With another number, or where a rank left no file, all start from the
    mean of the models, and say so: optimizers and samplers start afresh.

    Raises
    ------
    CheckpointError
        If a file cannot be read, or is of another model.
    """
    store = Store(found.run / FOLDER, 0, 1)
    headers = store.headers(found.moment)
    rank, size = transport.rank, transport.size
    seconds = max(header.seconds for header in headers.values())
    if found.ranks == size and len(headers) == size:
        state = store.read(found.moment, rank)
        statistics = Statistics(**state["statistics"])
        return Position(statistics.rounds, state["steps"], state["samples"], seconds, statistics, state["training"])
    samples = 0
    if rank == 0:
        samples = _average(store, found.moment, headers, task)
        _LOG.warning(
            "%s has checkpoints of %d ranks, %d of them whole, and now there are %d: all start from the mean of the models; "
            "optimizers, learning-rate schedules and samplers start afresh",
            found.run, found.ranks, len(headers), size,
        )
    samples = transport.gather(samples)[0]
    own = samples // size + (rank < samples % size)
    return Position(0, 0, own, seconds, Statistics(), None)


@torch.no_grad()
def _average(store: Store, moment: Moment, headers: Mapping[Rank, Any], task: Task) -> int:
    """Make the task's model the mean of all; return their samples."""
    total: dict[str, torch.Tensor] = {}
    samples = 0
    for rank in headers:
        state = store.read(moment, rank)
        samples += state["samples"]
        for name, value in state["training"]["model"].items():
            if not (value.is_floating_point() or value.is_complex()):
                total.setdefault(name, value)
            elif name in total:
                total[name] += value.to(total[name].dtype)
            else:
                total[name] = value.to(torch.float64 if value.is_floating_point() else torch.complex128)
    for name, value in task.model.state_dict().items():
        mean = total[name]
        value.copy_(mean / len(headers) if mean.is_floating_point() or mean.is_complex() else mean)
    return samples


