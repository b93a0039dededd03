"""For tests that run under mpirun: one body on all ranks."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import TypeVar

from consensus.transport.base import Transport

_T = TypeVar("_T")


def together(body: Callable[[Transport], _T]) -> list[_T]:
    """All ranks' results of ``body``; if it raises anywhere, the job ends."""
    from mpi4py import MPI

    from consensus.transport.mpi import MpiTransport

    transport = MpiTransport()
    try:
        result = body(transport)
    except BaseException:
        traceback.print_exc()
        MPI.COMM_WORLD.Abort(1)
    results = transport.gather(result)
    transport.close()
    return results
