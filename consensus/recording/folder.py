"""The event logs of a run, all together."""

from __future__ import annotations

import re
from collections.abc import Sequence
from os import PathLike
from pathlib import Path

from consensus.errors import ConfigError
from consensus.recording.log import EventLog, read_log
from consensus.types import Rank

_NAME = re.compile(r"events-(0|[1-9]\d*)\.bin")


def file_name(rank: Rank | str) -> str:
    """What a rank's log is called; with "*", what all logs are."""
    return f"events-{rank}.bin"


def find_logs(folder: str | PathLike[str]) -> list[EventLog]:
    """The event logs in a folder, by rank; ranks may be missing.

    Raises
    ------
    ConfigError
        If there is none, one cannot be read, or they are of more than one run.
    """
    folder = Path(folder)
    names = {path: match for path in folder.iterdir() if (match := _NAME.fullmatch(path.name))}
    if not names:
        raise ConfigError(
            f"{folder}: no event logs, expected events-0.bin and so on; a run writes them unless run.record = false, under every "
            "rule of neighbours (not allreduce, not with a parameter server, not with coded gradients)"
        )
    logs = sorted((read_log(path) for path in names), key=lambda log: (log.rank, log.path))
    first = logs[0]
    for log in logs:
        if int(names[log.path][1]) != log.rank:
            raise ConfigError(
                f"{log.path}: it says that it is the log of rank {log.rank}: it was renamed, or the files of several runs are "
                "mixed; put back the files as the run wrote them"
            )
        if log.setting != first.setting:
            raise ConfigError(
                f"{folder}: {first.path.name} and {log.path.name} are of different runs ({_difference(first, log)}); "
                "put back the files as the runs wrote them, or replay one rank with --rank"
            )
    return logs


def _difference(one: EventLog, other: EventLog) -> str:
    if one.size != other.size:
        return f"{one.size} ranks and {other.size}"
    if (one.rule, one.parameters) != (other.rule, other.parameters):
        return f"rule {one.rule} {dict(one.parameters)} and {other.rule} {dict(other.parameters)}"
    return "their graphs or weights differ" if one.run == other.run else "they say so"


def missing(logs: Sequence[EventLog]) -> list[Rank]:
    """The ranks of the run that have no log."""
    return sorted(set(logs[0].adjacency) - {log.rank for log in logs})
