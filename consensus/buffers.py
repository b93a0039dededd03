"""Buffers of a model: which are averaged with the neighbours', and by which arithmetic.

BatchNorm's running mean and variance describe a distribution, and the average of the ranks' models should describe the
mixture of their distributions. With shares p_j that sum to one, the law of total variance gives

    mean = sum_j p_j mean_j        var = sum_j p_j (var_j + (mean_j - mean)^2)

Averaging the variances alone leaves out the spread between ranks, which is large when their data differ. The equivalent
form E[x^2] - mean^2 cancels badly in float32 where |mean| >> sqrt(var), so ranks send (mean, var) as they are and the
deviations are taken after all of a round's partners are known, in float64. Tails are small; this costs nothing.

InstanceNorm is no BatchNorm here: its running variance is the mean of the variances within instances, which has no part
between ranks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parameter import is_lazy

from consensus.errors import ConfigError

ALIGNMENT = 64
"""Parameters, buffers and chunks start at multiples of this many bytes: a cache line, and what vectorised kernels ask for."""

BufferPolicy: TypeAlias = Literal["average", "local"]
"""``average``: floating buffers are averaged with the parameters; ``local``: every rank keeps its own."""

Place: TypeAlias = tuple[torch.device, torch.dtype]
"""Where numbers live: tensors with the same place share one contiguous buffer."""

MeanInPlace: TypeAlias = Callable[[NDArray[Any]], None]
"""Makes a NumPy array the mean of all ranks' arrays, in place."""


class Slot(NamedTuple):
    """A buffer by its owner and its name there, since modules may replace the tensor (``self.ema = 0.9 * self.ema + ...``)."""

    name: str
    owner: nn.Module
    key: str

    @property
    def tensor(self) -> Tensor:
        """The tensor that the module holds at present."""
        return getattr(self.owner, self.key)


class _Bound(NamedTuple):
    """A slot and its view in the row."""

    slot: Slot
    view: Tensor
    address: int
    held: dict[str, Tensor | None]


class Tail:
    """The averaged buffers of one place, and their layout in a row of numbers: means | variances | others.

    Parameters
    ----------
    means, variances : sequence of Slot
        Pairs of BatchNorm statistics, in the same order.
    others : sequence of Slot
        Buffers that are averaged like parameters.
    step : int
        Buffers start at multiples of this many numbers.
    """

    def __init__(self, means: Sequence[Slot], variances: Sequence[Slot], others: Sequence[Slot], step: int) -> None:
        self._slots = (*means, *variances, *others)
        self._starts: list[int] = [0]
        for slot in self._slots:
            self._starts.append(self._starts[-1] + -(-slot.tensor.numel() // step) * step)
        self._means = slice(0, self._starts[len(means)])
        self._variances = slice(self._starts[len(means)], self._starts[2 * len(means)])
        self._bound: list[_Bound] = []
        self.numel = self._starts[-1]
        """Numbers in a row."""

    def bind(self, row: Tensor) -> None:
        """Make the buffers views of ``row``, shape (numel,), so that as a rule nothing need be copied to send and to mix them."""
        for slot, view in zip(self._slots, self._views(row), strict=True):
            tensor = slot.tensor
            view.copy_(tensor)
            tensor.data = view
            self._bound.append(_Bound(slot, view, tensor.data_ptr(), slot.owner._buffers))

    def pack(self) -> None:
        """Copy into the row what modules have replaced."""
        for view, tensor in self._replaced():
            view.copy_(tensor)

    def unpack(self) -> None:
        """Copy from the row what modules have replaced."""
        for view, tensor in self._replaced():
            tensor.copy_(view)

    def pool(self, shares: Sequence[float], rows: Sequence[Tensor]) -> Tensor:
        """The row of the mixture.

        Parameters
        ----------
        shares : sequence of float
            What each row counts for; they sum to one.
        rows : sequence of Tensor, each of shape (numel,)
            The ranks' rows.

        Returns
        -------
        Tensor, shape (numel,), float64 or complex128
        """
        # NumPy, since an operation on a few hundred numbers costs it a third of what it costs torch.
        stack = np.array([wide(row) for row in rows])
        weights = np.array(shares)
        pooled = weights @ stack
        spread = stack[:, self._means] - pooled[self._means]
        spread *= spread
        pooled[self._variances] += weights @ spread
        return torch.from_numpy(pooled)

    def pool_over(self, row: Tensor, mean_in_place: MeanInPlace) -> Tensor:
        """As :meth:`pool`, of all ranks with equal shares.

        Two means, so that no variance is a difference of large numbers.
        """
        pooled, own = wide(row).copy(), wide(row)
        mean_in_place(pooled.view(np.float64))
        spread = own[self._means] - pooled[self._means]
        if spread.size:
            spread *= spread
            mean_in_place(spread.view(np.float64))
            pooled[self._variances] += spread
        return torch.from_numpy(pooled)

    def _replaced(self) -> Iterator[tuple[Tensor, Tensor]]:
        for slot, view, address, held in self._bound:
            tensor = held.get(slot.key)
            if tensor is not None and tensor.data_ptr() == address:
                continue
            if tensor is None or tensor.shape != view.shape:
                seen = "None" if tensor is None else f"a tensor of shape {tuple(tensor.shape)}"
                raise ConfigError(
                    f"buffer {slot.name!r} had shape {tuple(view.shape)} when the model was attached and is {seen} now; "
                    "ranks can only average buffers that keep their shape: attach afterwards, or use buffers='local'"
                )
            yield view, tensor

    def _views(self, row: Tensor) -> list[Tensor]:
        shapes = (slot.tensor.shape for slot in self._slots)
        return [row[start : start + shape.numel()].view(shape) for start, shape in zip(self._starts, shapes, strict=False)]


def fixed(buffer: Tensor) -> bool:
    """Whether ``buffer`` is an expanded tensor: its numbers share memory and cannot be written, so it is a constant."""
    return any(stride == 0 and size > 1 for stride, size in zip(buffer.stride(), buffer.shape, strict=True))


def wide(numbers: Tensor) -> NDArray[Any]:
    """``numbers``, in host memory, as float64, or complex128 if they are complex."""
    return numbers.to(torch.complex128 if numbers.is_complex() else torch.float64).numpy()


def averaged_buffers(model: nn.Module, policy: BufferPolicy) -> dict[Place, Tail]:
    """The buffers of ``model`` that are averaged, by place.

    Integer and boolean buffers (``num_batches_tracked``) stay local, and so do buffers left out of the state dict: they are
    constants that every rank derives for itself (masks, position tables), not something learned.

    Parameters
    ----------
    model : nn.Module
        Its modules are walked in the order of ``named_modules``, the same at every rank.
    policy : {"average", "local"}
        ``local`` averages none.

    Returns
    -------
    dict
        Place -> Tail.

    Raises
    ------
    ConfigError
        If the policy is unknown, or a buffer has no shape yet.

    Examples
    --------
    >>> tails = averaged_buffers(nn.BatchNorm1d(16), "average")
    >>> [(str(dtype), tail.numel) for (_, dtype), tail in tails.items()]
    [('torch.float32', 32)]
    """
    if policy not in get_args(BufferPolicy):
        raise ConfigError(f"buffers={policy!r} is not known; use one of {', '.join(map(repr, get_args(BufferPolicy)))}")
    if policy == "local":
        return {}
    persistent = model.state_dict(keep_vars=True).keys()
    columns: dict[Place, tuple[list[Slot], list[Slot], list[Slot]]] = {}
    seen: set[int] = set()
    for path, module in model.named_modules():
        slots = {
            key: Slot(f"{path}.{key}".lstrip("."), module, key) for key in module._buffers if module._buffers[key] is not None
        }
        for slot in slots.values():
            if is_lazy(slot.tensor):
                raise ConfigError(f"buffer {slot.name!r} has no shape yet; run one forward pass before attaching")
        paired = _statistics(module, slots)
        for key, slot in slots.items():
            tensor = slot.tensor
            number = tensor.is_floating_point() or tensor.is_complex()
            if id(tensor) in seen or slot.name not in persistent or not number or not tensor.numel() or fixed(tensor):
                continue
            seen.add(id(tensor))
            columns.setdefault((tensor.device, tensor.dtype), ([], [], []))[paired.get(key, 2)].append(slot)
    return {place: Tail(*slots, step=ALIGNMENT // place[1].itemsize) for place, slots in columns.items()}


def _statistics(module: nn.Module, slots: dict[str, Slot]) -> dict[str, int]:
    """Which buffers of a BatchNorm are a (mean, variance) pair: name -> column of the tail."""
    if not isinstance(module, _BatchNorm) or not {"running_mean", "running_var"} <= slots.keys():
        return {}
    mean, variance = slots["running_mean"].tensor, slots["running_var"].tensor
    # Kept in different precisions they would lie in different rows; such a module is averaged plainly.
    alike = (mean.device, mean.dtype, mean.shape) == (variance.device, variance.dtype, variance.shape)
    return {"running_mean": 0, "running_var": 1} if alike else {}
