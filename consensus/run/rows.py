"""The rows of ``summary.json``, a rank each: whose count for what. Loads nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def trainers(summary: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Of ``summary.json``, the ranks that train: all, or all but the server."""
    rows: list[Mapping[str, Any]] = list(summary["per_rank"])
    if summary.get("architecture") == "server":
        return rows[summary["server"]["servers"] :]
    if summary.get("architecture") == "coded":
        coding = summary["coding"]
        return rows[1 + len(coding["workers_per_edge"]) * coding["relayed"] :]
    return rows


def mean_backups(summary: Mapping[str, Any]) -> float:
    """Neighbours not waited for, a mean over all ranks' rounds; with a server, workers not waited for, over its updates."""
    rows = summary["per_rank"]
    rows = rows[:1] if summary.get("architecture") in ("server", "coded") else rows
    return sum(row["mean_backups"] * row["rounds"] for row in rows) / max(1, sum(row["rounds"] for row in rows))
