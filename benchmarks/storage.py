"""Results on disk, and the tables made of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def write(path: Path, result: dict[str, Any]) -> None:
    """Write a result as JSON, one line a case, so that two versions can be compared."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(dumps(result), encoding="utf-8")


def dumps(result: dict[str, Any]) -> str:
    """JSON with a line for every key and every case.

    Examples
    --------
    >>> print(dumps({"mpi": "x", "cases": [{"a": 1}, {"a": 2}]}), end="")
    {
    "mpi": "x",
    "cases": [
    {"a": 1},
    {"a": 2}
    ]
    }
    """
    lines = []
    for key, value in result.items():
        text = json.dumps(value)
        if key == "cases":
            text = "[\n" + ",\n".join(json.dumps(case) for case in value) + "\n]"
        lines.append(f"{json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def read(path: Path) -> dict[str, Any]:
    """Read what :func:`write` wrote."""
    return dict(json.loads(path.read_text(encoding="utf-8")))
