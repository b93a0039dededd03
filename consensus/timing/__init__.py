"""Compute and link time models, seeded: one source of stragglers for the simulator's clock and for real runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from types import MappingProxyType
from typing import Any

from consensus.names import suggestion
from consensus.timing.checks import ParameterError
from consensus.timing.compute import (
    ComputeTime,
    Constant,
    Markov,
    Pareto,
    Persistent,
    Replay,
    ShiftedExponential,
    Stall,
    Transient,
)
from consensus.timing.link import Link
from consensus.timing.stream import Stream

__all__ = [
    "MODELS",
    "ComputeTime",
    "Constant",
    "Link",
    "Markov",
    "ParameterError",
    "Pareto",
    "Persistent",
    "Replay",
    "ShiftedExponential",
    "Stall",
    "Stream",
    "Transient",
    "build",
]

MODELS: Mapping[str, type[ComputeTime]] = MappingProxyType(
    {
        "constant": Constant,
        "shifted_exponential": ShiftedExponential,
        "pareto": Pareto,
        "transient": Transient,
        "stall": Stall,
        "persistent": Persistent,
        "markov": Markov,
        "replay": Replay,
    }
)
"""The compute time models by the names that run files use."""


def build(name: str, /, **parameters: Any) -> ComputeTime:
    """Make a compute time model from its name and parameters.

    Parameters
    ----------
    name : str
        A key of :data:`MODELS`.
    **parameters
        Those of the model, all of them: timing models have no defaults, a regime is always spelled out.

    Returns
    -------
    ComputeTime
        The frozen model.

    Raises
    ------
    ConfigError
        If the name is unknown, or a parameter is unknown, missing or out of range; all parameters at fault are listed.

    Examples
    --------
    >>> build("constant", seconds=0.02)
    Constant(seconds=0.02)
    >>> build("constant", second=0.02)
    Traceback (most recent call last):
    consensus.timing.checks.ParameterError: constant: second = 0.02: unknown parameter; did you mean 'seconds'? Known: seconds
    constant: seconds: missing; constant takes seconds
    """
    if name not in MODELS:
        raise ParameterError("timing", [f"model = {name!r}: unknown compute time model; {suggestion(name, MODELS)}"])
    kind = MODELS[name]
    known = [field.name for field in fields(kind)]
    unknown = {key: value for key, value in parameters.items() if key not in known}
    problems = [f"{key} = {value!r}: unknown parameter; {suggestion(key, known)}" for key, value in unknown.items()]
    problems += [f"{key}: missing; {name} takes {', '.join(known)}" for key in known if key not in parameters]
    if problems:
        raise ParameterError(name, problems)
    return kind(**parameters)
