"""What training is made of, taken and put back so that it goes on as if it had never stopped, to the bit."""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn
from torch.optim import Optimizer

from consensus.checkpoint.plain import copied
from consensus.errors import CheckpointError

_REMEDY = "resume with the settings that the run was started with"
_REASON = 200
"""Characters of an error of torch's that are repeated."""


class Stateful(Protocol):
    """A learning-rate scheduler of torch, a :class:`consensus.data.sampler.Sampler`, or anything else that can be resumed."""

    def state_dict(self) -> dict[str, Any]:
        """Where it is, as data."""

    def load_state_dict(self, state_dict: dict[str, Any], /) -> Any:
        """Go there."""


def capture(
    model: nn.Module, optimizer: Optimizer, scheduler: Stateful | None = None, sampler: Stateful | None = None
) -> dict[str, Any]:
    """Take a copy of everything that the next training step depends on.

    Buffers left out of the model's state dict are not in it: they are constants that a new model has anyway. Nor are the states
    of generators other than the global ones of torch (of the model's CUDA devices, too), NumPy and Python.

    Parameters
    ----------
    model
        Its parameters and buffers are taken under their own names, flat or not.
    optimizer
        Its hooks are not taken.
    scheduler, sampler
        If there are any.

    Returns
    -------
    dict
        Fit for :meth:`consensus.checkpoint.store.Store.write`; shares no memory with what was captured.
    """
    parameters = model.state_dict()
    return {
        "model": copied(parameters),
        "versions": copied(getattr(parameters, "_metadata", {})),
        "optimizer": copied(optimizer.state_dict()),
        "scheduler": None if scheduler is None else copied(scheduler.state_dict()),
        "sampler": None if sampler is None else copied(sampler.state_dict()),
        "random": {
            "torch": torch.get_rng_state(),
            "cuda": [torch.cuda.get_rng_state(device) for device in _accelerators(model)],
            "numpy": np.random.get_state(legacy=False),  # noqa: NPY002 - the generator of code that is not ours
            "python": random.getstate(),
        },
    }


def restore(
    state: Mapping[str, Any],
    model: nn.Module,
    optimizer: Optimizer,
    scheduler: Stateful | None = None,
    sampler: Stateful | None = None,
) -> None:
    """Put back what :func:`capture` took, into objects made with the same arguments.

    Parameters and buffers are written in place: those of a flat model stay views. The state may be used again.

    Parameters
    ----------
    state
        Of :func:`capture`, or read from a checkpoint.
    model, optimizer, scheduler, sampler
        As for :func:`capture`. Restore last, after everything that draws random numbers.

    Raises
    ------
    CheckpointError
        If something is missing from the state or does not fit. What was put back before is changed then.
    ConfigError
        If the sampler walks through other data.
    """
    missing = [key for key in ("model", "versions", "optimizer", "scheduler", "sampler", "random") if key not in state]
    if missing:
        raise CheckpointError(f"the state lacks {', '.join(missing)}; expected what capture() gives")
    for name, given in (("scheduler", scheduler), ("sampler", sampler)):
        if (given is None) != (state[name] is None):
            here, there = ("none", "one") if given is None else ("one", "none")
            raise CheckpointError(f"{name}: there is {here} here, but the checkpoint has {there}; {_REMEDY}")
    # What layers of other versions of torch go by when they read their own parameters.
    parameters = OrderedDict(state["model"])
    parameters._metadata = state["versions"]  # type: ignore[attr-defined]
    _load("model", model, parameters)
    # Copies: an optimizer keeps the tensors that it is given and changes them with every step.
    _load("optimizer", optimizer, copied(state["optimizer"]))
    if scheduler is not None:
        _load("scheduler", scheduler, copied(state["scheduler"]))
    if sampler is not None:
        sampler.load_state_dict(copied(state["sampler"]))
    drawn = state["random"]
    torch.set_rng_state(drawn["torch"])
    # By order: a job that was queued anew finds its model on another device.
    for device, generator in zip(_accelerators(model), drawn["cuda"], strict=False):
        torch.cuda.set_rng_state(generator, device)
    np.random.set_state(drawn["numpy"])  # noqa: NPY002
    random.setstate(drawn["python"])


def _load(what: str, target: Any, state: Any) -> None:
    try:
        target.load_state_dict(state)
    except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())  # torch lists all parameters that do not fit, line by line
        reason = reason if len(reason) <= _REASON else reason[:_REASON] + " ..."
        raise CheckpointError(
            f"the {what}'s state does not fit a {type(target).__name__} made like this one ({reason}); {_REMEDY}"
        ) from error


def _accelerators(model: nn.Module) -> list[torch.device]:
    """CUDA devices that the model is on, in the order of its parameters."""
    return list(dict.fromkeys(parameter.device for parameter in model.parameters() if parameter.is_cuda))
