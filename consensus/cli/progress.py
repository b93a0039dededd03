"""Live progress of a run, on rank 0 only: a bar on a terminal, a plain line now and then elsewhere.

The training loop hands over a status and goes on; drawing is another thread's work, a few times a second. Under a launcher a
rank cannot tell where its output goes (Open MPI gives every rank a pseudo-terminal, whatever mpirun's own output is), so a rank
draws only if the command that launched it, which can tell, said so.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType
from typing import Self

from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TextColumn
from rich.text import Text

from consensus.cli.console import console
from consensus.cli.options import Mode
from consensus.config import RunConfig
from consensus.run.status import Report, Status
from consensus.types import Seconds

INTERVAL: Seconds = 2.0
"""Between two plain lines."""


def show(mode: Mode, config: RunConfig) -> AbstractContextManager[Report | None]:
    """What shows the progress of a run while it is entered; it is None where nothing is shown.

    Parameters
    ----------
    mode : Mode
        Not AUTO.
    config : RunConfig
        Says how far it is to the end.
    """
    displays: dict[Mode, Callable[[RunConfig], AbstractContextManager[Report]]] = {Mode.LIVE: _Bar, Mode.LINES: _Lines}
    display = displays.get(mode)
    return nullcontext() if display is None else display(config)


def fraction(status: Status, config: RunConfig) -> float | None:
    """How much of the run is done, from 0 to 1, by the stop condition that is nearest; None if it cannot be known.

    Parameters
    ----------
    status : Status
        Where the run is.
    config : RunConfig
        Says where it ends.
    """
    stop = config.run.stop
    parts = [
        done / wanted
        for done, wanted in ((status.samples, stop.samples), (status.seconds, stop.seconds), (status.rounds, stop.rounds))
        if wanted is not None
    ]
    return min(1.0, max(parts)) if parts else None


def describe(status: Status) -> str:
    """A status in words.

    Examples
    --------
    >>> describe(Status(seconds=3.21, samples=12_345, samples_wanted=50_000, rounds=210, loss=0.2345, mean_backups=1.25))
    '3.2 s, 12 345 of 50 000 samples, 210 rounds, loss 0.234, 1.25 backups a round'
    """
    if status.evaluating:
        return f"{status.seconds:.1f} s of training; evaluating the averaged models"
    wanted = "" if status.samples_wanted is None else f" of {_grouped(status.samples_wanted)}"
    loss = f"{status.loss:.3g}" if math.isfinite(status.loss) else str(status.loss)
    return (
        f"{status.seconds:.1f} s, {_grouped(status.samples)}{wanted} samples, {_grouped(status.rounds)} rounds, "
        f"loss {loss}, {status.mean_backups:.2f} backups a round"
    )


def _grouped(number: int) -> str:
    return f"{number:,}".replace(",", " ")


class _Lines:
    def __init__(self, config: RunConfig) -> None:
        self._name = config.run.name
        self._next: Seconds | None = None
        self._evaluating = False

    def __enter__(self) -> Report:
        return self._report

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        pass

    def _report(self, status: Status) -> None:
        began_evaluating = status.evaluating and not self._evaluating
        after = (status.seconds // INTERVAL + 1) * INTERVAL if not status.evaluating else math.inf
        if self._next is None:
            # The clock of a resumed run does not begin at 0, and when it begins there is nothing to tell yet.
            self._next = after
        if status.seconds >= self._next or began_evaluating:
            self._evaluating, self._next = status.evaluating, after
            print(f"{self._name}: {describe(status)}", flush=True)


class _StatusColumn(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(task.fields["words"], style="dim", no_wrap=True, overflow="ellipsis")


class _Bar:
    def __init__(self, config: RunConfig) -> None:
        self._config = config
        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(bar_width=24), _StatusColumn())
        # Whoever asked for a bar knows that there is a terminal, also behind a launcher.
        self._progress = Progress(*columns, console=console(terminal=True), refresh_per_second=4, transient=True)
        self._task = self._progress.add_task(config.run.name, total=None, words="starting")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._progress.stop()

    def __call__(self, status: Status) -> None:
        done = fraction(status, self._config)
        total = None if done is None or status.evaluating else 1.0
        self._progress.update(self._task, completed=done or 0.0, total=total, words=describe(status))
