"""For tests that start processes of their own, alone or under mpirun."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

_BESIDE = Path(sys.executable).with_name("mpirun")
MPIRUN = str(_BESIDE) if _BESIDE.exists() else shutil.which("mpirun")

needs_mpirun = pytest.mark.skipif(MPIRUN is None, reason="no mpirun beside this Python or on PATH; make install brings one")


def python(*arguments: str, ranks: int | None = None, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run this Python in ``folder``, alone or as so many ranks."""
    command = [sys.executable, *arguments]
    if ranks is not None:
        command = [str(MPIRUN), "-n", str(ranks), sys.executable, "-m", "mpi4py", *arguments]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PMI", "PMIX_", "OMPI_COMM"))}
    # Set whichever MPI it is: the other one does not look at them.
    environment |= {
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
    }
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=100)
