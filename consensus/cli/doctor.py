"""``consensus doctor``: what is installed, whether ranks find each other, and how fast they talk."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer

from consensus.cli.options import Hostfile, Mpirun, Ranks

if TYPE_CHECKING:
    from consensus.doctor.check import Check
    from consensus.doctor.survey import EdgeSpeed, Survey

STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red"}


def doctor(
    ranks: Ranks = None,
    hostfile: Hostfile = None,
    mpirun: Mpirun = None,
    survey_only: Annotated[bool, typer.Option("--survey", hidden=True)] = False,
) -> None:
    """Check Python, MPI and its launcher, then start a few ranks and measure every edge of a ring.

    Under mpirun or srun the ranks are those that were started. The exit code is 1 if something is broken.
    """
    from consensus.cli.ending import FAILED, rank_among_ranks
    from consensus.doctor.check import State
    from consensus.doctor.installation import check_installation
    from consensus.doctor.survey import check_survey, take
    from consensus.launcher import announced
    from consensus.transport.launched import default_transport, launched

    meant = announced()
    survey: Survey | None = None
    if launched():
        transport = default_transport()
        survey = take(transport)
        # Ranks that believe they are alone are all rank 0; the launcher knows better.
        if rank_among_ranks() or transport.rank:
            return
        if survey_only:
            print(json.dumps(survey.to_table()), flush=True)
            return
    elif int(os.environ.get("SLURM_PROCID", 0)) and meant is not None:
        return
    checks = list(check_installation())
    if survey is None and all(check.state is not State.FAIL for check in checks):
        # As many as a first look needs, and no more than there are processors, to measure edges and not the scheduler.
        meant = ranks or min(4, max(2, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 2))
        found = _launch_survey(meant, hostfile, mpirun)
        survey = found if not isinstance(found, tuple) else None
        checks += [found] if isinstance(found, tuple) else []
    if survey is not None:
        checks += check_survey(survey, meant)
    _print(checks, survey.edges if survey is not None else [])
    if any(check.state is State.FAIL for check in checks):
        raise typer.Exit(FAILED)


def _launch_survey(n: int, hostfile: Hostfile, mpirun: Mpirun) -> Survey | Check:
    from consensus.doctor.check import Check, State
    from consensus.doctor.survey import Survey
    from consensus.errors import LaunchError
    from consensus.launcher import command

    advice = "start something small by hand to see all of it: consensus launch -n 2 -m mpi4py.bench helloworld"
    try:
        job = command(n, ["-m", "consensus", "doctor", "--survey"], hostfile=hostfile, mpirun=mpirun)
        done = subprocess.run(job.argv, env=job.env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120)
    except LaunchError as error:
        return Check("ranks", State.FAIL, "not started", str(error))
    except subprocess.TimeoutExpired:
        return Check("ranks", State.FAIL, f"{n} ranks did not find each other within two minutes", advice)
    reports = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not reports:
        complaint = [line for line in done.stderr.splitlines() if line.strip(" -")]
        return Check("ranks", State.FAIL, f"{n} ranks failed: {' / '.join(complaint[-3:])}", advice)
    return Survey.from_table(json.loads(reports[0]))


def _print(checks: Iterable[Check], edges: Iterable[EdgeSpeed]) -> None:
    from rich.markup import escape
    from rich.table import Table

    from consensus.cli.console import console

    out = console()
    table = Table("check", "", "found", "what to do", title="consensus doctor", title_justify="left")
    for check in checks:
        table.add_row(check.name, f"[{STYLES[check.state]}]{check.state}[/]", escape(check.found), escape(check.advice))
    out.print(table)
    speeds = Table("edge", "latency, us", "swap, MB/s each way", title="Edges of the ring", title_justify="left")
    for edge in edges:
        speeds.add_row(f"{edge.i} - {edge.j}", f"{edge.latency * 1e6:.1f}", f"{edge.bandwidth / 1e6:.0f}")
    if speeds.row_count:
        out.print(speeds)
