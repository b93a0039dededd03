"""What a run says when it is over: the headline, a line per rank, and where everything is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from consensus.cli.console import console

TELLING = 4
"""How many targets a headline has room for."""


def print_closing(
    folder: Path, summary: Mapping[str, Any], *, quiet: bool = False, terminal: bool | None = None, table: bool = True
) -> None:
    """Print the end of a run.

    Parameters
    ----------
    folder : Path
        The run's.
    summary : mapping
        Its ``summary.json``.
    quiet : bool
        Say nothing, unless the run was interrupted: then where the partial results are.
    terminal : bool, optional
        Whether there is one, if the caller knows.
    table : bool
        Whether to show a line per rank.
    """
    interrupted = summary["ended"] == "interrupted"
    where = _from_here(folder)
    if quiet:
        if interrupted:
            console(stderr=True).print(f"interrupted; partial results are in {escape(where)}", soft_wrap=True)
        return
    out = console(terminal=terminal)
    if table:
        out.print(_ranks(summary["per_rank"], summary["rule"]["name"]))
    out.print(headline(summary), soft_wrap=True)
    kept = "interrupted; partial results are" if interrupted else "results are"
    from consensus.run.curves import CURVES  # loads torch, which whoever has run anything has done

    picture = f", the picture is {escape(str(Path(where) / CURVES))}" if (folder / CURVES).exists() else ""
    out.print(f"{kept} in {escape(where)}{picture}", soft_wrap=True)


def headline(summary: Mapping[str, Any]) -> str:
    """The run in a sentence or two.

    Examples
    --------
    >>> print(headline({"rule": {"name": "dtur"}, "ranks": 8, "wall_seconds": 6.0, "samples": 100_000, "consensus_distance": 0.5,
    ...     "targets": {".9": 1.0, ".95": 2.5, ".98": None}, "final": {"accuracy": 0.961, "loss": 0.2}}))
    dtur on 8 ranks: 6.0 s, 100 000 samples; accuracy .9 after 1.0 s, .95 after 2.5 s;
    at the end 0.961 (loss 0.2, consensus distance 0.5)
    """
    reached = [f"{name} after {seconds:.1f} s" for name, seconds in _highest(summary["targets"])]
    samples = f"{summary['samples']:,}".replace(",", " ")
    ranks = "1 rank" if summary["ranks"] == 1 else f"{summary['ranks']} ranks"
    first = f"{summary['rule']['name']} on {ranks}: {summary['wall_seconds']:.1f} s, {samples} samples"
    way = f"accuracy {', '.join(reached)}; at the end" if reached else "accuracy"
    final = summary["final"]
    return (
        f"{first}; {way} {number(final['accuracy'])} "
        f"(loss {number(final['loss'])}, consensus distance {number(summary['consensus_distance'])})"
    )


def number(value: float | None) -> str:
    """Three digits, or a dash for what is not known."""
    return "-" if value is None else f"{value:.3g}"


def _highest(targets: Mapping[str, float | None]) -> list[tuple[str, float]]:
    return [(name, seconds) for name, seconds in targets.items() if seconds is not None][-TELLING:]


def _ranks(rows: Iterable[Mapping[str, Any]], rule: str) -> Table:
    columns = ("rank", "rounds", "compute, s", "wait, s", "mix, s", "backups", "MB sent")
    table = Table(*columns, title=f"Where the time went ({rule})", title_justify="left")
    for column in table.columns:
        column.justify = "right"
    for rank, row in enumerate(rows):
        seconds = (f"{row[key]:.2f}" for key in ("compute_seconds", "wait_seconds", "mix_seconds"))
        table.add_row(str(rank), str(row["rounds"]), *seconds, f"{row['mean_backups']:.2f}", f"{row['bytes_sent'] / 1e6:.1f}")
    return table


def _from_here(folder: Path) -> str:
    """As a user would type it: relative where that is shorter."""
    here = Path.cwd()
    return str(folder.relative_to(here)) if folder.is_relative_to(here) else str(folder)
