"""``consensus whatif``: how fast other rules, graphs and numbers of ranks would have been, by a run's own traces."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from consensus.whatif.answer import Answer, Row
    from consensus.whatif.fit import Fitted

Run = Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run with traces.", show_default=False)]
Rules = Annotated[
    list[str] | None,
    typer.Option("--rule", metavar="NAME[:KEY=VALUE],...", help="Other rules; repeatable.", show_default=False),
]
Topologies = Annotated[
    list[str] | None,
    typer.Option(
        "--topology", metavar="KIND[:KEY=VALUE],...", help="Other graphs, or their files; repeatable.", show_default=False
    ),
]
Sizes = Annotated[
    list[int] | None, typer.Option("--ranks", min=2, help="Other numbers of ranks; repeatable.", show_default=False)
]
Stragglers = Annotated[
    str | None,
    typer.Option(
        "--stragglers",
        metavar="MODEL:KEY=VALUE:...",
        help="How long local steps take in the alternatives, in place of the recorded times.",
        show_default=False,
    ),
]
Samples = Annotated[
    int | None, typer.Option("--samples", min=1, help="Time to so many samples; by default the run's.", show_default=False)
]
Starts = Annotated[int, typer.Option("--starts", min=1, help="Simulations of each, from different moments of the run.")]
Json = Annotated[Path | None, typer.Option("--json", help="Write all numbers to this file, too.", show_default=False)]

LEGEND = (
    "Samples a second of all ranks, and the standard deviation between simulations; seconds to {samples} samples at that pace; "
    "the pace in units of the measured one; from a round's opening to its close; neighbours that a round did without; rate at "
    "which averaging forgets differences between models."
)
"""What the columns are."""

_WIDEST = 32


def whatif(
    run: Run,
    rule: Rules = None,
    topology: Topologies = None,
    ranks: Sizes = None,
    stragglers: Stragglers = None,
    samples: Samples = None,
    starts: Starts = 3,
    json: Json = None,
) -> None:
    """Predict how fast a run would have been under other rules, on other graphs, with other numbers of ranks.

    Times of steps, messages and models are taken from the run's traces; every combination of what is given is simulated. Without
    options: the usual rules on the run's graph, and its rule on a ring, a torus and a complete graph.
    """
    from consensus.cli.console import console
    from consensus.cli.entrants import RULE, STRAGGLERS, TOPOLOGY, entrant, entrants
    from consensus.errors import ConfigError
    from consensus.report.folders import find_runs
    from consensus.report.load import load_run
    from consensus.run.folder import write_atomically
    from consensus.run.results import dumps
    from consensus.whatif.alternatives import alternatives
    from consensus.whatif.answer import ask
    from consensus.whatif.fit import fit

    folder, *others = find_runs([run])
    if others:
        raise ConfigError(f"{run}: {len(others) + 1} runs, expected the folder of one; give one of them, as in {folder}")
    rules = entrants(",".join(rule), RULE) if rule else []
    topologies = entrants(",".join(topology), TOPOLOGY) if topology else []
    compute = entrant(stragglers, STRAGGLERS) if stragglers else None
    loaded = load_run(folder)
    fitted = fit(loaded)
    settings, left_out = alternatives(loaded, fitted, rules, topologies, ranks or (), compute)
    screen = console()
    for note in (*loaded.notes, *(["The run is a simulation itself."] if loaded.simulated else []), *left_out):
        screen.print(note, style="yellow", markup=False, soft_wrap=True)
    screen.print(describe(fitted), markup=False, soft_wrap=True)
    answer = ask(loaded, fitted, settings, samples, starts)
    screen.print(to_rich(answer))
    screen.print(f"The simulated pace of the recorded run is {100 * answer.error:+.1f} % off the measured one.", markup=False)
    if any(first != last for first, last in map(answer.places, answer.alternatives)):
        screen.print(
            "Rows that share places are about equal: their paces differ by less than "
            f"{100 * answer.margin:.0f} %, or by what may be chance.",
            markup=False,
            soft_wrap=True,
        )
    if json is not None:
        try:
            write_atomically(json, dumps(answer.to_table(), indent=1) + "\n")
        except OSError as error:
            raise ConfigError(f"{json}: cannot be written ({error.strerror}); give another file: --json FILE") from error


def describe(fitted: Fitted) -> str:
    """What the traces say about time, in a sentence."""
    import numpy as np

    step = 1e3 * float(np.median(np.concatenate(fitted.steps.durations)))
    limits = [
        f"{limit:.2g} of {whose}"
        for limit, whose in ((fitted.sharing.per_rank, "a rank"), (fitted.sharing.overall, "all ranks"))
        if np.isfinite(limit)
    ]
    shared = f"at full speed at most {' and '.join(limits)} at a time" if limits else "which do not slow each other down"
    return (
        f"By the traces: from close to open {step:.2f} ms (median, {1e3 * fitted.steps.overhead:.2f} of it besides the local "
        f"step), a control message {1e3 * fitted.latency:.2f} ms, a swap of models {1e3 * fitted.work:.2f} ms, {shared}."
    )


def to_rich(answer: Answer) -> Table:
    """The table, for a terminal."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    samples = f"{answer.samples:,.0f}".replace(",", " ")
    table = Table(
        *("", "rule", "topology", "ranks", "samples/s", "±", "seconds", "pace", "open, ms", "backups", "contracts, /s"),
        title=f"{answer.run.config.run.name}: what if",
        title_justify="left",
        caption=LEGEND.format(samples=samples),
        caption_justify="left",
        box=SIMPLE_HEAD,
        pad_edge=False,
    )
    for column in table.columns[3:]:
        column.justify = "right"
    labels = zip(*((row.rule, row.topology) for row in answer.rows), strict=True)
    for column, names in zip(table.columns[1:3], labels, strict=True):
        column.min_width = min(_WIDEST, max(map(len, names)))
    unit = answer.measured.pace.samples_per_second
    table.add_row(*_cells("measured", answer.measured, unit))
    table.add_row(*_cells("simulated", answer.simulated, unit), end_section=True)
    for row in answer.alternatives:
        first, last = answer.places(row)
        table.add_row(*_cells(f"{first}." if first == last else f"{first}-{last}.", row, unit))
    return table


def _cells(what: str, row: Row, unit: float) -> list[str]:
    pace = row.pace
    return [
        what,
        row.rule,
        row.topology,
        str(row.ranks),
        f"{pace.samples_per_second:.0f}",
        f"{100 * pace.spread:.0f} %" if pace.spread else "",
        f"{pace.seconds:.2f}",
        f"{pace.samples_per_second / unit:.2f}",
        f"{1e3 * pace.open_seconds:.1f}",
        f"{pace.backups:.2f}",
        "" if pace.contraction is None else f"{pace.contraction:.3g}",
    ]
