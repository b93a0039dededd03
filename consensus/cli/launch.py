"""``consensus launch``: start a script of one's own as MPI ranks, here or as a Slurm job."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from consensus.cli import submit as run_files
from consensus.cli.options import DataDir, Hostfile, LostAfter, MpiOptions, Mpirun, Settings, words
from consensus.cli.run import Out

SLURM = "With --slurm"

Ranks = Annotated[
    int | None, typer.Option("-n", "--ranks", min=1, help="How many ranks to start; not with --slurm.", show_default=False)
]
Script = Annotated[
    str | None, typer.Argument(metavar="SCRIPT", help="A Python script, or -m before a module's name.", show_default=False)
]
Arguments = Annotated[
    list[str] | None, typer.Argument(metavar="[ARGUMENTS]...", help="Passed to the script.", show_default=False)
]
Slurm = Annotated[
    str | None,
    typer.Option(
        "--slurm", metavar="FILE", rich_help_panel=SLURM, show_default=False,
        help="Submit FILE as a Slurm job: a script, or a run file, as consensus submit does, with all its options.",
    ),
]  # fmt: skip
Nodes = Annotated[int | None, typer.Option("--nodes", "-N", help="How many nodes.", rich_help_panel=SLURM, show_default=False)]
Tasks = Annotated[
    int | None, typer.Option("--ntasks-per-node", help="Ranks on each of them.", rich_help_panel=SLURM, show_default=False)
]
Time = Annotated[
    str | None,
    typer.Option("--time", "-t", help="Limit of each start; 01:00:00 without it.", rich_help_panel=SLURM, show_default=False),
]
Notice = Annotated[
    int | None,
    typer.Option("--notice", help="As of consensus submit; run files only.", rich_help_panel=SLURM, show_default=False),
]


def launch(
    n: Ranks = None,
    script: Script = None,
    arguments: Arguments = None,
    hostfile: Hostfile = None,
    mpirun: Mpirun = None,
    mpi_option: MpiOptions = None,
    lost_after: LostAfter = None,
    slurm: Slurm = None,
    nodes: Nodes = None,
    ntasks_per_node: Tasks = None,
    time: Time = None,
    partition: run_files.Partition = None,
    sbatch_option: run_files.SbatchOptions = None,
    write_to: run_files.Script = None,
    submit: Annotated[bool | None, typer.Option("--submit/--no-submit", rich_help_panel=SLURM, show_default=False)] = None,
    notice: Notice = None,
    settings: Settings = None,
    data_dir: DataDir = None,
    out: Out = None,
) -> None:
    """Start a Python script as MPI ranks: with the launcher that fits, and such that a rank that raises ends the job.

    consensus launch -n 8 train.py --epochs 3

    consensus launch --slurm train.py --nodes 2 --ntasks-per-node 4 --epochs 3
    """
    from consensus.errors import ConfigError, LaunchError
    from consensus.launcher import command
    from consensus.transport.launched import launched

    of_run_files = _given(notice=notice, settings=settings, data_dir=data_dir, out=out)
    of_jobs = _given(
        nodes=nodes, ntasks_per_node=ntasks_per_node, time=time, partition=partition, sbatch_option=sbatch_option,
        script=write_to, submit=submit,
    )  # fmt: skip
    local = _given(hostfile=hostfile, mpirun=mpirun, mpi_option=mpi_option, lost_after=lost_after)
    if launched():
        raise LaunchError("this process is a rank already; start `consensus launch` without mpirun or srun")
    if slurm is not None:
        passed = [word for word in (script, *(arguments or [])) if word is not None]
        _as_job(slurm, n, passed, of_jobs, of_run_files, local)
        return
    if of_jobs or of_run_files:
        raise ConfigError(f"{_spelt({**of_jobs, **of_run_files})}: only with --slurm FILE")
    if n is None or script is None:
        raise ConfigError("expected -n RANKS SCRIPT, or --slurm FILE --nodes N --ntasks-per-node M")
    if script != "-m" and not Path(script).is_file():
        raise ConfigError(f"no script {script!r}, expected a Python file or -m MODULE")
    program, extra = [script, *(arguments or [])], words(mpi_option)
    job = command(n, program, hostfile=hostfile, extra=extra, lost_after=lost_after, mpirun=mpirun)
    sys.stdout.flush()
    sys.stderr.flush()
    # The launcher takes this process's place: signals, standard input and the exit code are the script's own affair.
    os.execve(job.argv[0], job.argv, job.env)


def _as_job(
    file: str, n: int | None, passed: list[str], of_jobs: dict[str, Any], of_run_files: dict[str, Any], local: dict[str, Any]
) -> None:
    from consensus.errors import ConfigError

    lacking = [option for option in ("nodes", "ntasks_per_node") if option not in of_jobs]
    if lacking:
        raise ConfigError(f"{_spelt(lacking)} missing; expected --slurm FILE --nodes N --ntasks-per-node M")
    if n is not None:
        raise ConfigError("-n does not go with --slurm: ranks are --nodes times --ntasks-per-node; leave it out")
    if "hostfile" in local:
        raise ConfigError("--hostfile does not go with --slurm, which says itself which hosts there are; leave it out")
    if not file.endswith(".py"):
        if passed:
            raise ConfigError(f"{' '.join(passed)!r}: a run file takes no arguments; to change its keys, --set KEY=VALUE")
        run_files.submit(file, **of_jobs, **of_run_files, **local)
        return
    if of_run_files:
        raise ConfigError(f"{_spelt(of_run_files)}: only with a run file, and {file} is a script")
    if not Path(file).is_file():
        raise ConfigError(f"no script {file!r}, expected a Python file or a run file")
    _submit_script(file, passed, local, **of_jobs)


def _submit_script(
    file: str,
    arguments: list[str],
    local: dict[str, Any],
    *,
    nodes: int,
    ntasks_per_node: int,
    time: str = "01:00:00",
    partition: str | None = None,
    sbatch_option: list[str] | None = None,
    script: Path | None = None,
    submit: bool = True,
) -> None:
    from consensus import slurm

    job = slurm.Job(nodes, ntasks_per_node, time, None, run_files.sbatch_options(partition, sbatch_option))
    start = [sys.executable, "-m", "consensus", "launch", *run_files.again(**local)]
    name, results = Path(file).stem, Path.cwd()
    text = slurm.render_script(job, start, [file, *arguments], name, results)
    target = run_files.write(text, job, name, results, script)
    if submit:
        run_files.hand_over(target, name, results)


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None and value != []}


def _spelt(options: Any) -> str:
    spelling = {"settings": "--set"}
    return ", ".join(spelling.get(name, f"--{name.replace('_', '-')}") for name in options)
