"""``consensus launch``: start a script of one's own as MPI ranks."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from consensus.cli.options import Hostfile, LostAfter, MpiOptions, Mpirun, words

Ranks = Annotated[int, typer.Option("-n", "--ranks", min=1, help="How many ranks to start.")]
Script = Annotated[
    str, typer.Argument(metavar="SCRIPT", help="A Python script, or -m before a module's name.", show_default=False)
]
Arguments = Annotated[
    list[str] | None, typer.Argument(metavar="[ARGUMENTS]...", help="Passed to the script.", show_default=False)
]


def launch(
    n: Ranks,
    script: Script,
    arguments: Arguments = None,
    hostfile: Hostfile = None,
    mpirun: Mpirun = None,
    mpi_option: MpiOptions = None,
    lost_after: LostAfter = None,
) -> None:
    """Start a Python script as MPI ranks: with the launcher that fits, and such that a rank that raises ends the job.

    consensus launch -n 8 train.py --epochs 3
    """
    from consensus.errors import ConfigError, LaunchError
    from consensus.launcher import command
    from consensus.transport.launched import launched

    if launched():
        raise LaunchError("this process is a rank already; start `consensus launch` without mpirun or srun")
    if script != "-m" and not Path(script).is_file():
        raise ConfigError(f"no script {script!r}, expected a Python file or -m MODULE")
    program, extra = [script, *(arguments or [])], words(mpi_option)
    job = command(n, program, hostfile=hostfile, extra=extra, lost_after=lost_after, mpirun=mpirun)
    sys.stdout.flush()
    sys.stderr.flush()
    # The launcher takes this process's place: signals, standard input and the exit code are the script's own affair.
    os.execve(job.argv[0], job.argv, job.env)
