"""``consensus doctor``: what is installed, whether ranks find each other, how fast they talk, where they write."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from consensus.cli.options import Hostfile, Mpirun, Ranks
from consensus.transport.idle import cpus

if TYPE_CHECKING:
    from consensus.coding.layout import Layout
    from consensus.doctor.check import Check
    from consensus.doctor.survey import EdgeSpeed

STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red"}

BY_HAND = "start something small by hand to see all of it: consensus launch -n 2 -m mpi4py.bench helloworld"

Out = Annotated[Path, typer.Option("--out", help="The folder for runs, which all ranks try to write to.")]
Measure = Annotated[
    Path | None,
    typer.Option(
        "--measure",
        metavar="FILE",
        help="Measure computing and links, and write them to FILE, for coded gradients.",
        show_default=False,
    ),
]
WorkersPerEdge = Annotated[
    str | None,
    typer.Option(
        "--workers-per-edge",
        metavar="N,...",
        help="With --measure: how many workers each edge has; by default about as many as there are edges.",
        show_default=False,
    ),
]


def doctor(
    ranks: Ranks = None,
    hostfile: Hostfile = None,
    mpirun: Mpirun = None,
    out: Out = Path("runs"),
    measure: Measure = None,
    workers_per_edge: WorkersPerEdge = None,
    survey_only: Annotated[bool, typer.Option("--survey", hidden=True)] = False,
) -> None:
    """Check Python, MPI and its launcher; start a few ranks, measure every edge of a ring, and write to the folder for runs.

    Under mpirun or srun the ranks are those that were started. The exit code is 1 if something is broken.
    """
    from consensus.cli.ending import FAILED, rank_among_ranks
    from consensus.doctor.check import Check, State
    from consensus.doctor.folder import check_folder, try_folder
    from consensus.doctor.installation import check_installation
    from consensus.doctor.ranks import ask_ranks
    from consensus.doctor.survey import Survey, check_survey, take
    from consensus.launcher import announced
    from consensus.transport.launched import default_transport, launched
    from consensus.transport.single import SingleTransport

    meant = announced()
    survey: Survey | None = None
    if launched():
        transport = default_transport()
        together = meant is None or transport.size == meant
        layout = _layout(workers_per_edge, transport.size) if measure is not None and together else None
        survey = take(transport, out, layout)
        # Ranks that believe they are alone are all rank 0; the launcher knows better.
        if rank_among_ranks() or transport.rank:
            return
        if survey_only:
            print(json.dumps(survey.to_table()), flush=True)
            return
    elif int(os.environ.get("SLURM_PROCID", 0)) and meant is not None:
        return
    wanted = _wanted(ranks, measure, workers_per_edge) if survey is None else 0
    checks = list(check_installation())
    if survey is None and all(check.state is not State.FAIL for check in checks):
        meant = wanted
        asked = ["-m", "consensus", "doctor", "--survey", "--out", str(out)]
        if measure is not None:
            asked += ["--measure", str(measure), *(["--workers-per-edge", workers_per_edge] if workers_per_edge else [])]
        found = ask_ranks(meant, asked, hostfile=hostfile, mpirun=mpirun)
        if isinstance(found, str):
            checks.append(Check("ranks", State.FAIL, found, BY_HAND))
        else:
            survey = Survey.from_table(found)
    checks += [check_folder(try_folder(SingleTransport(), out))] if survey is None else check_survey(survey, meant)
    _print(checks, survey.edges if survey is not None else [])
    if survey is not None and survey.system is not None and measure is not None:
        _write(survey.system, measure)
    if any(check.state is State.FAIL for check in checks):
        raise typer.Exit(FAILED)


def _wanted(ranks: int | None, measure: Path | None, workers_per_edge: str | None) -> int:
    """How many ranks to start."""
    from consensus.config.coding import Coding
    from consensus.errors import ConfigError

    if measure is None:
        if workers_per_edge is not None:
            raise ConfigError("--workers-per-edge says what is to be measured; add --measure FILE, or leave it out")
        # As many as a first look needs, and no more than there are processors, to measure edges and not the scheduler.
        return ranks or min(4, max(2, len(cpus())))
    counts = list(_counts(workers_per_edge))
    if ranks is None and not counts:
        raise ConfigError("--measure: how many ranks? Give --ranks N, or who is to be what: --workers-per-edge 3,4,5")
    ranks = ranks or Coding(workers_per_edge=counts).size("uncoded", sum(counts))
    _layout(workers_per_edge, ranks)
    return ranks


def _layout(workers_per_edge: str | None, size: int) -> Layout:
    from consensus.config.coding import Coding

    return Coding(workers_per_edge=list(_counts(workers_per_edge)) or None).layout("uncoded", size)


def _counts(workers_per_edge: str | None) -> Iterator[int]:
    from consensus.errors import ConfigError

    for word in filter(None, (workers_per_edge or "").split(",")):
        if not word.strip().isdigit() or int(word) < 1:
            raise ConfigError(f"--workers-per-edge {workers_per_edge}: expected the number of workers of each edge, as in 3,4,5")
        yield int(word)


def _write(table: Mapping[str, Any], path: Path) -> None:
    from consensus.cli.console import console
    from consensus.coding.system import System
    from consensus.doctor.measure import BATCH

    System.from_dict(table).write(path)
    console().print(
        f"\nwhat nodes and links take is in {path}: gradients of the 2NN on {BATCH} images a part, by all workers at once; links "
        f"one by one, with nothing else on them. See it, and what to tolerate: consensus select {path}",
        soft_wrap=True,
        markup=False,
    )


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
