"""The numbers in an optimizer's parameter groups: learning rates, momentum, weight decay, whatever a scheduler may change.

With a parameter server the training loop, and with it the scheduler, runs at the workers, and the steps are made elsewhere. So
every gradient takes along the numbers that its worker would have stepped with, and an update is made with their mean.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.optim import Optimizer

_RATE = "lr"


class _Field(NamedTuple):
    """An option of a group, and where its numbers are."""

    group: int
    key: str
    place: slice


class GroupOptions:
    """The numeric options of all groups of an optimizer as one array.

    Those that the optimizer itself knows, that is has a default for, and that are numbers (or one-element tensors, or tuples of
    numbers, as Adam's betas) when this is made. What schedulers note in the groups for themselves is theirs.

    Parameters
    ----------
    optimizer : Optimizer
        Its groups have a learning rate ``lr``.

    Attributes
    ----------
    width : int
        How many numbers there are.

    Examples
    --------
    >>> weights = [torch.nn.Parameter(torch.zeros(1)), torch.nn.Parameter(torch.zeros(3))]
    >>> groups = [{"params": weights[:1], "lr": 0.5}, {"params": weights[1:]}]
    >>> options = GroupOptions(torch.optim.SGD(groups, lr=0.1, momentum=0.9))
    >>> options.read().tolist()
    [0.5, 0.9, 0.0, 0.0, 0.1, 0.9, 0.0, 0.0]
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self._optimizer = optimizer
        self._fields: list[_Field] = []
        self.width = 0
        for at, group in enumerate(optimizer.param_groups):
            for key in optimizer.defaults:
                numbers = _numbers(group.get(key))
                if numbers:
                    self._fields.append(_Field(at, key, slice(self.width, self.width + len(numbers))))
                    self.width += len(numbers)
        self._rates = [field.place.start for field in self._fields if field.key == _RATE]
        sizes = [sum(each.numel() for each in group["params"] if each.requires_grad) for group in optimizer.param_groups]
        self._sizes = np.array(sizes, dtype=np.float64)

    @property
    def signature(self) -> str:
        """What must be the same at all ranks, in words."""
        kind = type(self._optimizer).__name__
        options = dict.fromkeys(field.key for field in self._fields)
        return f"{kind} of {len(self._sizes)} groups of {self._sizes.astype(int).tolist()} numbers, with {', '.join(options)}"

    def read(self) -> NDArray[np.float64]:
        """The options as they are now, float64, shape (width,)."""
        groups = self._optimizer.param_groups
        return np.array([number for field in self._fields for number in _numbers(groups[field.group][field.key])])

    def rates(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """The groups' learning rates among ``values``, shape (groups,)."""
        return values[self._rates]

    def rate(self, values: NDArray[np.float64]) -> float:
        """The mean learning rate of a number of the model, that is, of the groups by their sizes."""
        rates = self.rates(values)
        # Of equal numbers exactly that number.
        return float(rates[0] if (rates == rates[0]).all() else rates @ self._sizes / self._sizes.sum())

    @contextmanager
    def replaced(self, values: NDArray[np.float64], factor: float = 1.0) -> Iterator[float]:
        """Give the groups other options for a while, and yield the :meth:`rate` that they have then.

        Parameters
        ----------
        values : ndarray of float64, shape (width,)
        factor : float
            What the learning rates among them are multiplied by.
        """
        values = values.copy()
        values[self._rates] *= factor
        groups = self._optimizer.param_groups
        before = [groups[field.group][field.key] for field in self._fields]
        for field, own in zip(self._fields, before, strict=True):
            new = values[field.place].tolist()
            if new != _numbers(own):
                groups[field.group][field.key] = _like(own, new)
        try:
            yield self.rate(values)
        finally:
            for field, own in zip(self._fields, before, strict=True):
                groups[field.group][field.key] = own


def _numbers(value: Any) -> list[float]:
    """The numbers of an option, none if it has other contents."""
    if isinstance(value, Tensor):
        return [float(value)] if value.numel() == 1 and not value.is_complex() else []
    parts: Sequence[Any] = value if isinstance(value, tuple) else (value,)
    if any(isinstance(part, bool) or not isinstance(part, int | float) for part in parts):
        return []
    return [float(part) for part in parts]


def _like(own: Any, numbers: list[float]) -> Any:
    """These numbers in the form that the option had."""
    if isinstance(own, tuple):
        return tuple(numbers)
    (number,) = numbers
    if isinstance(own, Tensor):
        return torch.full_like(own, number)
    return int(number) if isinstance(own, int) and number.is_integer() else number
