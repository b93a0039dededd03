"""``consensus report``: what runs came to and where their time went, as a page to look at."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

Runs = Annotated[
    list[Path],
    typer.Argument(metavar="RUN...", help="Folders of runs, or of comparisons, whose runs are all taken.", show_default=False),
]
Out = Annotated[
    Path | None,
    typer.Option("--out", help="The page to write; by default report.html in RUN, or here for several.", show_default=False),
]
Perfetto = Annotated[
    str | None,
    typer.Option(
        "--perfetto",
        metavar="[=FILE]",
        help="Write a trace for Perfetto, too; by default beside the page, with .perfetto.json in place of .html.",
        show_default=False,
    ),
]
Tensorboard = Annotated[
    str | None,
    typer.Option(
        "--tensorboard",
        metavar="[=FOLDER]",
        help="Write scalars for TensorBoard, too; by default beside the page, in a folder .tensorboard.",
        show_default=False,
    ),
]

_SENTENCES = 8


class OptionalValues(TyperCommand):
    """A command whose ``--perfetto`` and ``--tensorboard`` may stand alone; a value follows an equals sign, never a space.

    After a space comes a RUN: an option that took the next word would swallow it.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the arguments; an empty value stands for the place beside the page."""
        end = args.index("--") if "--" in args else len(args)
        return super().parse_args(
            ctx, [f"{word}=" if word in ("--perfetto", "--tensorboard") and k < end else word for k, word in enumerate(args)]
        )


def report(runs: Runs, out: Out = None, perfetto: Perfetto = None, tensorboard: Tensorboard = None) -> None:
    """Write a report on runs: one page that works without a network, and a few sentences here.

    Runs that are not finished, or were killed, will do: the report says so.
    """
    from consensus.cli.console import console
    from consensus.errors import ConfigError
    from consensus.report.folders import find_runs
    from consensus.report.html import render
    from consensus.report.load import labels, load_run
    from consensus.report.perfetto import write_perfetto
    from consensus.report.stragglers import assess
    from consensus.report.tensorboard import write_tensorboard
    from consensus.report.words import verdicts
    from consensus.run.folder import write_atomically

    screen = console()
    loaded = [load_run(folder) for folder in find_runs(runs)]
    page = out or (runs[0] / "report.html" if len(runs) == 1 else Path("report.html"))
    named = dict(zip(labels(loaded), loaded, strict=True))
    for label, run in named.items():
        screen.print(label, style="bold", markup=False)
        for note in run.notes:
            screen.print(f"  {note}", style="yellow", markup=False, soft_wrap=True)
        said = list(verdicts(assess(run.traces))) if any(trace.rounds for trace in run.traces) else []
        for sentence in said[:_SENTENCES]:
            screen.print(f"  {sentence}", markup=False, soft_wrap=True)
        if len(said) > _SENTENCES:
            screen.print(f"  and {len(said) - _SENTENCES} more, see the report", markup=False)
    try:
        write_atomically(page, render(loaded))
    except OSError as error:
        raise ConfigError(f"{page}: cannot be written ({error.strerror}); give another file: --out FILE") from error
    written = [page]
    if perfetto is not None:
        written.append(Path(perfetto) if perfetto else page.with_suffix(".perfetto.json"))
        write_perfetto(named, written[-1])
    if tensorboard is not None:
        written.append(Path(tensorboard) if tensorboard else page.with_suffix(".tensorboard"))
        write_tensorboard(named, written[-1])
    for path in written:
        screen.print(f"wrote {path}", markup=False, soft_wrap=True)
