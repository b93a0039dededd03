"""What is sent in place of gradients: one vector over all parameters, and with it two numbers that are coded alike."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from consensus.errors import ConfigError
from consensus.flat import FlatModel
from consensus.region import ACCUMULATED_IN, as_bytes
from consensus.transport.base import CHUNK_BYTES, Bytes

DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16}
"""In which coded gradients can travel."""


class Payload:
    """How the gradients of a model lie in a vector, and how precise that is.

    Parameters
    ----------
    flat : FlatModel
        The model.
    dtype : str
        One of :data:`DTYPES`.

    Attributes
    ----------
    dtype : torch.dtype
        Of what is sent.
    summed_in : torch.dtype
        Of sums of it.
    numel : int
        Numbers in a vector.

    Raises
    ------
    ConfigError
        If the dtype is unknown, or the model has complex parameters.
    """

    def __init__(self, flat: FlatModel, dtype: str) -> None:
        if dtype not in DTYPES:
            raise ConfigError(f"payload = {dtype!r}: expected one of {', '.join(DTYPES)}")
        complex_ones = [parameter.dtype for parameter, _, _ in flat.places if parameter.dtype.is_complex]
        if complex_ones:
            raise ConfigError(f"the model has parameters of dtype {complex_ones[0]}; coded gradients are of real numbers")
        self.dtype = DTYPES[dtype]
        self.summed_in = ACCUMULATED_IN[self.dtype]
        self._spans = []
        starts: dict[tuple[int, int], int] = {}
        self.numel = 0
        for parameter, region, start in flat.places:
            # Parameters tied by memory share a place, and their gradients add up in it.
            if (region, start) not in starts:
                starts[region, start] = self.numel
                self.numel += parameter.numel()
            self._spans.append((parameter, starts[region, start]))

    @torch.no_grad()
    def collect(self, into: Tensor) -> None:
        """Copy the parameters' gradients into a vector; a missing one counts as zero."""
        written: set[int] = set()
        for parameter, start in self._spans:
            part = into[start : start + parameter.numel()]
            gradient = parameter.grad
            if start in written:
                if gradient is not None:
                    part += gradient.detach().reshape(-1).to("cpu")
            elif gradient is None:
                part.zero_()
            else:
                part.copy_(gradient.detach().reshape(-1))
            written.add(start)

    @torch.no_grad()
    def spread(self, vector: Tensor) -> None:
        """Make a vector the parameters' gradients."""
        for parameter, start in self._spans:
            part = vector[start : start + parameter.numel()].view(parameter.shape)
            parameter.grad = part.to(dtype=parameter.dtype, device=parameter.device)


class CodedVector:
    """A coded gradient, and the sums of losses and of samples that belong to it.

    Losses and counts are coded with the same coefficients, in float64, and come back as those of all parts, whoever is silent.

    Parameters
    ----------
    payload : Payload
        Says how long it is, and of which dtype.

    Attributes
    ----------
    numbers : Tensor
        Shape (payload.numel,).
    sums : ndarray of float64, shape (2,)
        Sum of losses, number of samples.
    chunks : sequence of ndarray of uint8
        All of it as it is sent.
    """

    def __init__(self, payload: Payload) -> None:
        self._wide = payload.summed_in
        self.numbers = torch.zeros(payload.numel, dtype=payload.dtype)
        self.sums: NDArray[np.float64] = np.zeros(2)
        whole = as_bytes(self.numbers)
        self.chunks: Sequence[Bytes] = [
            *(whole[start : start + CHUNK_BYTES] for start in range(0, whole.size, CHUNK_BYTES)),
            self.sums.view(np.uint8),
        ]

    @torch.no_grad()
    def combine(self, weights: Sequence[float], vectors: Sequence[CodedVector]) -> None:
        """Become the weighted sum of others."""
        exact = self.numbers.dtype is self._wide
        total = self.numbers if exact else torch.empty(self.numbers.shape, dtype=self._wide)
        for place, (weight, vector) in enumerate(zip(weights, vectors, strict=True)):
            if place == 0:
                torch.mul(vector.numbers, weight, out=total) if exact else total.copy_(vector.numbers).mul_(weight)
            else:
                total.add_(vector.numbers, alpha=weight)
        if not exact:
            self.numbers.copy_(total)
        self.sums[:] = np.sum([weight * vector.sums for weight, vector in zip(weights, vectors, strict=True)], axis=0)
