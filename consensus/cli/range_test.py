"""``consensus range-test``: the learning rates of updates of few gradients, measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from consensus.cli.options import DataDir, Mode, Progress, Quiet, Ranks, RunFile, Settings
from consensus.cli.run import Out, check_writable, override

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.table import Table

    from consensus.run.range_test import Curve

Gradients = Annotated[
    str | None,
    typer.Option("--gradients", metavar="K,...", help="Which k; by default 1, 2, 4, ... and all workers.", show_default=False),
]
Start = Annotated[float, typer.Option("--start", help="The lowest rate, in units of optimizer.lr.")]
Stop = Annotated[float, typer.Option("--stop", help="The highest rate, in units of optimizer.lr.")]
Steps = Annotated[int, typer.Option("--steps", help="Steps from the lowest to the highest.")]
Repetitions = Annotated[int, typer.Option("--repetitions", help="Sweeps for each k.")]

LEGEND = (
    "In units of optimizer.lr = {lr:g}. Knee: the rate at which the loss ceases to fall, the median of {repetitions} sweeps; "
    "from, to: their range. Rate: half of the knee, pooled where it would fall with k."
)
"""What the columns are."""


def range_test(
    file: RunFile,
    gradients: Gradients = None,
    start: Start = 1e-3,
    stop: Stop = 1e3,
    steps: Steps = 240,
    repetitions: Repetitions = 5,
    data_dir: DataDir = None,
    settings: Settings = None,
    ranks: Ranks = None,
    out: Out = None,
    progress: Progress = Mode.AUTO,
    quiet: Quiet = False,
) -> None:
    """Measure the table of the knee rule: how long the step of an update of k gradients may be.

    Trains fresh models of a run file in this process, without MPI, while the learning rate grows, for each k; the last line
    printed goes into section [server] of the run file.
    """
    from rich.progress import Progress as Bar

    from consensus.cli.console import console
    from consensus.config import load

    wanted = parse(gradients)
    config = load(file, [*(settings or []), *override("run.ranks", ranks), *override("run.out", out)], data_dir)
    check_writable(config.run.out)
    from consensus.cli.contest import make_folder
    from consensus.run.range_results import NUMBERS, PICTURE, setting, write_range_test
    from consensus.run.range_test import Plan, knee_table
    from consensus.run.range_training import range_test as measure

    plan = Plan(start, stop, steps, repetitions)
    screen = console()
    shown = progress.resolved(config.run.progress and not quiet) is Mode.LIVE
    with Bar(console=screen, transient=True, disable=not shown) as bar:
        sweeps = bar.add_task("sweeps", total=None)
        curves = measure(config, wanted, plan, lambda done, total: bar.update(sweeps, completed=done, total=total))
    table = knee_table(curves)
    folder = make_folder(config, "range-test")
    write_range_test(folder, config, curves, table)
    if quiet:
        return
    if not config.serves:
        screen.print(
            f"rule {config.rule.name} has no server; the table is for rules that have one", style="yellow", soft_wrap=True
        )
    screen.print(to_rich(curves, table, config.run.name, config.optimizer.lr))
    screen.print(f"numbers are in {folder / NUMBERS}, the picture is {folder / PICTURE}", soft_wrap=True, markup=False)
    screen.print(f"for the run file:\n\n[server]\n{setting(table)}", soft_wrap=True, markup=False)


def parse(gradients: str | None) -> list[int]:
    """The numbers of gradients that the option says.

    Raises
    ------
    ConfigError
        If one is not a whole number.

    Examples
    --------
    >>> parse("1,2, 8"), parse(None)
    ([1, 2, 8], [])
    """
    from consensus.errors import ConfigError

    words = [word.strip() for word in gradients.split(",")] if gradients is not None else []
    for word in words:
        if not word.isdecimal():
            raise ConfigError(f"--gradients {gradients}: {word!r}, expected whole numbers with commas between, as in 1,2,4,8")
    return [int(word) for word in words]


def to_rich(curves: Sequence[Curve], table: Mapping[int, float], name: str, lr: float) -> Table:
    """The knees, for a terminal."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    shown = Table(
        *("k", "knee", "from", "to", "rate", "lowest loss"),
        title=f"{name}: range test",
        title_justify="left",
        caption=LEGEND.format(lr=lr, repetitions=curves[0].plan.repetitions),
        caption_justify="left",
        box=SIMPLE_HEAD,
        pad_edge=False,
    )
    for column in shown.columns:
        column.justify = "right"
    for curve in curves:
        rates = (curve.knee, curve.knees.min(), curve.knees.max(), table[curve.gradients])
        shown.add_row(str(curve.gradients), *(f"{rate:.3g}" for rate in rates), f"{curve.smoothed.mean(axis=0).min():.3g}")
    return shown
