"""How a data loader's processes are started beside MPI."""

from __future__ import annotations

import multiprocessing
import os
from multiprocessing import forkserver
from multiprocessing.context import BaseContext

_NO_MPI = "MPI4PY_RC_INITIALIZE"
"""Tells mpi4py not to initialise MPI when it is imported."""


def loader_context() -> BaseContext:
    """How a ``torch.utils.data.DataLoader`` with ``num_workers`` in a rank is to start its workers.

    By forking, the default on Linux before Python 3.14, they would be copies of a process that uses MPI, which MPI libraries do
    not promise to survive. So they are forked from a server, a process of its own that has loaded torch and not MPI; the first
    call starts it. Where there are no such servers workers are started afresh ("spawn"), which takes each of them the time that
    it takes to load torch.

    Either way a worker runs the script to know what it defines, so what trains has to stand under
    ``if __name__ == "__main__":``, and data sets have to be picklable. ``from mpi4py import MPI`` in the script does no harm in
    the server's workers, as long as nothing is asked of MPI outside of that block.

    Returns
    -------
    multiprocessing.context.BaseContext
        For the loader's ``multiprocessing_context``, which torch allows only with ``num_workers`` of 1 or more.

    Examples
    --------
    ``DataLoader(samples, num_workers=2, multiprocessing_context=consensus.loader_context())``; ``examples/train_loader.py`` is a
    whole script.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["__main__", "torch"])
    before = os.environ.get(_NO_MPI)
    os.environ[_NO_MPI] = "0"
    try:
        forkserver.ensure_running()
    finally:
        if before is None:
            del os.environ[_NO_MPI]
        else:
            os.environ[_NO_MPI] = before
    return context
