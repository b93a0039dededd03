"""Graphs of ranks: families and files, averaging weights, their spectrum, and the backbone.

The names below are resolved on first use, so that the protocol and the rules can import :mod:`consensus.topology.backbone` and
:mod:`consensus.topology.metropolis`, which need the standard library alone, without loading networkx, numpy and scipy. Two
functions are not among them, because here their names are modules: :func:`consensus.topology.backbone.backbone` and
:func:`consensus.topology.weights.metropolis`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_PUBLIC = {
    "FAMILIES": "consensus.topology.families",
    "build": "consensus.topology.families",
    "lazy": "consensus.topology.weights",
    "max_degree": "consensus.topology.weights",
    "metropolis_round": "consensus.topology.weights",
    "mixing_time": "consensus.topology.spectrum",
    "read_graph": "consensus.topology.files",
    "spectral_gap": "consensus.topology.spectrum",
    "summarise": "consensus.topology.summary",
    "validate": "consensus.topology.validity",
    "write_edgelist": "consensus.topology.files",
}

__all__ = [
    "FAMILIES",
    "build",
    "lazy",
    "max_degree",
    "metropolis_round",
    "mixing_time",
    "read_graph",
    "spectral_gap",
    "summarise",
    "validate",
    "write_edgelist",
]

if TYPE_CHECKING:
    from consensus.topology.families import FAMILIES, build
    from consensus.topology.files import read_graph, write_edgelist
    from consensus.topology.spectrum import mixing_time, spectral_gap
    from consensus.topology.summary import summarise
    from consensus.topology.validity import validate
    from consensus.topology.weights import lazy, max_degree, metropolis_round


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
