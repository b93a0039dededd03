"""``consensus submit``: a run as a Slurm job that is queued anew at its time limit and goes on."""

from __future__ import annotations

import shlex
import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from consensus.cli.options import DataDir, LostAfter, MpiOptions, Mpirun, RunFile, Settings
from consensus.cli.run import Out, check, override

if TYPE_CHECKING:
    from consensus.slurm import Job

Nodes = Annotated[int, typer.Option("--nodes", "-N", help="How many nodes.", show_default=False)]
Tasks = Annotated[int, typer.Option("--ntasks-per-node", help="Ranks on each of them.", show_default=False)]
Time = Annotated[
    str, typer.Option("--time", "-t", help="Limit of each start, as Slurm writes it: minutes, or as in 01:30:00, or 2-12.")
]
Partition = Annotated[
    str | None, typer.Option("--partition", "-p", help="Where to queue; the cluster's default without it.", show_default=False)
]
Notice = Annotated[int, typer.Option("--notice", help="Seconds before the limit at which ranks are asked to end.")]
SbatchOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--sbatch-option", metavar="OPTION", help="A further option for sbatch, as in --account=physics; repeatable.",
        show_default=False,
    ),
]  # fmt: skip
Script = Annotated[
    Path | None, typer.Option("--script", help="Where to write the script; by default among the results.", show_default=False)
]
Submit = Annotated[bool, typer.Option("--submit/--no-submit", help="Hand the script to sbatch, or only write it.")]


def submit(
    file: RunFile,
    nodes: Nodes,
    ntasks_per_node: Tasks,
    time: Time = "01:00:00",
    partition: Partition = None,
    notice: Notice = 120,
    sbatch_option: SbatchOptions = None,
    data_dir: DataDir = None,
    settings: Settings = None,
    out: Out = None,
    script: Script = None,
    submit: Submit = True,
    mpirun: Mpirun = None,
    mpi_option: MpiOptions = None,
    lost_after: LostAfter = None,
) -> None:
    """Run an experiment as a Slurm job; with checkpoints it is queued anew at its time limit, and goes on.

    Writes a script for sbatch, and submits it. The run file is checked first.
    """
    from consensus import slurm
    from consensus.cli.console import console

    job = slurm.Job(nodes, ntasks_per_node, time, notice, sbatch_options(partition, sbatch_option))
    changes = [*(settings or []), *override("run.out", out)]
    check_ranks(file, changes, data_dir, job)
    config = check(file, [*changes, *override("run.ranks", job.ranks)], data_dir)
    name, results, resumes = config.run.name, Path(config.run.out), config.checkpoint.every is not None
    command = program(file, settings or [], data_dir, again(mpirun=mpirun, mpi_option=mpi_option, lost_after=lost_after), resumes)
    text = slurm.render(job, command, name, results, slurm.RESTARTS if resumes else 0)
    target = write(text, job, name, results, script)
    if not resumes:
        console().print(
            "there are no checkpoints, so at the time limit the run ends with what it has; to go on then: "
            "--set 'checkpoint.every=\"60 s\"'",
            style="yellow", soft_wrap=True, markup=False,
        )  # fmt: skip
    if submit:
        hand_over(target, name, results)


def sbatch_options(partition: str | None, further: list[str] | None) -> list[str]:
    """What is asked of ``sbatch`` beyond nodes, ranks and time."""
    return [*([] if partition is None else [f"--partition={shlex.quote(partition)}"]), *(further or [])]


def write(text: str, job: Job, name: str, results: Path, script: Path | None) -> Path:
    """Write a job's script, among its results unless ``script`` names another file, and say where it is.

    Raises
    ------
    ConfigError
        If it cannot be written.
    """
    from consensus.cli.console import console
    from consensus.errors import ConfigError

    target = script or results / f"{name}-{datetime.now():%Y%m%d-%H%M%S}.sbatch"
    try:
        results.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{target} cannot be written ({error.strerror or error}); name another file: --script FILE") from error
    said = f"{job.nodes} x {job.tasks_per_node} ranks, {job.time} at a time: {target}"
    console().print(said, soft_wrap=True, markup=False)
    return target


def hand_over(target: Path, name: str, results: Path) -> None:
    """Submit a job's script, and say which number it has got and where it prints."""
    from consensus import slurm
    from consensus.cli.console import console

    number = slurm.submit(target)
    console().print(f"job {number}; it prints to {slurm.log(results, name, number)}", soft_wrap=True, markup=False)


def check_ranks(file: str, changes: list[str], data_dir: Path | None, job: Job) -> None:
    """Make sure that the run file, if it says how many ranks there are, means as many as the job has.

    Raises
    ------
    ConfigError
        If it does not.
    """
    from consensus.config import load
    from consensus.errors import ConfigError

    meant = load(file, changes, data_dir).run.ranks
    if meant is not None and meant != job.ranks:
        raise ConfigError(
            f"--nodes {job.nodes} --ntasks-per-node {job.tasks_per_node} are {job.ranks} ranks, but run.ranks is {meant}; "
            f"change one of them, as in --set run.ranks={job.ranks}"
        )


def again(**options: Any) -> list[str]:
    """Options of this command, those that were given, as words for another one.

    Examples
    --------
    >>> again(mpirun=None, mpi_option=["--tag"], lost_after=60.0)
    ['--mpi-option', '--tag', '--lost-after', '60.0']
    """
    values = {name: value if isinstance(value, list) else [value] for name, value in options.items() if value is not None}
    return [word for name, each in values.items() for value in each for word in (f"--{name.replace('_', '-')}", str(value))]


def program(file: str, settings: list[str], data_dir: Path | None, further: list[str], resume: bool) -> list[str]:
    """The command that the job runs, with this Python, on the nodes as here.

    Examples
    --------
    >>> program("digits", ["rule.name=gap"], None, ["--lost-after", "60"], resume=True)[1:]
    ['-m', 'consensus', 'run', 'digits', '--set', 'rule.name=gap', '--lost-after', '60', '--resume', 'latest']
    """
    command = [sys.executable, "-m", "consensus", "run", file]
    command += [word for change in settings for word in ("--set", change)]
    command += ["--data-dir", str(data_dir)] if data_dir is not None else []
    return [*command, *further, *(["--resume", "latest"] if resume else [])]
