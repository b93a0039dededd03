"""The numbers of one dtype on one device, contiguous: parameters, then averaged buffers; and the arithmetic on them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from consensus.buffers import ALIGNMENT, Place, SumInPlace, Tail
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
    """A part of a region that travels as one message: numbers of the body, then numbers of the tail; either may be absent."""

    __slots__ = ("accumulator", "body_bytes", "data", "own", "region", "tail_at", "units", "weight", "zero")

    def __init__(self, region: Region, start: int, stop: int) -> None:
        cut = min(max(start, region.body), stop)
        self.region = region
        self.data: Bytes = as_bytes(region.host[start:stop])
        self.own = region.host[start:cut]
        self.accumulator = region.accumulator[start:cut]
        self.zero = torch.zeros(1, dtype=region.accumulator.dtype)
        self.body_bytes = (cut - start) * region.host.itemsize
        self.tail_at = (cut - region.body) * region.host.itemsize
        self.units = round(2 / torch.finfo(region.accumulator.dtype).eps)
        self.weight = 0.0

    def add(self, data: Bytes, weight: float) -> None:
        """Accumulate ``weight`` times the body's part of ``data``."""
        numbers = torch.from_numpy(data[: self.body_bytes]).view(self.own.dtype)
        # In whole units in the last place, weights and the rest of 1 are exact in the accumulator's dtype. Rounded one by one
        # they would sum to 1 + 3e-8, say, in float32, and the model would grow by that factor, round after round.
        weight = round(weight * self.units) / self.units
        # The first arrival of a round writes, so the accumulator needs no pass that clears it. `zero` has one dimension
        # because 0-dim tensors do not take part in type promotion, and bfloat16 times weight must not be rounded to bfloat16.
        torch.add(self.accumulator if self.weight else self.zero, numbers, alpha=weight, out=self.accumulator)
        self.weight += weight

    def mix(self) -> None:
        """Own <- (1 - sum of weights) own + accumulated."""
        if self.weight:
            torch.add(self.accumulator, self.own, alpha=1.0 - self.weight, out=self.own)


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
        self.accumulator = torch.empty(self.body, dtype=ACCUMULATED_IN[dtype])

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

    def average(self, sum_in_place: SumInPlace, size: int) -> None:
        """Replace the host's numbers by their mean over ranks."""
        body = self.host[: self.body]
        if self.body:
            total = body.to(self.accumulator.dtype)  # the body itself where the dtype is the same
            sum_in_place((torch.view_as_real(total) if total.is_complex() else total).numpy())
            total /= size
            body.copy_(total)
        if self.tail:
            self.row.copy_(self.tail.pool_over(self.row, sum_in_place, size))


class Arriving:
    """What has come of a peer's model, and the room for what must be kept of it; reused from round to round."""

    __slots__ = ("arrived", "rows", "store", "tails", "weight")

    def __init__(self, regions: Sequence[Region]) -> None:
        self.weight: float | None = None
        self.arrived = 0
        self.rows = {region: torch.empty_like(region.row) for region in regions if region.tail}
        self.tails = {region: as_bytes(row) for region, row in self.rows.items()}
        self.store: list[Bytes] = []

    def take(self, chunk: Chunk, data: Bytes, weight: float) -> None:
        """Accumulate the body's part of ``data`` and keep the tail's."""
        cut = chunk.body_bytes
        if cut:
            chunk.add(data, weight)
        if cut < data.size:
            self.tails[chunk.region][chunk.tail_at : chunk.tail_at + data.size - cut] = data[cut:]


def as_bytes(numbers: Tensor) -> Bytes:
    """A uint8 view, shape (bytes,), of a contiguous tensor in host memory."""
    data: NDArray[Any] = numbers.reshape(-1).view(torch.uint8).numpy()
    return data
