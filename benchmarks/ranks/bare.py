"""The exchange as one writes it by hand: whole buffers, Irecv, Isend, Waitall, and the average."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mpi4py import MPI


class Bare:
    """Averaging with one or two neighbours.

    Parameters
    ----------
    comm
        The ranks; duplicated.
    neighbours
        One or two ranks, each of which has this rank for a neighbour, with as many neighbours.
    numel
        Numbers in the model, float32.
    """

    def __init__(self, comm: MPI.Intracomm, neighbours: Sequence[int], numel: int) -> None:
        self._comm = comm.Dup()
        self._neighbours = neighbours
        self._own = torch.full((numel,), float(comm.rank))
        self._others = [torch.zeros(numel) for _ in neighbours]
        self._send = self._own.numpy()
        self._receive = [other.numpy() for other in self._others]

    def round(self) -> None:
        """Exchange and average: own <- mean of own and neighbours'."""
        comm = self._comm
        requests = [comm.Irecv(into, peer) for into, peer in zip(self._receive, self._neighbours, strict=True)]
        requests += [comm.Isend(self._send, peer) for peer in self._neighbours]
        MPI.Request.Waitall(requests)
        # Two kernels for two neighbours, the fewest passes over memory that torch or NumPy allow: other <- (a + b) / 2, then
        # own <- own + 2/3 (other - own) = (own + a + b) / 3.
        first, *rest = self._others
        for second in rest:
            first.lerp_(second, 0.5)
        count = len(self._others)
        self._own.lerp_(first, count / (count + 1))

    @property
    def value(self) -> float:
        """The first number of the own model, to see that averages are averages."""
        return float(self._own[0])
