"""``consensus compare``: the same run under several rules."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from consensus.cli.options import DataDir, Mode, Progress, Ranks, RunFile, Settings

if TYPE_CHECKING:
    from consensus.cli.standings import Attempt

Rules = Annotated[
    str, typer.Option("--rule", metavar="NAME[:KEY=VALUE],...", help="The rules; the others are compared with the first.")
]
Seeds = Annotated[int, typer.Option("--seeds", min=1, help="Runs of each rule, with seeds that follow the run file's.")]
Out = Annotated[Path | None, typer.Option("--out", help="Folder for outputs, in place of run.out.", show_default=False)]


def compare(
    file: RunFile,
    rule: Rules = "full,dtur,allreduce",
    seeds: Seeds = 3,
    data_dir: DataDir = None,
    settings: Settings = None,
    ranks: Ranks = None,
    out: Out = None,
    progress: Progress = Mode.AUTO,
) -> None:
    """Run the same experiment under several rules, and tabulate medians over seeds.

    Runs go one after the other, all rules with one seed before the next seed, so that what else the machine does hits all alike.
    """
    from consensus.cli.console import console
    from consensus.cli.contest import Contest, make_folder, write_results
    from consensus.cli.ending import FAILED
    from consensus.cli.entrants import Entrant, entrants
    from consensus.cli.run import override
    from consensus.cli.standings import to_rich
    from consensus.cli.supervise import INTERRUPTED
    from consensus.errors import LaunchError
    from consensus.transport.launched import launched

    if launched():
        raise LaunchError(
            "this process is a rank already; start `consensus compare` without mpirun or srun, it launches each run itself"
        )
    changes = [*(settings or []), *override("run.ranks", ranks), *override("run.out", out)]
    contest = Contest(file, entrants(rule), changes, seeds, data_dir)
    config = contest.check()
    folder = make_folder(config, contest.kind)
    screen = console()
    total = len(contest.entrants) * seeds

    def before(entrant: Entrant, seed: int, number: int) -> None:
        screen.print(f"run {number} of {total}: {entrant.label}, seed {seed}", style="bold")

    # A bar goes away when a run is over; lines of many runs would bury what matters.
    shown = progress.resolved() if progress is not Mode.AUTO or progress.resolved() is Mode.LIVE else Mode.OFF
    attempts, interrupted = contest.hold(
        config, folder, before, lambda attempt: screen.print(outcome(attempt), soft_wrap=True), shown
    )
    rows = write_results(folder, contest, attempts)
    screen.print(to_rich(rows, f"{config.run.name}, {config.run.ranks or 1} ranks, medians over {seeds} seeds"))
    screen.print(f"results are in {folder}, the picture is {folder / 'compare.png'}", soft_wrap=True, markup=False)
    if interrupted:
        raise typer.Exit(INTERRUPTED)
    if any(attempt.summary is None for attempt in attempts):
        raise typer.Exit(FAILED)


def outcome(attempt: Attempt) -> str:
    """What came of a run, in a line."""
    from rich.markup import escape

    from consensus.cli.closing import headline

    if attempt.summary is None:
        return f"  [red]failed:[/] {escape(attempt.error.splitlines()[0])}; the other runs go on"
    return f"  {headline(attempt.summary)}"
