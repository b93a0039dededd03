"""The result of one check."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class State(StrEnum):
    """How much a finding matters."""

    OK = "ok"
    WARN = "warn"
    """Runs work, but not as well as they could."""
    FAIL = "fail"
    """Runs do not work, or not as meant."""


class Check(NamedTuple):
    """What was looked at, what was found, and what to do about it (empty if nothing)."""

    name: str
    state: State
    found: str
    advice: str = ""
