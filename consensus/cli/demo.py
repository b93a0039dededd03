"""``consensus demo``: eight ranks learn handwritten digits, waiting for everybody and for the fastest."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from consensus.cli.options import Mode, Progress

if TYPE_CHECKING:
    from consensus.cli.contest import Contest
    from consensus.cli.standings import Row
    from consensus.config import RunConfig

RULES = "full,dtur,allreduce"

SAMPLES = 60_000
"""Over all ranks; enough for 96 % under every rule, and for a difference in time that a watcher sees."""

WORDS = {
    "full": "full: every rank averages with all its neighbours, and so waits for the slowest of them.",
    "dtur": "dtur: every rank averages with its fastest neighbours; who is late is left out of this round, and nobody waits.",
    "allreduce": "allreduce: what most people use. All average their gradients in every step, and so wait for the slowest.",
}

Out = Annotated[Path | None, typer.Option("--out", help="Folder for outputs.", show_default="runs")]


def demo(
    out: Out = None,
    progress: Progress = Mode.AUTO,
    folder: Annotated[Path | None, typer.Option("--folder", hidden=True)] = None,
) -> None:
    """Let eight ranks learn handwritten digits under three rules, with stragglers, and show who was faster. A minute or so."""
    from consensus.cli.console import console
    from consensus.cli.contest import Contest, make_folder, write_results
    from consensus.cli.ending import FAILED
    from consensus.cli.entrants import entrants
    from consensus.cli.receipts import receipts
    from consensus.cli.run import announce_interrupt, override, widened
    from consensus.cli.standings import to_rich
    from consensus.cli.supervise import INTERRUPTED, supervise
    from consensus.launcher import command
    from consensus.transport.launched import launched

    changes = [f"run.stop={{ samples = {SAMPLES} }}", *override("run.out", out)]
    contest = Contest("digits", entrants(RULES), changes, seeds=1, kind="demo")
    if launched():
        _be_a_rank(contest, folder, progress)
        return
    config = contest.configs()[0]
    folder = make_folder(config, contest.kind)
    screen = console()
    screen.print(_introduction(config))
    shown = progress.resolved()
    program = ["-m", "consensus", "demo", "--progress", str(shown), "--folder", str(folder)]
    with receipts(folder, contest.kind) as signs:
        job = widened(command(config.run.ranks or 1, program, mark=signs.failed), shown)
        outcome = supervise(job, on_interrupt=announce_interrupt, failed=signs.failed.exists)
    attempts = [contest.result(folder, entrant, seed, "no results") for entrant, seed in contest.order(config.run.seed)]
    rows = write_results(folder, contest, attempts)
    screen.print()
    screen.print(to_rich(rows, f"Digits, {config.run.ranks} ranks, {_thousands(SAMPLES)} samples"))
    screen.print(verdict(rows), soft_wrap=True)
    screen.print(f"\nThe picture is {folder / 'compare.png'}, everything else is beside it.", soft_wrap=True, markup=False)
    if outcome.interrupted:
        raise typer.Exit(INTERRUPTED)
    if outcome.code or any(attempt.summary is None for attempt in attempts):
        raise typer.Exit(outcome.code or FAILED)


def _be_a_rank(contest: Contest, folder: Path | None, progress: Mode) -> None:
    # One job for all three: eight ranks take longer to load torch on two processors than to learn digits. The clock of a run
    # starts when its ranks are ready, so that none is better off for being second.
    from consensus.cli.closing import headline
    from consensus.cli.console import console
    from consensus.cli.contest import make_folder
    from consensus.cli.progress import show
    from consensus.cli.run import heed_interrupts
    from consensus.config import load
    from consensus.run import experiment
    from consensus.run.results import read_summary
    from consensus.transport.launched import default_transport

    heed_interrupts()
    transport = default_transport()
    first = transport.rank == 0
    shown = progress.resolved(first)
    screen = console(terminal=True if shown is Mode.LIVE else None)
    configs = contest.configs()
    if folder is None:
        folder = transport.gather(make_folder(configs[0], contest.kind) if first else None)[0]
    for number, (entrant, seed) in enumerate(contest.order(configs[0].run.seed), 1):
        if first:
            screen.print(f"\n[bold]{number} of {len(configs)}[/]  {WORDS[entrant.label]}")
        config = load(contest.file, contest.settings(folder, entrant, seed))
        with show(shown, config) as report:
            summary = read_summary(experiment.run(config, transport, report=report))
        if first:
            screen.print(headline(summary), soft_wrap=True)
        if summary["ended"] == "interrupted":
            return


def _introduction(config: RunConfig) -> str:
    stragglers = config.stragglers.parameters
    return (
        f"{config.run.ranks} MPI processes on this machine ({os.cpu_count()} processors) train one network on handwritten "
        f"digits. A training step takes {1000 * stragglers['seconds']:.0f} ms; one in {1 / stragglers['probability']:.0f}, "
        f"anywhere and at any time, takes {stragglers['factor']:g} times as long: a straggler. Each run ends after the same "
        f"{_thousands(SAMPLES)} training samples, so the faster one ends earlier."
    )


def _thousands(number: int) -> str:
    return f"{number:,}".replace(",", " ")


def verdict(rows: Sequence[Row]) -> str:
    """What was measured, whichever way it went.

    Parameters
    ----------
    rows : sequence of Row
        With one for dtur.
    """
    done = {row.label: row for row in rows if row.runs}
    if "dtur" not in done or len(done) < 2:
        return "Too few runs came to their end to compare."
    own = done.pop("dtur")
    parts = []
    for label, other in done.items():
        ratio = own.seconds / other.seconds
        word = "faster" if ratio < 1 else "slower"
        parts.append(f"{max(ratio, 1 / ratio):.2f} times {word} than {label} ({own.seconds:.1f} s against {other.seconds:.1f} s)")
    return f"On the same samples dtur was {' and '.join(parts)} in this run, on this machine."
