"""Is this machine, and the way ranks are started on it, fit for a run? Checks with a state, what was found, and what to do."""

from __future__ import annotations

from consensus.doctor.check import Check, State

__all__ = ["Check", "State"]
