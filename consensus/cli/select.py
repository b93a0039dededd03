"""``consensus select``: which tolerance of silent nodes makes coded training fastest, for measured nodes and links."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from consensus.coding.selection import Selection
    from consensus.coding.system import System

Source = Annotated[
    Path,
    typer.Argument(
        metavar="RUN|SYSTEM.json",
        help="The folder of a run with coded gradients, or a file that describes a system.",
        show_default=False,
    ),
]
Parts = Annotated[
    int | None,
    typer.Option(
        "--parts", min=1, help="Parts of the data; by default the run's, for a file one for each worker.", show_default=False
    ),
]
Out = Annotated[
    Path | None,
    typer.Option("--out", help="Where to write the system; by default system.json in the run's folder.", show_default=False),
]
Refine = Annotated[bool, typer.Option("--refine/--no-refine", help="Simulate every tolerance, or go by expected times alone.")]
Push = Annotated[
    str,
    typer.Option(
        "--push", metavar="wait|interrupt", help="What a busy worker does when newer weights come, as in coding.push of a run."
    ),
]

SYSTEM = "system.json"
"""The file in a run's folder."""

TABLED = 64
"""A table of more nodes than this tells nothing."""

BEST = 5
"""How many tolerances are shown."""

LEGEND_NODES = (
    "Milliseconds. c and 1/gamma: of each part, what it takes at least, and what is added in the mean; tau: of one transmission, "
    "of which p is lost; mean: until a worker's vector of {load} parts is at its edge, with an edge what it adds. Kept: expected "
    "to be used."
)
LEGEND_TIMES = "s_e edges, and s_w workers at every other edge, may be silent; D: parts of a worker. Milliseconds are {how}."


def select(source: Source, parts: Parts = None, out: Out = None, refine: Refine = True, push: Push = "wait") -> None:
    """Choose how many silent edges and workers a code should tolerate, by the traces of a run with coded gradients.

    Writes the system that the run was, for section [coding] of a run file with scheme hgc-jncss, which chooses by it.
    """
    from consensus.cli.console import console
    from consensus.coding.selection import select as choose
    from consensus.coding.succession import check_push
    from consensus.coding.system import System

    checked = check_push(push)

    screen = console()
    target: Path | None
    if source.suffix == ".json":
        system, target = System.read(source), out
        parts = parts or sum(system.workers_per_edge)
    else:
        from consensus.errors import ConfigError
        from consensus.report.folders import find_runs
        from consensus.run.measured_system import measured_system

        folder, *others = find_runs([source])
        if others:
            raise ConfigError(f"{source}: {len(others) + 1} runs, expected the folder of one; give one of them, as in {folder}")
        measured = measured_system(folder)
        system, target = measured.system, out or folder / SYSTEM
        parts = parts or measured.parts
        for note in measured.notes:
            screen.print(note, style="yellow", markup=False, soft_wrap=True)
    choice = choose(system, parts, refine=refine, push=checked)
    if target is not None:
        system.write(target)
    edges, workers = len(system.edges), sum(system.workers_per_edge)
    if edges + workers <= TABLED:
        screen.print(nodes_table(system, choice))
        screen.print(LEGEND_NODES.format(load=choice.load), style="dim", markup=False)
    else:
        screen.print(f"{edges} edges, {workers} workers")
    screen.print(times_table(system, choice, parts))
    screen.print(LEGEND_TIMES.format(how=how(choice)), style="dim", markup=False)
    place = source if target is None else target
    screen.print(f"\nthe system is in {place}; for the run file:\n", soft_wrap=True, markup=False)
    screen.print(sections(system, parts, place, push), soft_wrap=True, markup=False)


def how(choice: Selection) -> str:
    """What the seconds of a choice are, in words."""
    from math import isnan

    if isnan(choice.standard_error):
        return "those of an update in which everything takes as long as expected"
    return f"means of simulated updates, ± {_ms(choice.standard_error)} for the first"


def nodes_table(system: System, choice: Selection) -> Table:
    """What edges and workers take, for a terminal."""
    from consensus.coding.layout import Layout

    layout = Layout(system.workers_per_edge)
    table = _table("what nodes take", ("rank", "node", "c", "1/gamma", "tau", "p", "mean", "kept"))
    for number, (rank, edge, kept) in enumerate(zip(layout.edges, system.edges, choice.kept, strict=True)):
        own = edge.mean_transfers
        table.add_row(str(rank), f"edge {number}", "", "", _ms(edge.tau), f"{edge.p:.2f}", _ms(own), "yes" if kept else "")
        for seat, worker in enumerate(edge.workers):
            compute = _ms(worker.c), _ms(1 / worker.gamma), _ms(worker.tau), f"{worker.p:.2f}", _ms(worker.mean(choice.load))
            table.add_row(str(layout.workers[number][seat]), "worker", *compute, "yes" if seat in kept else "")
    return table


def times_table(system: System, choice: Selection, parts: int) -> Table:
    """The fastest tolerances, for a terminal."""
    from consensus.coding.load import least_load

    uncoded = choice.times[0, 0]
    columns = ("", "s_e", "s_w", "D", "ms per update", "/ uncoded")
    table = _table(f"{parts} parts: the fastest tolerances", columns)
    ranked = sorted(choice.times, key=lambda tolerance: (choice.times[tolerance], tolerance))[:BEST]
    for place, tolerance in enumerate(ranked, 1):
        load, seconds = least_load(system.workers_per_edge, parts, *tolerance), choice.times[tolerance]
        ratio = f"{seconds / uncoded:.2f}" if uncoded else ""
        table.add_row(f"{place}.", *map(str, tolerance), str(load), _ms(seconds), ratio)
    return table


def sections(system: System, parts: int, path: Path, push: str = "wait") -> str:
    """What goes into a run file, so that the run chooses by the system.

    Examples
    --------
    >>> from consensus.coding.system import Edge, System, Worker
    >>> print(sections(System([Edge(workers=[Worker(c=0.1)] * 2)] * 2), 8, Path("system.json")))
    [rule]
    name = "hgc-jncss"
    <BLANKLINE>
    [coding]
    workers_per_edge = [2, 2]
    parts = 8
    system = "system.json"
    """
    import tomli_w

    from consensus.config.coding import SELECTED

    layout = f"workers_per_edge = {list(system.workers_per_edge)}\nparts = {parts}\n"
    layout += "" if push == "wait" else f'push = "{push}"\n'
    return f'[rule]\nname = "{SELECTED}"\n\n[coding]\n{layout}{tomli_w.dumps({"system": str(path)})}'.rstrip()


def _table(title: str, columns: Sequence[str]) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(*columns, title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for column in table.columns:
        column.justify = "right"
    return table


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:.3g}"
