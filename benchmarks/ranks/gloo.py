"""torch.distributed among the ranks of an MPI job on one host."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from mpi4py import MPI
from torch import distributed


@contextmanager
def process_group() -> Iterator[None]:
    """All ranks as one gloo group over the loopback interface. Collective."""
    comm = MPI.COMM_WORLD
    port = None
    if comm.rank == 0:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
    port = comm.bcast(port)
    # Otherwise gloo asks which address the host's name has, and some hosts do not know their name.
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo0" if sys.platform == "darwin" else "lo")
    distributed.init_process_group(
        "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=comm.rank, world_size=comm.size, timeout=timedelta(minutes=5)
    )
    try:
        yield
    finally:
        distributed.destroy_process_group()
