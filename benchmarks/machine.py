"""What the figures were measured on."""

from __future__ import annotations

import os
import platform
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from consensus.transport.idle import cpus


def describe(command: str) -> dict[str, Any]:
    """The machine, the versions, the date and the command, as they are written into results."""
    return {
        "command": command,
        "date": datetime.now().astimezone().isoformat(timespec="minutes"),
        "processor": processor(),
        "cores": len(cpus()),
        "load_before": round(os.getloadavg()[0], 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **{name: _version(name) for name in ("numpy", "torch", "mpi4py")},
    }


def processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The processor's name, as well as the system knows it."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.processor() or platform.machine()


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def sentence(machine: dict[str, Any], mpi: str) -> str:
    """One line under a table."""
    m = machine
    return (
        f"{m['processor']}, {m['cores']} cores, {m['system']}; Python {m['python']}, torch {m['torch']}, NumPy {m['numpy']}, "
        f"mpi4py {m['mpi4py']}, {mpi}; {m['date']}, load before {m['load_before']}: `{m['command']}`"
    )
