"""Was this process started by an MPI launcher? Asked before MPI is loaded, so that one process alone needs none."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any

from consensus.errors import LaunchError
from consensus.transport.base import Transport
from consensus.transport.forks import refuse_children

SIZE_VARIABLES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PMIX_RANK", "MPI_LOCALNRANKS", "MV2_COMM_WORLD_SIZE")
"""What launchers set for their ranks: Open MPI's mpirun, PMI-1/2 (MPICH, srun --mpi=pmi2), PMIx, Intel MPI, MVAPICH."""


def launched(environment: Mapping[str, str] | None = None) -> bool:
    """Return whether this process is a rank of an MPI job, or has loaded MPI already.

    Parameters
    ----------
    environment : mapping, optional
        The environment variables; those of the process by default.
    """
    environment = os.environ if environment is None else environment
    return any(name in environment for name in SIZE_VARIABLES) or "mpi4py.MPI" in sys.modules


def default_transport(comm: Any = None) -> Transport:
    """Return the transport of this process: MPI under a launcher or on a given communicator, one rank alone otherwise.

    Parameters
    ----------
    comm : mpi4py.MPI.Comm, optional
        Whose ranks take part; COMM_WORLD by default. It is duplicated, so its other traffic is not disturbed.

    Raises
    ------
    LaunchError
        If the process was launched as a rank but MPI cannot be loaded, or is a rank's child.
    """
    if comm is None and not launched():
        from consensus.transport.single import SingleTransport

        return SingleTransport()
    refuse_children()
    try:
        from consensus.transport.mpi import MpiTransport

        return MpiTransport(comm)
    except (ImportError, RuntimeError) as error:
        raise LaunchError(
            f"this process was started by an MPI launcher, but MPI cannot be loaded ({error}); "
            "install an MPI library (pip install 'consensus-sgd[mpi]' brings one) or load your site's module; "
            "see `consensus doctor`"
        ) from error
