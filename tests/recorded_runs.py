"""Made-up traces as real ranks write them: a round closes before its averages are reckoned, and clocks may be apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from made_runs import MIX, in_step, write_run

from consensus.report.load import LoadedRun, load_run
from consensus.trace import Trace
from consensus.types import Seconds


def rings(ahead: Sequence[Seconds] | None = None, **how: Any) -> list[Trace]:
    """Rings in step, as :func:`made_runs.in_step` makes them; ``ahead`` is by how much each rank's clock is."""
    return [
        Trace(trace.rank, trace.started, [_as_recorded(record, ahead[trace.rank] if ahead else 0.0) for record in trace.rounds])
        for trace in in_step(**how)
    ]


def _as_recorded(record: Any, ahead: Seconds) -> Any:
    return replace(
        record,
        opened=record.opened + ahead,
        closed=max(record.opened, record.closed - MIX) + ahead,
        exchanges=tuple((peer, theirs, agreed + ahead, done + ahead) for peer, theirs, agreed, done in record.exchanges),
    )


def ring_run(
    folder: Path, rule: str = "full", finished: bool = True, more: dict[str, Any] | None = None, **how: Any
) -> LoadedRun:
    """The same as the folder of a run, read again."""
    return load_run(write_run(folder, rings(**how), rule=rule, finished=finished, **(more or {})))
