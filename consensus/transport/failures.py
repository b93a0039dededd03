"""Ranks that die, where the MPI library lets the others live on: ULFM, of Open MPI 5 under ``mpirun --with-ft ulfm``.

*Noticing.* Nobody polls. Some receive is always open for every rank, and when its rank dies, the next look at the requests
raises; so does a receive from anybody, until the death is acknowledged. What the error does not say, MPI tells when asked.
Without ULFM nothing of that is caught: a dead rank ends the job, as ever.

*Collectives* go over a communicator of their own. When one fails anywhere its communicator is revoked, so that nobody waits in it
for a rank that has gone on; then everybody agrees on whether it worked everywhere, and if not repeats it among the survivors.
Agreement took 15 us with 2 ranks and 40 us with 4, on one host; without it, a rank that has its result could not know of others
that have none.

*Silence.* With Open MPI's failure detector a rank that is not heard of for some time counts as dead, though it may live on
beyond a link that is down. What is cut off there sees the others die, and would go on as a run of its own, with the same files.
So the part that has most of the ranks goes on, and ranks in any other end themselves.

*Ends.* A rank that ends by itself is not noticed by Open MPI (5.0.11) under ULFM, whatever its exit code. One that ends with an
error revokes what others may be waiting in (:mod:`consensus.transport.endings`); by the revoked communicator they know it from a
death. Agreement is not interrupted by that, and would wait for it; hence it is not waited for in MPI.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from array import array
from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from functools import cache
from types import MappingProxyType
from typing import Any, TypeVar

from consensus.errors import ProtocolError
from consensus.transport.idle import Idle
from consensus.types import Rank

ENABLED = "OMPI_MCA_mpi_ft_enable"
"""The variable by which Open MPI's launcher tells its ranks, and users of other launchers tell the library, to live on."""

DETECTOR = "OMPI_MCA_mpi_ft_detector"
"""The variable by which ranks know that those may count as dead that are merely silent."""

SURVIVAL: Mapping[str, str] = MappingProxyType({"OMPI_MCA_async_mpi_finalize": "1", "OMPI_MCA_btl_tcp_flags": "send,inplace"})
"""What Open MPI 5 has to be told when ranks may die.

Not to let ranks wait for one another in MPI_Finalize: after a death they may wait there for ever (for the launcher, not for MPI;
open-mpi/ompi issue 11404), and here nobody needs it, for each has heard everybody's goodbye. And over TCP to send large messages
in pieces, not to "put" them: of 100 jobs in which a rank died in the middle of a model, a survivor crashed in about one (5.0.11,
a request of the dead rank that is retried).
"""

_YES = frozenset({"1", "t", "true", "y", "yes", "on", "enabled"})

_AGREEING = Idle(patience=1e-3, longest=1e-3)

_T = TypeVar("_T")


def told_to_live(environment: Mapping[str, str]) -> bool:
    """Return whether the launcher has asked the MPI library to outlive dead ranks, if it can."""
    return _says_yes(environment, ENABLED)


def in_majority(living: Iterable[Rank], size: int) -> bool:
    """Return whether ``living``, of ``size`` ranks, may go on where others may do so elsewhere; of two halves it is rank 0's.

    Examples
    --------
    >>> in_majority([3, 4, 5], 5), in_majority([0, 1], 4), in_majority([2, 3], 4)
    (True, True, False)
    """
    among = set(living)
    return 2 * len(among) + (0 in among) > size


def prepare(environment: MutableMapping[str, str]) -> None:
    """Set what the MPI library has to find when it is loaded, if ranks may die: :data:`SURVIVAL`, or the user's own values."""
    if told_to_live(environment):
        environment.update({name: value for name, value in SURVIVAL.items() if name not in environment})


def outlives(mpi: Any, comm: Any, environment: Mapping[str, str] | None = None) -> bool:
    """Return whether this job goes on when a rank dies.

    Parameters
    ----------
    mpi : module
        ``mpi4py.MPI``.
    comm : mpi4py.MPI.Intracomm
        Asked whether the library knows of failures at all.
    environment : mapping, optional
        The environment variables; those of the process by default.
    """
    if not told_to_live(os.environ if environment is None else environment):
        return False
    try:
        comm.Get_failed()
    except (NotImplementedError, mpi.Exception):
        return False
    return True


class Garbled(ProtocolError):
    """What came is not what was sent: a collective call has not worked here, whatever the library says."""


class JobEnded(SystemExit):
    """Another rank has ended with an error, and so does this one: its exit code is 1, and there is no second traceback."""


def end_with_others(comm: Any) -> None:
    """Raise :class:`JobEnded` if ``comm`` was revoked, which only a rank does that ends with an error.

    Parameters
    ----------
    comm : mpi4py.MPI.Comm
        Not one of those on which collectives are repeated.
    """
    if comm.Is_revoked():
        _say(f"rank {comm.Get_rank()} ends, for another rank has ended with an error\n")
        raise JobEnded(1)


@cache
def _say(why: str) -> None:
    """Write it once: leaving what is open, this rank may meet the same end again."""
    sys.stderr.write(why)
    sys.stderr.flush()


class Failures:
    """What one rank knows of the deaths among the ranks of a communicator.

    Parameters
    ----------
    mpi : module
        ``mpi4py.MPI``.
    comm : mpi4py.MPI.Intracomm
        Carries messages from rank to rank; if the job outlives its ranks it is duplicated (a collective call), for collectives.

    Attributes
    ----------
    outlived : bool
        Whether this job goes on when a rank dies.
    caught : tuple of exception classes
        For ``except``: MPI's if the job goes on, none otherwise. What was caught belongs to :meth:`fallen` or :meth:`expect`.
    dead : set of Rank
        Those known to have died.
    members : sequence of Rank
        Who takes part in collectives, ascending. It changes in collectives alone, and alike at all survivors.
    """

    def __init__(self, mpi: Any, comm: Any) -> None:
        self._mpi, self._comm = mpi, comm
        self.outlived = outlives(mpi, comm)
        self.caught: tuple[type[Exception], ...] = (mpi.Exception,) if self.outlived else ()
        self.dead: set[Rank] = set()
        self.members: Sequence[Rank] = range(comm.Get_size())
        self._deaths = frozenset({mpi.ERR_PROC_FAILED, mpi.ERR_PROC_FAILED_PENDING, mpi.ERR_IN_STATUS, mpi.ERR_REVOKED})
        self._kept: list[Any] = []
        self._joint = comm
        self._suspects = self.outlived and _says_yes(os.environ, DETECTOR)
        if self.outlived:
            comm.Set_errhandler(mpi.ERRORS_RETURN)
            self._joint = comm.Dup()

    def expect(self, error: Any) -> None:
        """Raise ``error`` again unless a death may be its cause; end this rank if another rank's error is."""
        end_with_others(self._comm)
        if error.Get_error_class() not in self._deaths:
            raise error

    def fallen(self, error: Any) -> list[Rank]:
        """Return the ranks whose death, not known yet, is the cause of ``error``.

        Raises
        ------
        Exception
            ``error`` itself, if no death is.
        """
        self.expect(error)
        failed = self._comm.Get_failed()
        self._comm.Ack_failed(failed.Get_size())  # the receive from anybody goes on
        fresh = sorted(set(self._ranks(failed)) - self.dead)
        # Without a new death it can only be the receive from anybody: another rank has told of the death already.
        if not fresh and error.Get_error_class() != self._mpi.ERR_PROC_FAILED_PENDING:
            raise error
        self.dead.update(fresh)
        self._heed([rank for rank in range(self._comm.Get_size()) if rank not in self.dead])
        return fresh

    def heed_ends(self) -> None:
        """End this rank if another one has ended with an error; to be called before each look at sends.

        A look that lets the library progress does not look again (:mod:`consensus.transport.mpi`), so what came in one is known
        before the next. That would hand failed sends back and free them while Open MPI (5.0.11) still works on them, which then
        takes their failure for a fatal error. And it would find each request failed once, and from then on nothing at all.
        """
        if self.outlived:
            end_with_others(self._comm)

    def keep(self, requests: Sequence[Any]) -> None:
        """Hold ``requests`` to or from a dead rank, and so their memory, into which MPI might still write, to the end."""
        self._kept += requests

    def sweep(self, sends: list[Any]) -> list[Any]:
        """Return those of ``sends`` that are under way; what was on its way to a dead rank is none of them."""
        while True:
            self.heed_ends()
            try:
                self._mpi.Request.Testsome(sends)
            except self.caught as error:
                self.expect(error)  # each look that raises completes at least one
            else:
                return [request for request in sends if request]

    def together(self, operation: Callable[[Any, Sequence[Rank]], _T]) -> _T:
        """Return what ``operation`` does on a communicator of all survivors; it is repeated among those that are left.

        Parameters
        ----------
        operation : callable
            Called with a communicator and the numbers of its ranks; a collective that may be begun again. It has failed if it
            raises an error of the library, whichever, or :class:`Garbled`.

        Raises
        ------
        ProtocolError
            If it failed though nobody has died.
        JobEnded
            If another rank has ended with an error.
        """
        if not self.outlived:
            return operation(self._joint, self.members)
        while True:
            result, error = self._attempt(operation)
            if self._agreed(error is None):
                return result[0]
            survivors = self._joint.Shrink()
            survivors.Set_errhandler(self._mpi.ERRORS_RETURN)
            members = self._ranks(survivors.Get_group())
            if len(members) == len(self.members):
                raise ProtocolError(f"a collective call of ranks {list(members)} failed though none of them has died") from error
            self._joint, self.members = survivors, members
            self._heed(members)

    def _heed(self, living: Sequence[Rank]) -> None:
        """End this rank if it has been cut off: as if it were killed, for an exit with an error would end the others as well."""
        if not self._suspects or in_majority(living, self._comm.Get_size()):
            return
        me, others = self._comm.Get_rank(), self._comm.Get_size() - len(living)
        sys.stderr.write(
            f"rank {me} has heard nothing of {others} ranks for too long, only of {list(living)}: it has been cut off, or they "
            "have died. It ends, for most of the ranks may be going on without it; checkpoints stay\n"
        )
        sys.stderr.flush()
        os.kill(os.getpid(), signal.SIGKILL)

    def _attempt(self, operation: Callable[[Any, Sequence[Rank]], _T]) -> tuple[list[_T], Exception | None]:
        failed: tuple[type[Exception], ...] = (Garbled, *self.caught)
        try:
            return [operation(self._joint, self.members)], None
        except failed as error:
            end_with_others(self._comm)
            # Of any class: where others have been given garbage, messages may be longer than is expected here, too.
            self._joint.Revoke()
            return [], error

    def _agreed(self, worked: bool) -> bool:
        flag, began = array("i", [worked]), time.monotonic()
        try:
            agreement = self._joint.Iagree(flag)
            while not agreement.Test():
                end_with_others(self._comm)
                _AGREEING.pause(time.monotonic() - began, False)
        except self.caught as error:
            self.expect(error)  # raised alike at all survivors
            return False
        return bool(flag[0])

    def _ranks(self, group: Any) -> list[Rank]:
        return [int(rank) for rank in group.Translate_ranks(range(group.Get_size()), self._comm.Get_group())]

    def revoke(self) -> None:
        """Let whatever other ranks wait for here fail, for this one ends with an error; see :func:`end_with_others`."""
        for comm in (self._comm, self._joint):
            comm.Revoke()

    def close(self) -> bool:
        """Free what was duplicated, and return whether all ranks are there to do such things: they are collective."""
        complete = not self.dead and len(self.members) == self._comm.Get_size()
        if complete and self.outlived:
            self._joint.Free()
        return complete


def _says_yes(environment: Mapping[str, str], name: str) -> bool:
    return environment.get(name, "").lower() in _YES
