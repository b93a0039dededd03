"""Whether MPI can be given the memory of a GPU, where there is one. Training here does not: it goes through the host's memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from consensus.doctor.check import Check, State
from consensus.doctor.ranks import ask_ranks

# On two ranks of their own: a library that takes a device's address for one of the host's ends the process that reads there.
EXCHANGE = """
import json, torch
from mpi4py import MPI
comm = MPI.COMM_WORLD
usable, right = torch.cuda.is_available(), False
if all(comm.allgather(usable)):
    device = torch.device("cuda", comm.rank % torch.cuda.device_count())
    sent = torch.arange(1 << 20, dtype=torch.float32, device=device) + comm.rank
    got = torch.zeros_like(sent)
    torch.cuda.synchronize()
    comm.Sendrecv(sent, dest=1 - comm.rank, recvbuf=got, source=1 - comm.rank)
    torch.cuda.synchronize()
    right = bool(torch.equal(got - (1 - comm.rank), sent - comm.rank))
rights = comm.allgather(right)
if comm.rank == 0:
    print(json.dumps({"torch": torch.__version__, "usable": usable, "right": all(rights)}), flush=True)
"""
"""The program; its rank 0 prints what :class:`Exchanged` holds."""

_UNHARMED = "runs are not concerned, they send from the host's memory; do not give MPI a GPU's memory yourself"


class Exchanged(NamedTuple):
    """What two ranks found.

    Attributes
    ----------
    torch : str
        Its version.
    usable : bool
        Whether torch can use a GPU.
    right : bool
        Whether what was sent from a GPU's memory arrived in one.
    """

    torch: str
    usable: bool
    right: bool


def gpus(devices: Path = Path("/dev")) -> bool:
    """Whether this machine has an NVIDIA GPU, by its device files: to ask torch would take seconds."""
    return any(devices.glob("nvidia[0-9]*")) or (devices / "dxg").exists()


def exchange() -> Exchanged | str:
    """Send a GPU's memory between two ranks that are started for it; the end of their complaints if that fails."""
    found = ask_ranks(2, ["-c", EXCHANGE])
    return found if isinstance(found, str) else Exchanged(**found)


def check_gpu(present: bool, claimed: bool | None, test: Callable[[], Exchanged | str] = exchange) -> Check:
    """Judge what MPI can do with GPUs here.

    Parameters
    ----------
    present : bool
        Whether there is one; nothing else is asked if not.
    claimed : bool, optional
        Whether the MPI library says that it takes a GPU's memory; None if it does not say.
    test : callable
        Tries it; called only if the library says so.
    """
    name = "GPU memory"
    if not present:
        return Check(name, State.OK, "no NVIDIA GPU here, nothing to try")
    if not claimed:
        says = "does not take it" if claimed is not None else "does not say whether it takes it"
        return Check(name, State.OK, f"the MPI library {says}; models go through the host's memory")
    found = test()
    if isinstance(found, str):
        return Check(name, State.WARN, f"the MPI library says that it takes it, but a trial failed: {found}", _UNHARMED)
    if not found.usable:
        return Check(name, State.WARN, f"there is a GPU, but torch {found.torch} cannot use it", "install a torch built for it")
    if not found.right:
        return Check(name, State.WARN, "the MPI library says that it takes it, but what arrives is not what was sent", _UNHARMED)
    return Check(name, State.OK, "two ranks exchanged it; models go through the host's memory all the same")
