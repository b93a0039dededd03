"""Ranks that fork: a warning for those who may not know that they do, and a refusal of those who take a child for a rank.

MPI promises nothing to a process that forks. Where the network reads and writes its memory, as InfiniBand does, pages that it
shares with a child are copied at the first write, and the adapter may go on with the old ones; threads of the library are not
there in the child, locks that they held are. Most often nothing happens, so it is no error.

A process that ``multiprocessing`` started has its rank's environment, by which an MPI library takes it for that rank. It is
refused before it loads one: the library would wait, for ever and without a word.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from consensus.errors import LaunchError

_LOG = logging.getLogger("consensus")

REMEDY = "give it multiprocessing_context=consensus.loader_context()"
"""What to do about forks that are a loader's."""


class ForkWatch:
    """Says once that this process forks; :func:`watch_forks` makes the one that there is, for hooks on forks are never taken off.

    ``subprocess`` is not concerned: its children become other programs at once, and no hooks are called unless it is given a
    ``preexec_fn``.
    """

    def __init__(self) -> None:
        self._silent = False
        os.register_at_fork(before=self._look)

    def _look(self) -> None:
        # Children, who have no MPI, inherit the hook and the silence.
        if self._silent:
            return
        self._silent = True
        _LOG.warning(
            "a rank (process %d) forks while MPI is in use, which MPI libraries do not promise to survive. If this is for the "
            "workers of a DataLoader, %s; `consensus doctor` tries whether forks do harm here. This is said once",
            os.getpid(),
            REMEDY,
        )

    @contextmanager
    def on_purpose(self) -> Iterator[None]:
        """Say nothing of forks in the block."""
        before, self._silent = self._silent, True
        try:
            yield
        finally:
            self._silent = before


@cache
def watch_forks() -> ForkWatch:
    """Begin to look out for forks, unless that was done before."""
    return ForkWatch()


def refuse_children() -> None:
    """Refuse a process that ``multiprocessing`` started, or that runs its parent's script to know what is defined there.

    Raises
    ------
    LaunchError
        If it is one.
    """
    processes = sys.modules.get("multiprocessing.process")
    # While a child of "spawn" or "forkserver" runs the script it does not know its parent yet, but the script has another name.
    script = getattr(sys.modules.get("__mp_main__"), "__name__", "__main__")
    if script != "__main__" or (processes is not None and processes.parent_process() is not None):
        raise LaunchError(
            "this process was started by multiprocessing, for a DataLoader perhaps, and is no rank of its own. Such a process "
            "runs the script once more, to know what it defines: put what trains under `if __name__ == '__main__':`"
        )
