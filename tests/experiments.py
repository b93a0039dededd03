"""Small experiments for tests: run files of a few rounds, and worlds to run them in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from consensus import config
from consensus.config import RunConfig
from consensus.run import experiment
from consensus.transport import loopback
from consensus.transport.base import Transport

SMALL = """
[run]
name = "small"
stop = {{ {stop} }}
[data]
name = "digits"
limit = 200
batch = 8
[topology]
kind = "ring"
[model]
name = "logistic"
[stragglers]
model = "transient"
seconds = 0.002
probability = 0.2
factor = 5
[evaluation]
every = 0.005
marks = 8
"""


def small(out: Path, stop: str = "rounds = 6", **changes: dict[str, Any]) -> RunConfig:
    """A configuration of a few rounds; ``changes``: keys by section, over those of :data:`SMALL`; stragglers as a whole."""
    tables = config.loads(SMALL.format(stop=stop)).model_dump(exclude_unset=True, by_alias=True)
    tables["run"]["out"] = str(out)
    for section, keys in changes.items():
        tables[section] = keys if section == "stragglers" else {**tables.get(section, {}), **keys}
    return RunConfig.model_validate(tables)


def in_loopback(settings: RunConfig, size: int = 4) -> Path:
    """The folder of a run on the deterministic twin, whose clock is virtual."""
    (folder,) = set(loopback.run(size, lambda transport: experiment.run(settings, transport)))
    return folder


def summary_of(folder: Path) -> dict[str, Any]:
    """``summary.json``, as whoever reads JSON sees it."""
    return dict(json.loads((folder / "summary.json").read_text(encoding="utf-8")))


def shared_folder(transport: Transport, own: Path) -> Path:
    """Rank 0's temporary folder, at every rank."""
    return Path(transport.gather(str(own))[0])
