"""A rank that ends with an error ends the job, also where the MPI library lets a job outlive its ranks.

Who was killed could not be asked, and the others go on without it. An error is another thing: most often all ranks are going to
meet it, and a job that went on would hide it for hours. MPI's word for it is ``MPI_Abort``, which ``python -m mpi4py`` says after
an exception that nobody caught. Under ULFM Open MPI (5.0.11) ends nobody by it, nor by an exit code, and tells nobody: of five
ranks one of which aborted, four lived on, and whoever needs the fifth waits for ever.

So at its exit such a rank does two things.

It revokes all communicators that it knows of. What others have under way there fails at once, they see why, and end as well
(:class:`~consensus.transport.failures.JobEnded`); each forwards the news.

Then it goes to ``MPI_Finalize`` instead of ``MPI_Abort``. There ranks under ULFM agree on who has died, so that others that are
there already would wait for one that has aborted. Whoever waits for it elsewhere, on a communicator of the user's own, does not
come: then it ends by a signal, which is noticed everywhere. Not at once, for the launcher's exit code does not tell of ranks that
a signal ended.

Nothing of that reaches a rank that is stopped, or hangs in a call that is none of MPI's. So it leaves a mark as well, by which
whoever has started the launcher knows that the rest is to be killed: :mod:`consensus.cli.supervise`.
"""

from __future__ import annotations

import atexit
import signal
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from consensus.transport.failures import outlives
from consensus.types import Seconds

TELLING: Seconds = 0.2
"""How long the library has to send the news; on one host it is there within a few milliseconds."""
FINALIZING = 10
"""How long the others have to come to MPI_Finalize, whole seconds."""
MARK = "CONSENSUS_MARK_OF_FAILURE"
"""The variable that names the file which a rank makes that ends with an error, in a folder that all hosts see."""


class Ending:
    """How this process ends, and who is told; :func:`ending` makes the one that there is.

    Attributes
    ----------
    code : int
        What it is about to exit with, where that is known before its exit handlers are called.
    """

    def __init__(self) -> None:
        self.code = 0
        self._revocations: list[Callable[[], None]] = []

    def failed(self) -> bool:
        """Return whether this process ends by an error, after which no other rank of its job is to go on.

        To be asked from an exit handler; an exception that was caught does not count. Under plain Python none does: there a rank
        that raises lets the others wait under any MPI library.
        """
        return self.code != 0 or ("mpi4py.run" in sys.modules and getattr(sys, "last_value", None) is not None)

    def revokes(self, revoke: Callable[[], None]) -> None:
        """Call ``revoke`` then, by which the other ranks of a communicator hear of it."""
        if not self._revocations:
            atexit.unregister(self.tell)
            atexit.register(self.tell)
        self._revocations.append(revoke)

    def forgets(self, revoke: Callable[[], None]) -> None:
        """Do not: nobody waits there any more."""
        self._revocations.remove(revoke)

    def told(self, within: Seconds) -> bool:
        """Return whether another rank has ended the job, or does so in the given time."""
        mpi, until = _library(), time.monotonic() + within
        while not (mpi is not None and mpi.COMM_WORLD.Is_revoked()):
            if time.monotonic() >= until:
                return False
            _progress(mpi)
        return True

    def tell(self) -> None:
        """Tell the others, if this process ends by an error and the library can, and finalise MPI; also what another has told."""
        mpi = _library()
        if mpi is None or not (self.failed() or mpi.COMM_WORLD.Is_revoked()):
            return
        with suppress(OSError, ValueError):
            sys.stderr.flush()
        for revoke in [mpi.COMM_WORLD.Revoke, *self._revocations]:
            with suppress(mpi.Exception):
                revoke()
        until = time.monotonic() + TELLING
        while time.monotonic() < until:
            _progress(mpi)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(FINALIZING)
        with suppress(mpi.Exception):
            mpi.Finalize()
        signal.alarm(0)


def leave_mark(environment: Mapping[str, str]) -> None:
    """Make the file that :data:`MARK` names, if somebody has set it."""
    if name := environment.get(MARK):
        # The folder of the results may not be there yet; and whose disk is full is in enough trouble.
        with suppress(OSError):
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            Path(name).touch()


def _library() -> Any:
    """MPI, if it was loaded, and lets ranks outlive others."""
    mpi = sys.modules.get("mpi4py.MPI")
    return mpi if mpi is not None and not mpi.Is_finalized() and outlives(mpi, mpi.COMM_WORLD) else None


def _progress(mpi: Any) -> None:
    """Pass some time, in which the library sends and receives news."""
    if mpi is not None:
        mpi.COMM_SELF.Iprobe()
    time.sleep(1e-3)


@cache
def ending() -> Ending:
    """Return the one of this process."""
    return Ending()
