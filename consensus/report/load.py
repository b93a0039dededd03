"""The folder of a run as one value, checked: what a report needs of it, finished or not."""

from __future__ import annotations

import math
import tempfile
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import networkx as nx
import tomli_w

from consensus import config as run_files
from consensus import trace as traces
from consensus.config import RunConfig
from consensus.errors import ConfigError
from consensus.report.columns import Columns, columns
from consensus.report.folders import CONFIG
from consensus.run.results import METRICS, SUMMARY, Metrics, read_metrics, read_summary
from consensus.trace import Trace
from consensus.types import Edge, Rank, Seconds

CLOCKS_APART: Seconds = 60.0
"""By how much the ranks' starts may differ, each by its own host's clock. A limit of ours: hosts that nobody sets agree to
seconds for months; what finer mixing it lets pass, the numbers of rounds in summary.json show."""


@dataclass(frozen=True)
class LoadedRun:
    """A run's folder.

    Attributes
    ----------
    folder : Path
        Where it is.
    config : RunConfig
        As it was resolved; ``run.ranks`` is None, see ``ranks``.
    ranks : int
        Number of ranks.
    traces : tuple of Trace
        By rank; none if the run writes none, or has not begun to.
    metrics : tuple of Metrics
        In order of time; none before the end of the run.
    summary : mapping or None
        ``summary.json``; None if the run has not come to its end.
    notes : tuple of str
        What is not there, a sentence each.
    """

    folder: Path
    config: RunConfig
    ranks: int
    traces: tuple[Trace, ...]
    metrics: tuple[Metrics, ...]
    summary: Mapping[str, Any] | None
    notes: tuple[str, ...]

    @property
    def finished(self) -> bool:
        """Whether the run came to its end, be it interrupted."""
        return self.summary is not None

    @property
    def simulated(self) -> bool:
        """Whether its clock was virtual."""
        return bool((self.summary or {}).get("simulated", False))

    @property
    def rule(self) -> str:
        """The wait rule and its parameters, as in ``static_backup b=2``."""
        parameters = self.config.rule.parameters
        return " ".join([self.config.rule.name, *(f"{key}={value}" for key, value in parameters.items())])

    @property
    def seconds(self) -> Seconds:
        """Its length on its own clock, as far as it is known."""
        if self.summary is not None:
            return float(self.summary["wall_seconds"])
        return max((rank.closed[-1] for rank in self.columns if rank.closed.size), default=0.0)

    @cached_property
    def columns(self) -> tuple[Columns, ...]:
        """The traces' numbers as arrays, by rank."""
        return tuple(columns(trace) for trace in self.traces)

    @cached_property
    def edges(self) -> frozenset[Edge]:
        """The graph's edges: as configured, or, if its file is elsewhere by now, those that the traces know."""
        try:
            graph: nx.Graph[Rank] = self.config.graph(self.ranks)
        except ConfigError:
            pairs = ((t.rank, peer) for t in self.traces for r in t.rounds for peer in (*(e[0] for e in r.exchanges), *r.backups))
            return frozenset((min(pair), max(pair)) for pair in pairs)
        return frozenset((min(edge), max(edge)) for edge in graph.edges())


def load_run(folder: Path) -> LoadedRun:
    """Read the folder of a run; one that is not finished, or was killed, will do.

    Raises
    ------
    ConfigError
        If something in it is damaged, missing though the run is finished, of another version, or of another run.
    """
    config, ranks = _config(folder / CONFIG)
    summary = read_summary(folder) if (folder / SUMMARY).exists() else None
    notes = [] if summary is not None else ["The run has not come to its end, or was killed: this is what there is so far."]
    metrics: Sequence[Metrics] = ()
    if (folder / METRICS).exists():
        metrics = read_metrics(folder)
    else:
        notes.append(f"There is no {METRICS}, which is written at the end: nothing is known of the averaged model.")
    read, lacking = _traces(folder, config.run.trace, ranks, summary)
    return LoadedRun(folder, config, ranks, read, tuple(metrics), summary, (*notes, *lacking))


def labels(runs: Sequence[LoadedRun]) -> list[str]:
    """A short name for each run, all different: the rule if that tells them apart, otherwise what does."""
    texts = [
        [run.rule for run in runs],
        [f"{run.rule}, seed {run.config.run.seed}" for run in runs],
        [f"{run.rule}, {run.ranks} ranks, seed {run.config.run.seed}" for run in runs],
        [run.folder.name for run in runs],
    ]
    return next((text for text in texts if len(set(text)) == len(runs)), [str(run.folder) for run in runs])


def _config(path: Path) -> tuple[RunConfig, int]:
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
        # Without the number of ranks the graph is not built: its file may have stayed where the run was.
        ranks = table["run"].pop("ranks")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{path}: damaged ({error!r}); expected the resolved run file that every run writes, with run.ranks"
        ) from error
    if type(ranks) is not int or ranks < 1:
        raise ConfigError(f"{path}: run.ranks = {ranks!r}: expected a positive number; is it the file that the run wrote?")
    return run_files.loads(tomli_w.dumps(table), str(path)), ranks


def _traces(folder: Path, wanted: bool, ranks: int, summary: Mapping[str, Any] | None) -> tuple[tuple[Trace, ...], list[str]]:
    paths = {rank: folder / f"trace-{rank}.jsonl" for rank in range(ranks)}
    missing = [rank for rank, path in paths.items() if not path.exists()]
    if len(missing) == ranks and (not wanted or summary is None):
        why = "run.trace was off" if not wanted else "the run has not begun to write them"
        return (), [f"There are no traces ({why}): nothing is known of single ranks and rounds."]
    if missing:
        raise ConfigError(
            f"{folder}: no trace of rank {', '.join(map(str, missing))}, expected trace-0.jsonl to trace-{ranks - 1}.jsonl; "
            "copy the whole folder from where the run was"
        )
    foreign = sorted(path.name for path in folder.glob("trace-*.jsonl") if path not in paths.values())
    if foreign:
        raise ConfigError(
            f"{folder}: {foreign[0]} is there too, expected the traces of ranks 0 to {ranks - 1} only: "
            "the files of several runs are mixed; give each run a folder of its own"
        )
    read = [_read(path, rank, summary is not None) for rank, path in paths.items()]
    _check_one_run(folder, [trace for trace, _ in read], summary)
    cut = [str(rank) for rank, (_, whole) in enumerate(read) if not whole]
    notes = [f"The trace of rank {', '.join(cut)} ends in the middle of a line, which is left out."] if cut else []
    if not any(trace.rounds for trace, _ in read):
        notes.append("The traces hold no rounds yet, for ranks write them block by block: nothing is known of single ranks.")
    return tuple(trace for trace, _ in read), notes


def _read(path: Path, rank: Rank, finished: bool) -> tuple[Trace, bool]:
    """A trace, and whether all of it was there."""
    trace, whole = (traces.read(path), True) if finished else _read_beginning(path, rank)
    if trace.rank != rank:
        raise ConfigError(
            f"{path}: it says that it is the trace of rank {trace.rank}, expected rank {rank}: it was renamed, or the files of "
            "several runs are mixed; put back the files as the run wrote them"
        )
    columns(trace).check(path)
    _check_exchanges(path, trace)
    return trace, whole


def _check_exchanges(path: Path, trace: Trace) -> None:
    for record in trace.rounds:
        for peer, _, agreed, complete in record.exchanges:
            if not 0 <= agreed <= complete < math.inf:
                raise ConfigError(
                    f"{path}: round {record.round}: the exchange with rank {peer} was complete at {complete:g} s, expected no "
                    f"earlier than it was agreed, at {agreed:g} s: the trace is damaged; record the run again, or leave it out"
                )


def _read_beginning(path: Path, rank: Rank) -> tuple[Trace, bool]:
    """What a rank has written so far; it writes in blocks, which end anywhere."""
    try:
        text = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read as a trace ({error})") from error
    lines, newline, rest = text.rpartition(b"\n")
    if not newline:
        return Trace(rank, math.nan, []), not rest
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / path.name
        copy.write_bytes(lines + newline)
        try:
            return traces.read(copy), not rest
        except ConfigError as error:
            raise ConfigError(str(error).replace(str(copy), str(path))) from error


def _check_one_run(folder: Path, read: Sequence[Trace], summary: Mapping[str, Any] | None) -> None:
    begun = [trace for trace in read if not math.isnan(trace.started)]
    if begun:
        first, last = min(begun, key=lambda trace: trace.started), max(begun, key=lambda trace: trace.started)
        if last.started - first.started > CLOCKS_APART:
            raise ConfigError(
                f"{folder}: rank {last.rank} started {last.started - first.started:.0f} s after rank {first.rank}, expected at "
                f"most {CLOCKS_APART:.0f} s: the files of several runs are mixed (or the hosts' clocks are wrong by so much: "
                "then make clock.started in the traces' first lines agree); put back the files as the run wrote them"
            )
    for trace, rounds in zip(read, (summary or {}).get("rounds", ()), strict=False):
        if len(trace.rounds) != rounds and trace.rank not in (summary or {}).get("lost", ()):
            raise ConfigError(
                f"{folder}: the trace of rank {trace.rank} has {len(trace.rounds)} rounds, expected {rounds} by {SUMMARY}: "
                "the files of several runs are mixed; put back the files as the run wrote them"
            )
