"""``consensus run``: one experiment, as a rank of a job that somebody started, or starting the ranks itself."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterable
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Never

import typer

from consensus.cli.options import (
    DataDir,
    Hostfile,
    LostAfter,
    Mode,
    MpiOptions,
    Mpirun,
    Progress,
    Quiet,
    Ranks,
    RunFile,
    Settings,
    words,
)

if TYPE_CHECKING:
    from consensus.cli.receipts import Receipts
    from consensus.config import RunConfig
    from consensus.launcher import Launch

Out = Annotated[Path | None, typer.Option("--out", help="Folder for outputs, in place of run.out.", show_default=False)]
Resume = Annotated[
    str | None,
    typer.Option(
        "--resume",
        help="Go on from the checkpoints of an earlier run: its folder, or 'latest' for the newest that has some (none: begin).",
        show_default=False,
    ),
]


def run(
    file: RunFile,
    data_dir: DataDir = None,
    settings: Settings = None,
    ranks: Ranks = None,
    out: Out = None,
    progress: Progress = Mode.AUTO,
    quiet: Quiet = False,
    hostfile: Hostfile = None,
    mpirun: Mpirun = None,
    mpi_option: MpiOptions = None,
    lost_after: LostAfter = None,
    resume: Resume = None,
    closing: Annotated[bool, typer.Option("--closing/--no-closing", hidden=True)] = True,
    receipt: Annotated[Path | None, typer.Option("--receipt", hidden=True)] = None,
) -> None:
    """Run an experiment from a run file; every key can be changed with --set.

    Under mpirun or srun this process is one of the ranks. Started alone, it starts run.ranks of them. Ctrl-C ends the run in good
    order and keeps what there is; a second one ends it at once.
    """
    from consensus.transport.launched import launched

    changes = [*(settings or []), *override("run.ranks", ranks), *override("run.out", out)]
    if launched():
        _be_a_rank(file, changes, data_dir, progress, quiet, closing, resume)
        if receipt is not None:
            receipt.touch()
        return
    from consensus.cli.ending import complain
    from consensus.cli.receipts import receipts
    from consensus.cli.supervise import supervise
    from consensus.errors import LaunchError
    from consensus.launcher import check_not_singleton

    check_not_singleton(1)
    config = check(file, changes, data_dir)
    size = config.size or 1
    found = None
    if resume is not None:
        from consensus.run.checkpoints import find

        found = find(config, resume, size)
    if size == 1:
        _be_a_rank(file, changes, data_dir, progress, quiet, closing, resume)
        return
    shown = progress.resolved(config.run.progress and not quiet)
    from consensus.cli.deaths import Aftermath  # loads torch

    aftermath = Aftermath(config, found)
    with receipts(Path(config.run.out), config.run.name) as signs:
        job = rank_job(
            file, changes, data_dir, size, shown,
            quiet=quiet, hostfile=hostfile, mpirun=mpirun, extra=words(mpi_option), lost_after=lost_after, resume=resume,
            signs=signs,
        )  # fmt: skip
        outcome = supervise(
            job, on_interrupt=announce_interrupt, done=signs.done.exists, failed=signs.failed.exists, tee_errors=True
        )
        told = aftermath.told(job, outcome)
        if told is not None:
            complain(told)
        if outcome.killed:
            complain("a rank ended with an error, as it says above; others, which may be stopped, did not follow and were killed")
        if outcome.code == 0 and not signs.done.exists():
            raise LaunchError(
                "the launcher says that all is well, but the run has no results: a host was lost, or too many ranks were; with "
                "checkpoints, --resume latest goes on from the newest"
            )
    raise typer.Exit(outcome.code)


def override(key: str, value: object | None) -> list[str]:
    """The setting that an option stands for, if it was given."""
    return [] if value is None else [f"{key}={json.dumps(value if isinstance(value, int) else str(value), ensure_ascii=False)}"]


def check(file: str, changes: list[str], data_dir: Path | None) -> RunConfig:
    """Everything that can be known to be wrong before a rank starts.

    Returns
    -------
    RunConfig
        What the ranks will run.

    Raises
    ------
    ConfigError
        If it cannot be run.
    """
    from consensus.config import load

    config = load(file, changes, data_dir)
    size = config.size or 1
    config.check(size)
    check_writable(config.run.out)
    from consensus.run.prepare import check_names  # loads torch, and what is above needs none to say what is wrong

    check_names(config, size)
    return config


def check_writable(out: str) -> None:
    """Make sure that a folder for results can be made.

    Raises
    ------
    ConfigError
        If it cannot.
    """
    from consensus.errors import ConfigError

    nearest = Path(out).absolute()
    while not nearest.exists():
        nearest = nearest.parent
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        what = "may not be written to" if nearest.is_dir() else "is no folder"
        raise ConfigError(f"run.out = {out!r}: {nearest} {what}; give a folder that you may write to: --out FOLDER")


def rank_job(
    file: str,
    changes: list[str],
    data_dir: Path | None,
    size: int,
    progress: Mode,
    *,
    quiet: bool = False,
    closing: bool = True,
    hostfile: Path | None = None,
    mpirun: str | None = None,
    extra: Iterable[str] = (),
    lost_after: float | None = None,
    resume: str | None = None,
    signs: Receipts | None = None,
) -> Launch:
    """What starts the ranks of a run: `consensus run` again, with the same changes, under mpirun."""
    from consensus.launcher import command

    program = ["-m", "consensus", "run", file, "--progress", str(progress)]
    program += [word for change in changes for word in ("--set", change)]
    program += ["--data-dir", str(data_dir)] if data_dir is not None else []
    program += ["--resume", resume] if resume is not None else []
    program += ["--receipt", str(signs.done)] if signs is not None else []
    program += [*(["--quiet"] if quiet else []), *([] if closing else ["--no-closing"])]
    mark = None if signs is None else signs.failed
    job = command(size, program, hostfile=hostfile, extra=extra, lost_after=lost_after, mpirun=mpirun, mark=mark)
    return widened(job, progress)


def widened(job: Launch, progress: Mode) -> Launch:
    """Tell ranks that draw how wide the terminal is, which behind the launcher they cannot see."""
    columns = {"COLUMNS": str(shutil.get_terminal_size().columns)} if progress is Mode.LIVE else {}
    return job._replace(env={**job.env, **columns})


def announce_interrupt() -> None:
    """Say what an interrupt does."""
    from consensus.cli.ending import complain

    complain("ranks finish their round and keep what they have; interrupt again to end at once", kind="interrupted")


def _be_a_rank(
    file: str, changes: list[str], data_dir: Path | None, progress: Mode, quiet: bool, closing: bool, resume: str | None
) -> None:
    from consensus.cli.closing import print_closing
    from consensus.cli.supervise import INTERRUPTED, STOP
    from consensus.config import load
    from consensus.launcher import check_not_singleton
    from consensus.transport.launched import default_transport, launched

    heed_interrupts()
    transport = default_transport()
    check_not_singleton(transport.size)
    config = load(file, changes, data_dir)
    config.check(transport.size)
    from consensus.cli.progress import show
    from consensus.run import experiment

    first = transport.rank == 0
    shown = progress.resolved(first and config.run.progress and not quiet)
    with show(shown, config) as report:
        folder = experiment.run(config, transport, report=report, resume=resume)
    signal.signal(STOP, signal.SIG_IGN)
    if transport.rank != transport.members[0]:
        return
    from consensus.run.results import read_summary

    summary = read_summary(folder)
    if closing:
        print_closing(folder, summary, quiet=quiet, terminal=True if shown is Mode.LIVE else None)
    # In a job the command that launched it knows of the interrupt, and a rank's error would end the job with noise.
    if summary["ended"] == "interrupted" and not launched():
        raise typer.Exit(INTERRUPTED)


def heed_interrupts() -> None:
    """Let a rank end at once when it is asked to; until the run takes the signal over there is nothing to keep."""
    from consensus.cli.supervise import STOP

    signal.signal(STOP, _end)


def _end(number: int, frame: FrameType | None) -> Never:
    raise KeyboardInterrupt
