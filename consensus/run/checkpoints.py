"""Checkpoints of a run, and which of them a run goes on from."""

from __future__ import annotations

import shlex
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from consensus import config as run_files
from consensus.checkpoint.due import Due
from consensus.checkpoint.folder import CheckpointFolder, Moment
from consensus.checkpoint.state import capture
from consensus.checkpoint.store import Store
from consensus.config import RunConfig
from consensus.errors import ConfigError
from consensus.handle import Handle
from consensus.run.folder import runs_of
from consensus.run.optimizers import differences
from consensus.run.prepare import Task
from consensus.types import Seconds

FOLDER = "checkpoints"
"""The folder in a run's."""

LATEST = "latest"
"""In place of a run: the newest of its name that has a complete set of checkpoints, or none."""

_KINDS = {"neighbours": "neighbours", "server": "a parameter server", "coded": "coded gradients"}


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
    handle
        Of its optimizer, where it begins or goes on.
    seconds
        The run's clock now.
    """

    def __init__(self, config: RunConfig, folder: Path, task: Task, handle: Handle, seconds: Seconds) -> None:
        assert config.checkpoint.every is not None
        self._due = Due.parse(config.checkpoint.every)
        self._store = Store(
            folder / FOLDER, handle.rank, config.writers(handle.size), config.checkpoint.keep, run=config.run.name
        )
        self._task, self._handle = task, handle
        self._written = self._due.number(rounds=handle.progress, seconds=seconds)

    def look(self, steps: int, samples: int, seconds: Seconds) -> None:
        """Write one if it is due, after each step or update."""
        number = self._due.after(self._written, rounds=self._handle.progress, seconds=seconds)
        if number is not None:
            self._written = number
            self._write(number, steps, samples, seconds, last=False)

    def end(self, steps: int, samples: int, seconds: Seconds) -> None:
        """Write the last one: this rank stops."""
        number = self._due.next(rounds=self._handle.progress, seconds=seconds)
        self._write(number, steps, samples, seconds, last=True)

    def _write(self, number: int, steps: int, samples: int, seconds: Seconds, *, last: bool) -> None:
        task, handle = self._task, self._handle
        state = {
            "training": capture(task.model, task.optimizer, task.scheduler, task.sampler),
            "statistics": asdict(handle.statistics),
            "steps": steps,
            "samples": samples,
            "engine": handle.engine_state(),
        }
        # A set is complete without the ranks that have died.
        self._store.write(number, state, rounds=handle.progress, seconds=seconds, lost=handle.lost, last=last)


@dataclass(frozen=True)
class Found:
    """A set of checkpoints to go on from.

    Attributes
    ----------
    run : Path
        The run's folder.
    moment : Moment
        Which set.
    config : RunConfig
        Of that run.
    """

    run: Path
    moment: Moment
    config: RunConfig

    @property
    def ranks(self) -> int:
        """How many there were."""
        return self.config.run.ranks or 1

    def continued_by(self, config: RunConfig, size: int) -> bool:
        """Whether ``size`` ranks each go on where one was, optimizer and all; if not, all start from one model."""
        if config.codes:
            return True
        whole = len(Store(self.run / FOLDER, 0, 1).headers(self.moment))
        return self.ranks == size == whole and self.config.server.servers == config.server.servers

    def told(self) -> dict[str, Any]:
        """What ``summary.json`` says of it."""
        return {"run": str(self.run), "set": str(self.moment), "ranks": self.ranks}


def find(config: RunConfig, name: str, size: int) -> Found | None:
    """The newest complete set of a run.

    Parameters
    ----------
    config
        Of the run that is to go on.
    name
        Folder of the earlier run, or :data:`LATEST`.
    size
        Number of ranks that are to go on.

    Returns
    -------
    Found or None
        None for :data:`LATEST` if there is none yet: the run begins.

    Raises
    ------
    ConfigError
        If the folder has none, or those of another architecture or model, or of an optimizer that would have to go on as another.
    """
    found: Found | None
    if name == LATEST:
        runs = reversed(runs_of(config))
        found = next((found for run in runs if (found := _newest(run)) is not None), None)
        if found is None:
            return None
    else:
        run = Path(name)
        found = _newest(run) if (run / FOLDER).is_dir() else None
        if found is None:
            raise ConfigError(f"--resume {name}: {_lack(run)}")
    _check(found, config, name, size)
    return found


def _lack(run: Path) -> str:
    """Why there is nothing to go on from."""
    if CheckpointFolder(run / FOLDER).starts():
        return (
            f"none of the sets of checkpoints in {run / FOLDER} can be used: each is damaged, as the warnings say, or never was "
            f"complete; name the folder of another run, or {LATEST!r} for the newest that has one, or begin anew without --resume"
        )
    return (
        f"no complete set of checkpoints in {run / FOLDER}; name the folder of a run that had checkpoint.every set, "
        f"or {LATEST!r} for the newest"
    )


def _check(found: Found, config: RunConfig, name: str, size: int) -> None:
    """Refuse what would come to nothing after the new run's folder was made, or go on otherwise than the run file says."""
    there, here = found.config, config
    if there.kind != here.kind:
        raise ConfigError(
            f"--resume {name}: {found.run} was a run with {_KINDS[there.kind]} (rule {there.rule.name!r}), and one with "
            f"{_KINDS[here.kind]} (rule {here.rule.name!r}) cannot go on from its checkpoints; take a rule of the same kind, as "
            f"in --set rule.name={there.rule.name}, or begin anew without --resume"
        )
    if there.model != here.model:
        raise ConfigError(
            f"--resume {name}: model.name was {there.model.name!r} in {found.run}, is {here.model.name!r}: no model of that kind "
            f"is in its checkpoints; --set model.name={there.model.name} goes on, or begin anew without --resume"
        )
    changed = differences(there.optimizer, here.optimizer) if found.continued_by(here, size) else []
    if changed:
        # The states of torch's optimizers and schedulers have these values in them, and more that was computed from them: put
        # back they would go on as before, and written over they would be half one and half the other.
        raise ConfigError(
            f"--resume {name}: {'; '.join(changed)}, but the optimizer of {found.run} would go on as it was; give the settings "
            f"that it had, which are in {found.run / 'config.toml'}, or begin anew without --resume"
        )


def _newest(run: Path) -> Found | None:
    moment = Store(run / FOLDER, 0, 1).newest()
    if moment is None:
        return None
    path = run / "config.toml"
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read ({error.strerror or error}), but it says what the checkpoints are of; put it back"
        ) from error
    return Found(run, moment, run_files.loads(text, str(path)))


def way_on(config: RunConfig, run: Path, found: Found | None = None) -> str:
    """What to type to go on with a run that has ended before its time, in a sentence.

    Parameters
    ----------
    config
        Of the run.
    run
        Its folder.
    found
        What the run itself went on from, if it did.
    """
    # Only headers are looked at: several ranks may ask at once. Damage is found when somebody goes on.
    newest = next((found.moment for found in CheckpointFolder(run / FOLDER).sets() if found.complete), None)
    again = ["consensus", "run", str(run / "config.toml"), "--resume"]
    if newest is not None:
        told = f"The newest complete checkpoint is {run / FOLDER / str(newest)}"
        return f"{told}; to go on from it: {shlex.join([*again, str(run)])}"
    if found is not None:
        told = f"No checkpoint of {run} is complete, so the newest is what it went on from itself"
        return f"{told}; to do so again: {shlex.join([*again, str(found.run)])}"
    if config.checkpoint.every is not None:
        return f"No checkpoint of {run} is complete yet, so there is nothing to go on from: start again"
    return (
        f"{run} has no checkpoints to go on from: start again; with --set 'checkpoint.every=\"60 s\"', say, the next run has some"
    )
