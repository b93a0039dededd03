"""Optimizers and schedulers by the names that torch has for them, tried before a rank trains."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch.nn import Parameter
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from consensus.config.schema import Optimizer as OptimizerSection
from consensus.errors import ConfigError
from consensus.names import lookup, suggestion

_T = TypeVar("_T")


@dataclass(frozen=True)
class Recipe:
    """How to make the optimizer and the scheduler of a run file.

    Parameters
    ----------
    optimizer
        Takes the parameters.
    scheduler
        Takes the optimizer; None for a constant learning rate.
    """

    optimizer: Callable[[Iterable[Parameter]], Optimizer]
    scheduler: Callable[[Optimizer], LRScheduler] | None


def recipe(section: OptimizerSection) -> Recipe:
    """Find the classes, and try them with their keywords on a parameter of their own.

    Raises
    ------
    ConfigError
        If there is no such class or keyword, or the optimizer or the scheduler does not take a step with these values.

    Examples
    --------
    >>> recipe(OptimizerSection(name="sgd", lr=0.1, nesterov=True))
    Traceback (most recent call last):
        ...
    consensus.errors.ConfigError: optimizer.name = 'sgd': torch.optim.SGD refuses these keywords...
    """
    found = _classes(torch.optim, Optimizer)
    kind = lookup("optimizer", section.name.lower(), found)
    keywords = {"lr": section.lr, **section.parameters}
    _check_keywords("optimizer", kind, keywords)

    def make_optimizer(parameters: Iterable[Parameter]) -> Optimizer:
        return kind(parameters, **keywords)

    make_scheduler: Callable[[Optimizer], LRScheduler] | None = None
    if section.scheduler is not None:
        schedule = lookup("scheduler", section.scheduler.name.lower(), _classes(torch.optim.lr_scheduler, LRScheduler))
        schedule_keywords = section.scheduler.parameters
        _check_keywords("optimizer.scheduler", schedule, schedule_keywords)

        def make_scheduler(optimizer: Optimizer) -> LRScheduler:
            return schedule(optimizer, **schedule_keywords)

    probe = Parameter(torch.zeros(2, 2))
    probe.grad = torch.zeros_like(probe)
    with _refusals(f"optimizer.name = {section.name!r}: torch.optim.{kind.__name__}"):
        optimizer = make_optimizer([probe])
        optimizer.step()
    if section.scheduler is not None and make_scheduler is not None:
        with _refusals(f"optimizer.scheduler.name = {section.scheduler.name!r}: torch.optim.lr_scheduler.{schedule.__name__}"):
            make_scheduler(optimizer).step()
    return Recipe(make_optimizer, make_scheduler)


def differences(before: OptimizerSection, after: OptimizerSection) -> list[str]:
    """What of an optimizer's or a scheduler's own state would be another's, in words; what is not said has its default.

    ``clip_norm`` is no part of either.

    Examples
    --------
    >>> differences(OptimizerSection(lr=0.1), OptimizerSection(lr=0.05, momentum=0))
    ['optimizer.lr was 0.1, is 0.05']
    >>> differences(OptimizerSection(), OptimizerSection(scheduler={"name": "steplr", "step_size": 3}))
    ["optimizer.scheduler.name was None, is 'steplr'"]
    """
    was, now = _settings(before), _settings(after)
    for names in (["optimizer.name", "optimizer.scheduler.name"], sorted(was.keys() | now.keys())):
        # The keywords of another class say nothing more.
        if found := [f"{key} was {was.get(key)!r}, is {now.get(key)!r}" for key in names if was.get(key) != now.get(key)]:
            return found
    return []


def _settings(section: OptimizerSection) -> dict[str, Any]:
    """All keywords of an optimizer and its scheduler, by their paths in a run file."""
    kind = lookup("optimizer", section.name.lower(), _classes(torch.optim, Optimizer))
    told = {"optimizer.name": section.name.lower(), **_keywords("optimizer", kind, {"lr": section.lr, **section.parameters})}
    if section.scheduler is not None:
        path, name = "optimizer.scheduler", section.scheduler.name.lower()
        schedule = lookup("scheduler", name, _classes(torch.optim.lr_scheduler, LRScheduler))
        told |= {f"{path}.name": name, **_keywords(path, schedule, section.scheduler.parameters)}
    return told


def _keywords(path: str, kind: type, given: Mapping[str, Any]) -> dict[str, Any]:
    known = list(inspect.signature(kind).parameters.values())[1:]
    defaults = {parameter.name: parameter.default for parameter in known}
    # A run file has lists where torch has pairs.
    plain = {key: list(value) if isinstance(value, tuple) else value for key, value in (defaults | dict(given)).items()}
    return {f"{path}.{key}": value for key, value in plain.items()}


def _classes(module: Any, base: type[_T]) -> dict[str, type[_T]]:
    members = inspect.getmembers(
        module, lambda member: inspect.isclass(member) and issubclass(member, base) and member is not base
    )
    return {name.lower(): member for name, member in members if not name.startswith("_")}


def _check_keywords(path: str, kind: type, keywords: Mapping[str, Any]) -> None:
    known = list(inspect.signature(kind).parameters)[1:]  # the first is what is stepped
    unknown = [
        f"{path}.{key} = {value!r}: unknown keyword of {kind.__name__}; {suggestion(key, known)}"
        for key, value in keywords.items()
        if key not in known
    ]
    if unknown:
        raise ConfigError("\n".join(unknown))


class _refusals:
    """Turns whatever torch raises into a ConfigError; its classes raise no common type for values they do not like."""

    def __init__(self, who: str) -> None:
        self._who = who
        self._warnings = warnings.catch_warnings()

    def __enter__(self) -> None:
        self._warnings.__enter__()
        warnings.simplefilter("ignore")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: Any) -> None:
        self._warnings.__exit__(kind, error, traceback)
        if isinstance(error, Exception):
            raise ConfigError(
                f"{self._who} refuses these keywords, or a plain step ({error}); see its page in torch's documentation"
            ) from error
