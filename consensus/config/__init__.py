"""Run files: what a run is, in TOML, checked before any rank starts."""

from __future__ import annotations

from consensus.config.files import dumps, load, loads
from consensus.config.schema import RunConfig

__all__ = ["RunConfig", "dumps", "load", "loads"]
