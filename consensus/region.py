"""The numbers of one dtype on one device, contiguous: parameters, then averaged buffers; and the arithmetic on them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from consensus.buffers import ALIGNMENT, MeanInPlace, Place, Tail
from consensus.errors import ConfigError
from consensus.transport.base import Bytes

ACCUMULATED_IN = {
    torch.float32: torch.float32,
    torch.float64: torch.float64,
    torch.float16: torch.float32,
    torch.bfloat16: torch.float32,
    torch.complex64: torch.complex64,
    torch.complex128: torch.complex128,
}
"""The dtypes that can be exchanged, and in which dtype their weighted sums are taken."""

EXCHANGEABLE = ", ".join(str(dtype).removeprefix("torch.") for dtype in ACCUMULATED_IN)
"""Their names, for messages."""


class Chunk:
    """A part of a region that travels as one message: numbers of the body, then numbers of the tail; either may be absent.

    What arrives in a round is kept as its weighted mean, in the memory where the first of it landed. A mean needs no scaling
    pass, no pass that clears anything, and no weight is rounded: of equal models the mean is exactly that model. Half-precision
    numbers are summed up in float32 instead, for a mean that is rounded at each arrival would lose too much.
    """

    __slots__ = (
        "_mean", "_memory", "_total", "_units",
        "body_bytes", "data", "moves", "own", "region", "spare", "tail_at", "weight",
    )  # fmt: skip

    def __init__(self, region: Region, start: int, stop: int) -> None:
        cut = min(max(start, region.body), stop)
        self.region = region
        self.data: Bytes = as_bytes(region.host[start:stop])
        self.own = region.host[start:cut]
        self.body_bytes = (cut - start) * region.host.itemsize
        self.tail_at = (cut - region.body) * region.host.itemsize
        self.spare = region.spare.setdefault(self.data.size, [])
        """Memory for chunks of this size, what was used last at the end: it is in cache."""
        self.weight = 0.0
        """What all that has been accumulated in this round counts for."""
        self.moves = 0
        """How often it has come and left in this round."""
        self._memory: Bytes | None = None
        self._mean = self.own
        self._total: Tensor | None = None
        self._units = round(2 / torch.finfo(region.accumulated_in).eps)

    def begin(self) -> None:
        """Forget what arrived in the last round."""
        self.weight, self.moves = 0.0, 0
        self._give_back()

    def lend(self) -> Bytes:
        """Return memory in which one may arrive, shape like :attr:`data`."""
        if self.spare:
            return self.spare.pop()
        data: Bytes = np.empty(self.data.size, np.uint8)
        self.region.numbers[id(data)] = data, torch.from_numpy(data).view(self.own.dtype)
        return data

    def _numbers(self, data: Bytes) -> Tensor:
        # Looked up where it can be: to make a tensor of an array takes as long as to average a small model.
        lent, numbers = self.region.numbers.get(id(data), (None, self.own))
        if lent is not data:
            return torch.from_numpy(data[: self.body_bytes]).view(self.own.dtype)
        return numbers if self.body_bytes == data.size else numbers[: len(self.own)]

    def add(self, data: Bytes, weight: float, last: bool) -> None:
        """Accumulate the body's part of ``data``, which may be kept; mix if this is the ``last`` of all that moves."""
        numbers = self._numbers(data)
        if self.region.summed:
            self._sum_up(numbers, weight)
            self.spare.append(data)
        elif self._memory is None:
            self._mean, self._memory, self.weight = numbers, data, weight
        else:
            self.weight += weight
            self._mean.lerp_(numbers, weight / self.weight)
            self.spare.append(data)
        if last:
            self.mix()

    def _sum_up(self, numbers: Tensor, weight: float) -> None:
        # In whole units in the last place, weights and the rest of 1 are exact in the accumulator's dtype. Rounded one by one
        # they would sum to 1 + 3e-8, say, in float32, and the model would grow by that factor, round after round.
        weight = round(weight * self._units) / self._units
        if self._total is None:
            self._total = torch.empty(len(numbers), dtype=self.region.accumulated_in)
        # The first arrival of a round writes, so the memory needs no pass that clears it. The zero has one dimension because
        # 0-dim tensors do not take part in type promotion, and bfloat16 times weight must not be rounded to bfloat16.
        begin = self._total if self.weight else self.region.zero
        torch.add(begin, numbers, alpha=weight, out=self._total)
        self.weight += weight

    def mix(self) -> None:
        """Own <- (1 - weight) own + weight mean, once a round."""
        if self._memory is not None:
            self.own.lerp_(self._mean, self.weight)
            self._give_back()
        elif self._total is not None and self.weight:
            torch.add(self._total, self.own, alpha=1.0 - self.weight, out=self.own)
            self.weight = 0.0

    def _give_back(self) -> None:
        if self._memory is not None:
            self.spare.append(self._memory)
            self._memory = None


class Region:
    """The numbers of one place: body (parameters, padded to aligned starts), then tail (averaged buffers)."""

    def __init__(self, place: Place, parameters: Sequence[nn.Parameter], tail: Tail | None, staging: bool | None) -> None:
        device, dtype = place
        step = ALIGNMENT // dtype.itemsize
        starts = np.cumsum([0, *(-(-p.numel() // step) * step for p in parameters)]).tolist()
        self.body: int = starts[-1]
        self.tail = tail
        self.numel = self.body + (tail.numel if tail else 0)
        self.flat = torch.zeros(self.numel, dtype=dtype, device=device)
        for parameter, start in zip(parameters, starts, strict=False):
            view = self.flat[start : start + parameter.numel()].view(parameter.shape)
            view.copy_(parameter.data)
            parameter.data = view
        if tail:
            tail.bind(self.flat[self.body :])
        self.staged = device.type != "cpu" if staging is None else staging
        if not self.staged and device.type != "cpu":
            raise ConfigError(f"a model on {device} cannot be sent without staging; leave staging unset")
        # An ordinary device-to-host copy waits for the stream that runs the optimizer, so nothing else need be synchronised.
        self.host = torch.empty_like(self.flat, device="cpu", pin_memory=device.type == "cuda") if self.staged else self.flat
        self.row = self.host[self.body :]
        self.accumulated_in = ACCUMULATED_IN[dtype]
        self.summed = self.accumulated_in is not dtype
        self.zero = torch.zeros(1, dtype=self.accumulated_in)
        self.numbers: dict[int, tuple[Bytes, Tensor]] = {}
        """Memory for chunks by its id, with the same memory as numbers."""
        self.spare: dict[int, list[Bytes]] = {}
        """Memory for chunks on their way, by size."""

    def chunks(self, chunk_bytes: int) -> list[Chunk]:
        """Split into as few chunks as fit, of about equal size, so that no short one is left over."""
        step = ALIGNMENT // self.flat.itemsize
        limit = chunk_bytes // ALIGNMENT * step
        count = -(-self.numel // limit)
        size = -(-self.numel // count) if count else 1
        size = -(-size // step) * step
        return [Chunk(self, start, min(start + size, self.numel)) for start in range(0, self.numel, size)]

    def open(self) -> None:
        """Bring what is sent up to date with the model."""
        if self.tail:
            self.tail.pack()
        if self.staged:
            self.host.copy_(self.flat)

    def publish(self) -> None:
        """Bring the model up to date with the host's numbers."""
        if self.staged:
            self.flat.copy_(self.host)
        if self.tail:
            self.tail.unpack()

    def pool(self, shares: Sequence[float], rows: Sequence[Tensor]) -> None:
        """Mix the own tail (the first share) with those that arrived."""
        if self.tail:
            self.row.copy_(self.tail.pool(shares, [self.row, *rows]))

    def copy(self) -> Tensor:
        """The present numbers, buffers included, in fresh host memory; what is being sent does not change."""
        if self.tail:
            self.tail.pack()
        return self.flat.to("cpu", copy=True)

    def average(self, mean_in_place: MeanInPlace) -> None:
        """Replace the host's numbers by their mean over ranks."""
        body = self.host[: self.body]
        if self.body:
            total = body.to(self.accumulated_in)  # the body itself where the dtype is the same
            mean_in_place((torch.view_as_real(total) if total.is_complex() else total).numpy())
            body.copy_(total)
        if self.tail:
            self.row.copy_(self.tail.pool_over(self.row, mean_in_place))


class Arriving:
    """What has come of a peer's model, and the room for what must be kept of it; reused from round to round."""

    __slots__ = ("arrived", "rows", "store", "tails", "weight")

    def __init__(self, regions: Sequence[Region]) -> None:
        self.weight: float | None = None
        self.arrived = 0
        self.rows = {region: torch.empty_like(region.row) for region in regions if region.tail}
        self.tails = {region: as_bytes(row) for region, row in self.rows.items()}
        self.store: list[Bytes] = []
        """The chunks that came, in order, while what they count for is not known."""

    def take(self, chunk: Chunk, data: Bytes, weight: float, last: bool) -> None:
        """Keep the tail's part of ``data`` and accumulate the body's, mixing if that is the ``last`` of all that moves."""
        cut = chunk.body_bytes
        if cut < data.size:
            self.tails[chunk.region][chunk.tail_at : chunk.tail_at + data.size - cut] = data[cut:]
        if cut:
            chunk.add(data, weight, last)
        else:
            chunk.spare.append(data)


def as_bytes(numbers: Tensor) -> Bytes:
    """A uint8 view, shape (bytes,), of a contiguous tensor in host memory."""
    data: NDArray[Any] = numbers.reshape(-1).view(torch.uint8).numpy()
    return data
