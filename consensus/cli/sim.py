"""``consensus sim``: an experiment on a virtual clock, in this process."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from consensus.cli.options import DataDir, Mode, Progress, Quiet, Ranks, RunFile, Settings
from consensus.cli.run import Out, check_writable, override
from consensus.run.rows import mean_backups, trainers

if TYPE_CHECKING:
    from collections.abc import Mapping

TABLED = 64
"""A table of more ranks than this tells nothing."""


def sim(
    file: RunFile,
    timing: Annotated[bool, typer.Option("--timing", help="No gradients: how long things take, and nothing else.")] = False,
    data_dir: DataDir = None,
    settings: Settings = None,
    ranks: Ranks = None,
    out: Out = None,
    progress: Progress = Mode.AUTO,
    quiet: Quiet = False,
) -> None:
    """Simulate an experiment from a run file: the same rules and messages on a virtual clock, without MPI.

    Steps take the time that [stragglers] says, links that of [network]. The same file and seed give the same bytes.
    """
    from consensus.cli.closing import print_closing
    from consensus.cli.console import console
    from consensus.cli.supervise import INTERRUPTED
    from consensus.config import load

    config = load(file, [*(settings or []), *override("run.ranks", ranks), *override("run.out", out)], data_dir)
    check_writable(config.run.out)
    from consensus.cli.progress import show
    from consensus.run.results import read_summary
    from consensus.run.simulation import simulate

    began = time.monotonic()
    shown = progress.resolved(config.run.progress and not quiet)
    with show(shown, config) as report:
        folder = simulate(config, timing=timing, report=report)
    summary = read_summary(folder)
    print_closing(folder, summary, quiet=quiet, table=summary["ranks"] <= TABLED)
    if not quiet:
        console().print(f"{throughput(summary)}; simulated in {time.monotonic() - began:.1f} s", soft_wrap=True)
    if summary["ended"] == "interrupted":
        raise typer.Exit(INTERRUPTED)


def throughput(summary: Mapping[str, Any]) -> str:
    """What a simulation says about speed, in a sentence.

    Examples
    --------
    >>> rank = {"rounds": 10, "compute_seconds": 1.0, "wait_seconds": 0.25, "mean_backups": 0.5}
    >>> throughput({"wall_seconds": 2.0, "samples": 640, "per_rank": [rank, rank]})
    '320 samples a second; a rank computed for 1.0 s and waited for 0.2 s, with 0.50 backups a round'
    """
    seconds, rows = summary["wall_seconds"], trainers(summary)
    compute, wait = (sum(row[key] for row in rows) / len(rows) for key in ("compute_seconds", "wait_seconds"))
    backups = mean_backups(summary)
    rate = f"{summary['samples'] / seconds:,.0f}".replace(",", " ") if seconds else "infinitely many"
    shares = f"a rank computed for {compute:.1f} s and waited for {wait:.1f} s, with {backups:.2f} backups a round"
    return f"{rate} samples a second; {shares}"
