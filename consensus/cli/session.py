"""The session of its own that a launcher is started in, with its ranks on this host, and its end.

Open MPI's launcher puts each rank in a process group of its own, so a signal to the launcher's group reaches no rank. But they
all stay in its session.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

_BOUND = (
    f"import ctypes, os, sys; ctypes.CDLL(None).prctl(1, {signal.SIGTERM:d}); "
    "os.getppid() == int(sys.argv[1]) or sys.exit(1); os.execv(sys.argv[2], sys.argv[2:])"
)


def bound(argv: Sequence[str]) -> list[str]:
    """Return a command that becomes ``argv``, and is sent SIGTERM when this process ends, also by SIGKILL.

    Linux alone offers that (prctl(2), PR_SET_PDEATHSIG); elsewhere it is ``argv`` itself. The wish outlives exec but not fork: so
    it is uttered in the new process, by a Python that takes 20 ms, not after a fork of this one, whose threads may hold locks.
    "This process" is more exactly the thread that starts it, which has to be the main one.
    """
    if sys.platform != "linux":
        return list(argv)
    return [sys.executable, "-I", "-S", "-c", _BOUND, str(os.getpid()), *argv]


def members(session: int) -> list[int]:
    """Return the processes of a session on this host; none where there is no /proc to look into."""
    found = []
    for process in [int(path.name) for path in Path("/proc").glob("[0-9]*")]:
        with suppress(OSError):
            if os.getsid(process) == session:
                found.append(process)
    return found


def kill(session: int) -> None:
    """Kill all that is left of a session on this host, processes that are stopped included."""
    with suppress(OSError):
        os.killpg(session, signal.SIGKILL)
    for process in members(session):
        with suppress(OSError):
            os.kill(process, signal.SIGKILL)
