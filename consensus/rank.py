"""``python -m consensus.rank``: run a program as an MPI rank. It is ``python -m mpi4py``, and ends the job under ULFM as well.

``python -m mpi4py`` calls ``MPI_Abort`` after an exception that nobody caught, which does not suffice where the library lets a
job outlive its ranks (:mod:`consensus.transport.endings`). There a transport sees to it that the others hear of an error. This
module does so before there is a transport, and where ``sys.exit`` is given a code.
"""

from __future__ import annotations

import atexit
import faulthandler
import importlib
import os
import signal
import sys

from consensus.transport.endings import ending, leave_mark
from consensus.transport.failures import prepare, told_to_live
from consensus.types import Seconds

PATIENCE: Seconds = 60.0
"""How long a rank that has failed before it used MPI waits for the others to begin with it, for only then they can be told."""


def main() -> None:
    """Run what the arguments say: a script, ``-m MODULE`` or ``-c COMMAND``, and its arguments."""
    from mpi4py.run import main as as_rank

    try:
        as_rank()
    except BaseException as error:
        if code := _code(error):
            leave_mark(os.environ)
            ending().code = code
            if told_to_live(os.environ):
                atexit.register(_tell)
        raise


def _code(error: BaseException) -> int:
    """What Python exits with after ``error``."""
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    return 128 + signal.SIGINT if isinstance(error, KeyboardInterrupt) else 1


def _tell() -> None:
    """End the other ranks. If the program had not loaded MPI, load it: that waits for the others."""
    if "mpi4py.MPI" not in sys.modules:
        sys.stderr.flush()
        # MPI is loaded under Python's lock; this clock does not need it, and exits with 1.
        with open(os.devnull, "w") as nowhere:
            faulthandler.dump_traceback_later(PATIENCE, exit=True, file=nowhere)
            prepare(os.environ)
            importlib.import_module("mpi4py.MPI")
            faulthandler.cancel_dump_traceback_later()
    ending().tell()


if __name__ == "__main__":
    main()
