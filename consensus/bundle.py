"""Numbers laid out as a flat model's, in memory of their own: a gradient on its way, or a version of the weights."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import nn

from consensus.buffers import ALIGNMENT
from consensus.flat import FlatModel
from consensus.region import as_bytes
from consensus.transport.base import CHUNK_BYTES, Bytes


class Bundle:
    """One array a region of a flat model, in host memory, with the same chunks.

    Parameters
    ----------
    flat : FlatModel
        Whose layout it has. Contents are zeros.

    Attributes
    ----------
    parts : list of Tensor
        One-dimensional, one a region: parameters (padded), then averaged buffers.
    bodies : list of Tensor
        Views of their parameters' part.
    chunks : sequence of ndarray of uint8
        Views of ``parts``, of the same lengths as ``flat.chunks``.
    """

    def __init__(self, flat: FlatModel) -> None:
        self.parts = [torch.zeros(numel, dtype=dtype) for dtype, numel in flat.layout]
        self.bodies = [part[:body] for part, body in zip(self.parts, flat.bodies, strict=True)]
        self.bytes = [as_bytes(part) for part in self.parts]
        self.chunks: Sequence[Bytes] = _split(self.bytes, [chunk.size for chunk in flat.chunks])

    @torch.no_grad()
    def square(self) -> float:
        """The squared norm of the parameters' part; not finite if any number is not (or if it is beyond float32)."""
        norms = [float(torch.linalg.vector_norm(body, dtype=_wide(body.dtype))) for body in self.bodies]
        return sum(norm * norm for norm in norms)

    @torch.no_grad()
    def copy_weights(self, flat: FlatModel) -> None:
        """Take the model's parameters and averaged buffers."""
        for part, now in zip(self.parts, flat.snapshot(), strict=True):
            as_bytes(part)[:] = now


class Landing:
    """Where weights arrive while others are in use; twofold, for newer ones may begin to come before those here are in use.

    Parameters
    ----------
    flat : FlatModel
        Whose layout they have.

    Attributes
    ----------
    coming, here : Bundle
        Where the next ones arrive, and those that came last.
    """

    def __init__(self, flat: FlatModel) -> None:
        self.coming, self.here = Bundle(flat), Bundle(flat)

    def arrived(self) -> None:
        """The ones that were coming are here."""
        self.coming, self.here = self.here, self.coming


def share(chunks: int, servers: int, server: int) -> range:
    """The numbers of those of ``chunks`` chunks that are the ``server``-th of ``servers`` servers' part.

    Examples
    --------
    >>> [list(share(5, 2, server)) for server in range(2)]
    [[0, 1], [2, 3, 4]]
    """
    return range(chunks * server // servers, chunks * (server + 1) // servers)


def shared_chunk_bytes(parameters: Iterable[nn.Parameter], servers: int) -> int:
    """How large chunks may be so that every one of ``servers`` servers gets some; a model may still be too small for that."""
    if servers <= 1:
        return CHUNK_BYTES
    nbytes = sum(parameter.numel() * parameter.element_size() for parameter in parameters)
    return min(CHUNK_BYTES, max(ALIGNMENT, nbytes // servers // ALIGNMENT * ALIGNMENT))


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


def _split(regions: Sequence[Bytes], sizes: Sequence[int]) -> list[Bytes]:
    chunks, left = [], list(regions)
    for size in sizes:
        while not left[0].size:
            left.pop(0)
        chunks.append(left[0][:size])
        left[0] = left[0][size:]
    return chunks
