"""Consensus SGD over MPI that averages only with the fastest neighbours.

``import consensus`` loads neither torch nor mpi4py; the public names below are resolved on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_PUBLIC = {
    "attach": "consensus.optim",
    "loader_context": "consensus.data.workers",
    "ConsensusError": "consensus.errors",
    "ConfigError": "consensus.errors",
    "TopologyError": "consensus.errors",
    "DataError": "consensus.errors",
}

__all__ = ["ConfigError", "ConsensusError", "DataError", "TopologyError", "__version__", "attach", "loader_context"]

if TYPE_CHECKING:
    from consensus.data.workers import loader_context
    from consensus.errors import ConfigError, ConsensusError, DataError, TopologyError
    from consensus.optim import attach


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
