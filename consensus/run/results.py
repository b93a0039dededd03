"""What a run leaves behind, written and read again: ``metrics.jsonl`` and ``summary.json``."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from os import PathLike
from pathlib import Path
from typing import Any

from consensus.errors import ConfigError, ConsensusError
from consensus.run.evaluation import Evaluated
from consensus.run.folder import write_atomically
from consensus.types import Seconds

METRICS = "metrics.jsonl"
SUMMARY = "summary.json"

ACCURACIES = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.93, 0.95, 0.96, 0.97, 0.98)
"""Those whose times ``summary.json`` tells."""


@dataclass(frozen=True, slots=True)
class Metrics:
    """A line of ``metrics.jsonl``: the averaged model at a mark of the clock, or at the end of the run.

    Attributes
    ----------
    seconds : float
        On the run's clock.
    samples, rounds : int
        Over all ranks, until then.
    accuracy, loss : float
        Of the averaged model on the test samples; a loss that is not finite is NaN here and null in the file.
    consensus_distance : float
        sqrt(mean_i ||x_i - mean||^2) over the parameters.
    mean_backups : float
        Mean of b_i(k) over the rounds of all ranks since the line before; NaN if there was none, which is no fall to 0.
    """

    seconds: Seconds
    samples: int
    rounds: int
    accuracy: float
    loss: float
    consensus_distance: float
    mean_backups: float


def to_metrics(evaluated: Sequence[tuple[Seconds, Evaluated]]) -> list[Metrics]:
    """Lines of ``metrics.jsonl`` from (seconds, evaluation) in order of time."""
    first = Evaluated(None, 0, 0, 0, 0.0, 0.0, 0.0)
    lines = []
    for before, (seconds, now) in pairwise([(0.0, first), *evaluated]):
        rounds, backups = now.rounds - before[1].rounds, now.backups - before[1].backups
        mean_backups = backups / rounds if rounds else math.nan
        lines.append(
            Metrics(round(seconds, 6), now.samples, now.rounds, now.accuracy, now.loss, now.consensus_distance, mean_backups)
        )
    return lines


def seconds_to(metrics: Sequence[Metrics]) -> dict[str, Seconds | None]:
    """For each of :data:`ACCURACIES`, as ".9", the seconds of the first line that reaches it, or None."""
    return {
        f"{accuracy:g}".removeprefix("0"): next((line.seconds for line in metrics if line.accuracy >= accuracy), None)
        for accuracy in ACCURACIES
    }


def write_metrics(folder: Path, metrics: Sequence[Metrics]) -> None:
    """Write ``metrics.jsonl``; raises as :func:`write_summary`."""
    _write(folder / METRICS, "".join(dumps(asdict(line)) + "\n" for line in metrics))


def write_summary(folder: Path, summary: dict[str, Any]) -> None:
    """Write ``summary.json``; its being there says that the run came to its end.

    Raises
    ------
    ConsensusError
        If it cannot be written.
    """
    _write(folder / SUMMARY, dumps(summary, indent=2) + "\n")


def _write(path: Path, text: str) -> None:
    try:
        write_atomically(path, text)
    except OSError as error:
        raise ConsensusError(
            f"{path}: the results cannot be written ({error.strerror or error}); make room there, or give another folder "
            "(--set run.out=FOLDER); a run that has checkpoints need not begin anew: --resume with its folder"
        ) from error


def dumps(value: Any, indent: int | None = None) -> str:
    """JSON with null for numbers that are not finite, which JSON has no word for."""
    return json.dumps(_finite(value), indent=indent, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_metrics(path: str | PathLike[str]) -> list[Metrics]:
    """Read ``metrics.jsonl``.

    Parameters
    ----------
    path
        The file, or the folder of the run.

    Raises
    ------
    ConfigError
        If it is not there, or damaged.
    """
    file, text = _read(path, METRICS)
    try:
        return [_line(json.loads(line)) for line in text.splitlines()]
    except (ValueError, AttributeError, TypeError) as error:
        raise ConfigError(f"{file}: damaged, or of another version of consensus ({error})") from error


def read_summary(path: str | PathLike[str]) -> dict[str, Any]:
    """Read ``summary.json``; docs/results.md says what is in it.

    Parameters
    ----------
    path
        The file, or the folder of the run.

    Raises
    ------
    ConfigError
        If it is not there, or damaged.
    """
    file, text = _read(path, SUMMARY)
    try:
        return dict(json.loads(text))
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{file}: damaged ({error})") from error


def _line(row: dict[str, Any]) -> Metrics:
    values: dict[str, Any] = {key: math.nan if value is None else value for key, value in row.items()}
    return Metrics(**values)


def _read(path: str | PathLike[str], name: str) -> tuple[Path, str]:
    file = Path(path) / name if Path(path).is_dir() else Path(path)
    try:
        return file, file.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ConfigError(f"{file} is not there: no folder of a run, or the run did not come to its end") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: cannot be read ({error})") from error
