"""What can be checked without starting ranks: Python, packages, the MPI library, its launcher, the batch system."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from consensus import __version__
from consensus.doctor.check import Check, State
from consensus.doctor.gpu import check_gpu, gpus
from consensus.errors import LaunchError
from consensus.launcher import INSTALL, VENDORS, announced, find, vendor, without_launcher
from consensus.transport.launched import launched

PACKAGES = ("numpy", "scipy", "networkx", "torch", "mpi4py", "pydantic", "scikit-learn", "matplotlib")
"""Those whose absence or age shows in a run."""

# In a process of its own: a broken MPI library ends the process that loads it, and this one is to report that.
_PROBE = """
import ctypes, json
from mpi4py import MPI
try:
    MPI.COMM_SELF.Get_failed()
    ulfm = True
except (NotImplementedError, MPI.Exception):
    ulfm = False
try:
    cuda = bool(ctypes.CDLL(MPI.__file__).MPIX_Query_cuda_support())
except (AttributeError, OSError):
    cuda = None
levels = {getattr(MPI, name): name for name in ("THREAD_SINGLE", "THREAD_FUNNELED", "THREAD_SERIALIZED", "THREAD_MULTIPLE")}
vendor, _ = MPI.get_vendor()
print(json.dumps({
    "library": MPI.Get_library_version().strip("\\0").split("\\n")[0].split(",")[0].strip(),
    "vendor": vendor,
    "standard": "%d.%d" % MPI.Get_version(), "threads": levels[MPI.Query_thread()], "ulfm": ulfm,
    "cuda": cuda,
}))
"""


class Library(NamedTuple):
    """What the MPI library says of itself."""

    library: str
    vendor: str
    standard: str
    threads: str
    ulfm: bool
    cuda: bool | None = None
    """Whether it takes the memory of GPUs; None if it does not say."""


def ask_library() -> Library | str:
    """Load MPI in another process; the end of its complaints if that fails."""
    env = without_launcher(os.environ)
    try:
        done = subprocess.run(
            [sys.executable, "-c", _PROBE], env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60
        )
        fields: dict[str, Any] = json.loads(done.stdout.strip().split("\n")[-1])
    except subprocess.TimeoutExpired:
        return "it does not come up within a minute"
    except ValueError:
        return (done.stderr.strip() or f"the process ended with code {done.returncode}").split("\n")[-1]
    return Library(**fields)


def check_installation() -> Iterator[Check]:
    """Everything about this machine that needs no ranks."""
    yield Check("Python", State.OK, f"{platform.python_version()} at {sys.executable}; consensus-sgd {__version__}")
    yield check_packages()
    found = ask_library()
    yield from check_library(found)
    yield check_launcher(found)
    if not isinstance(found, str):
        yield check_gpu(gpus(), found.cuda)
    yield check_batch_system()


def check_packages() -> Check:
    """Whether all packages are there, and in which versions."""
    versions: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    missing = [name for name, version in versions.items() if version is None]
    found = ", ".join(f"{name} {version or 'MISSING'}" for name, version in versions.items())
    return Check("packages", State.FAIL if missing else State.OK, found, f"pip install {' '.join(missing)}" if missing else "")


def check_library(found: Library | str) -> Iterator[Check]:
    """Whether MPI can be loaded and what it can do.

    Parameters
    ----------
    found : Library or str
        From :func:`ask_library`.
    """
    if isinstance(found, str):
        yield Check("MPI library", State.FAIL, f"cannot be loaded: {found}", INSTALL)
        return
    yield Check("MPI library", State.OK, f"{found.library} (MPI {found.standard})")
    # One thread per rank talks to MPI. SINGLE promises nothing to processes with more threads, and torch has some.
    single = found.threads == "THREAD_SINGLE"
    advice = "the library allows no threads at all; ask for another build of it" if single else ""
    yield Check("thread level", State.WARN if single else State.OK, found.threads, advice)
    survival = next((kind.survival for kind in VENDORS if kind.name == found.vendor), "")
    if found.ulfm and survival:
        yield Check("fault tolerance", State.OK, f"ULFM; switch it on with mpirun {survival}")
    else:
        what = "a launcher that ends the job when a rank dies" if found.ulfm else "no ULFM in this library"
        yield Check("fault tolerance", State.WARN, what, "runs work, but none outlives one of its ranks; Open MPI 5 can")


def check_launcher(found: Library | str) -> Check:
    """Whether there is an mpirun, and it belongs to the library.

    Parameters
    ----------
    found : Library or str
        From :func:`ask_library`.
    """
    try:
        mpirun = find()
        kind = vendor(mpirun)
    except LaunchError as error:
        return Check("launcher", State.FAIL, "none", str(error))
    return _compare(mpirun, kind.name, found)


def _compare(mpirun: Path, kind: str, found: Library | str) -> Check:
    if isinstance(found, str) or kind == found.vendor:
        return Check("launcher", State.OK, f"{mpirun} ({kind})")
    return Check(
        "launcher",
        State.FAIL,
        f"{mpirun} is of {kind}, the library of {found.vendor}",
        "every rank would believe it is alone; put the mpirun of the library first on PATH, or name the launcher's library: "
        "MPI4PY_LIBMPI=/path/to/libmpi.so",
    )


def check_batch_system(environment: Mapping[str, str] | None = None) -> Check:
    """Whether Slurm, if this is a Slurm job, and MPI know each other.

    Parameters
    ----------
    environment : mapping, optional
        The process's by default.
    """
    environment = os.environ if environment is None else environment
    job = environment.get("SLURM_JOB_ID")
    if job is None:
        return Check("batch system", State.OK, "none (no Slurm job)")
    meant = announced(environment)
    tasks, nodes = environment.get("SLURM_NTASKS", "1"), environment.get("SLURM_JOB_NUM_NODES", "1")
    found = f"Slurm job {job}, {tasks} tasks on {nodes} nodes"
    if meant is not None and meant > 1 and not launched(environment):
        advice = "use srun --mpi=pmix (srun --mpi=list shows what there is), or mpirun inside sbatch"
        return Check("batch system", State.FAIL, f"{found}; srun tells its {meant} tasks nothing about MPI", advice)
    return Check("batch system", State.OK, found)
