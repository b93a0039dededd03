"""The models that are measured: multilayer perceptrons of three sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from types import MappingProxyType

MODELS: Mapping[str, tuple[int, ...]] = MappingProxyType(
    {
        "0.01 M": (64, 128, 10),
        "0.27 M": (784, 256, 256, 10),
        "5.8 M": (784, 2048, 2048, 10),
        "25 M": (784, 4608, 4608, 10),
    }
)
"""Layer widths by the name of the size; 0.27 M is the network of the straggler benchmark."""


def parameters(widths: Sequence[int]) -> int:
    """Count the weights and biases.

    Examples
    --------
    >>> [parameters(widths) for widths in MODELS.values()]
    [9610, 269322, 5824522, 24901642]
    """
    return sum((inward + 1) * outward for inward, outward in pairwise(widths))
