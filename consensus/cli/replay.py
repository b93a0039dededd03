"""``consensus replay``: whether the recorded events still bring the recorded decisions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from consensus.recording.log import Ended, EventLog
    from consensus.replay import Divergence, Replayed

Run = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run, finished or not; or of several.", show_default=False)]
Only = Annotated[int | None, typer.Option("--rank", min=0, help="Replay this rank alone.", show_default=False)]


def replay(run: Run, rank: Only = None) -> None:
    """Feed what every rank of a run was told through fresh engines, and compare each decision with the recorded one."""
    from consensus.cli.console import console
    from consensus.cli.ending import FAILED

    screen = console()
    folders = _folders(run)
    agree = True
    for folder in folders:
        if len(folders) > 1:
            screen.print(str(folder), style="bold", markup=False, soft_wrap=True)
        agree = _replay(folder, rank, screen) and agree
    if not agree:
        raise typer.Exit(FAILED)


def _folders(run: Path) -> list[Path]:
    from consensus.recording.folder import file_name
    from consensus.report.folders import find_runs

    # What a script records has no run file beside it.
    if run.is_dir() and any(run.glob(file_name("*"))):
        return [run]
    return find_runs([run])


def _replay(folder: Path, rank: int | None, screen: Console) -> bool:
    """Replay one run and tell of it; whether all of it is as recorded."""
    from consensus.recording.folder import missing
    from consensus.recording.log import Ending

    logs = _logs(folder, rank)
    with screen.status("replaying"):
        replays = _all(logs)
    _print_table(replays, screen)
    absent = missing(logs) if rank is None else []
    if absent:
        screen.print(f"no log of rank {', '.join(map(str, absent))}: not replayed", style="yellow")
    said: dict[Ended, list[str]] = {}
    for each in replays:
        if each.ended is not None and each.ended.words:
            said.setdefault(each.ended, []).append(str(each.rank))
    for ended, ranks in said.items():
        style = "red" if ended.ending is Ending.DAMAGED else "yellow"
        screen.print(f"log of rank {', '.join(ranks)}: {ended.words}", style=style, markup=False, soft_wrap=True)
    differing = [(each.divergence.time, each.rank, each.divergence) for each in replays if each.divergence is not None]
    if differing:
        _, first, divergence = min(differing, key=lambda found: found[:2])
        _print_divergence(first, divergence, screen)
    events, rounds = sum(each.events for each in replays), sum(each.rounds for each in replays)
    agree = all(each.agrees for each in replays)
    if agree:
        screen.print(f"all {events:,} decisions of {rounds:,} rounds are the same", style="green")
    return agree


def _logs(folder: Path, rank: int | None) -> list[EventLog]:
    from consensus.errors import ConfigError
    from consensus.recording.folder import file_name, find_logs
    from consensus.recording.log import read_log

    if rank is None:
        return find_logs(folder)
    path = folder / file_name(rank)
    if not path.exists():
        known = sorted(entry.name for entry in folder.glob(file_name("*")))
        raise ConfigError(f"{folder}: no {path.name}; there are: {', '.join(known) or 'no event logs (run.record, run.rule)'}")
    return [read_log(path)]


def _all(logs: Sequence[EventLog]) -> list[Replayed]:
    from consensus.replay import replay as replay_log

    return [replay_log(log) for log in logs]


def _print_table(replays: Sequence[Replayed], screen: Console) -> None:
    from rich.table import Table

    table = Table()
    for name in ("rank", "sessions", "rounds", "events"):
        table.add_column(name, justify="right")
    table.add_column("log")
    table.add_column("decisions")
    for each in replays:
        counts = (str(each.rank), f"{each.sessions:,}", f"{each.rounds:,}", f"{each.events:,}")
        log = "not read on" if each.ended is None else each.ended.ending.value
        verdict = "the same" if each.divergence is None else f"differ at event {each.divergence.number:,}"
        table.add_row(*counts, log, verdict, style=None if each.agrees else "red")
    screen.print(table)


def _print_divergence(rank: int, divergence: Divergence, screen: Console) -> None:
    d = divergence
    lines = [
        f"rank {rank}, event {d.number:,} at {d.time:.6f} s, {d.event!r}: {d.what}",
        f"  recorded  {d.recorded}",
        f"  replayed  {d.replayed}",
        "last events:",
        *("  " + line for line in d.story.splitlines()),
        *d.state.splitlines(),
    ]
    screen.print("\n".join(lines), markup=False, soft_wrap=True)
