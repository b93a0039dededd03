"""Ranks that are started to find something out."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from consensus.errors import LaunchError
from consensus.launcher import command, without_launcher
from consensus.types import Seconds

PATIENCE: Seconds = 120.0


def ask_ranks(n: int, program: Sequence[str], *, hostfile: Path | None = None, mpirun: str | None = None) -> dict[str, Any] | str:
    """Start a program on ``n`` ranks, from a process that may be a rank itself, and take what one of them prints.

    Parameters
    ----------
    n : int
        How many.
    program : sequence of str
        What follows ``python -m consensus.rank``. It prints one line of JSON, a table.
    hostfile, mpirun : optional
        As in :func:`consensus.launcher.command`.

    Returns
    -------
    dict or str
        The table, or what went wrong.
    """
    try:
        job = command(n, program, hostfile=hostfile, mpirun=mpirun, environment=without_launcher(os.environ))
        done = subprocess.run(job.argv, env=job.env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE)
    except LaunchError as error:
        return str(error)
    except subprocess.TimeoutExpired:
        return f"{n} ranks were not through within {PATIENCE:.0f} s"
    reports = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not reports:
        complaint = [line for line in done.stderr.splitlines() if line.strip(" -")]
        return f"{n} ranks failed: {' / '.join(complaint[-3:]) or f'code {done.returncode}'}"
    table: dict[str, Any] = json.loads(reports[0])
    return table
