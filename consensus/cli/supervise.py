"""Watching over launched ranks: an interrupted run ends in good order, and no rank outlives the command.

The launcher runs in a session of its own, so that Ctrl-C reaches this process alone: mpirun answers an interrupt by killing
the ranks, and what they have learnt would be lost. Instead it is sent SIGUSR1, which Open MPI's and MPICH's launchers forward
to every rank, and ranks finish their round, write what they have, and end. Whoever is in a hurry interrupts a second time.

A launcher waits for its ranks, and a rank that is stopped, or hangs, hears of nobody's end. So when a rank has said that it ends
with an error (:data:`consensus.transport.endings.MARK`), those that do not follow are killed. Should this process itself be
killed, its launcher ends the ranks, on Linux (:func:`consensus.cli.session.bound`); elsewhere they go on.
"""

from __future__ import annotations

import codecs
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from types import FrameType
from typing import IO

from consensus.cli import session
from consensus.launcher import Launch
from consensus.run.signals import give_back, take_over
from consensus.transport.endings import FINALIZING
from consensus.types import Seconds

STOP = signal.SIGUSR1
"""Asks a rank to finish."""

INTERRUPTED = 130
"""Exit code of an interrupted command."""

GRACE: Seconds = FINALIZING + 5.0
"""How long the other ranks have to end after one has ended with an error: those that hear of it, and can, are gone by then."""


@dataclass
class Outcome:
    """How a job ended.

    Attributes
    ----------
    code : int
        The exit code to pass on.
    errors : str
        The end of what the job wrote to standard error, if it was kept.
    killed : bool
        Whether a rank ended with an error, and the others had to be killed.
    """

    code: int
    errors: str = ""
    killed: bool = False

    @property
    def interrupted(self) -> bool:
        """Whether somebody asked it to end."""
        return self.code == INTERRUPTED


@dataclass
class _Interrupts:
    """Counts interrupts and passes them on."""

    job: subprocess.Popen[bytes]
    first: Callable[[], None]
    count: int = field(default=0)

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.count += 1
        # Nobody left to signal, or, after the terminal was closed, to tell.
        with suppress(OSError):
            if self.count == 1:
                self.job.send_signal(STOP)
                self.first()
            elif self.count == 2:
                os.killpg(self.job.pid, signal.SIGTERM)  # the launcher ends its ranks, on all hosts
            else:
                session.kill(self.job.pid)


def supervise(
    launch: Launch,
    *,
    on_interrupt: Callable[[], None] = lambda: None,
    done: Callable[[], bool] = lambda: False,
    failed: Callable[[], bool] = lambda: False,
    tee_errors: bool = False,
    patience: Seconds = 10.0,
    linger: Seconds = 60.0,
    grace: Seconds = GRACE,
) -> Outcome:
    """Run ranks until they end.

    Parameters
    ----------
    launch : Launch
        What to start, from :func:`consensus.launcher.command`.
    on_interrupt : callable
        Called at the first interrupt, after the ranks were asked to finish.
    done : callable
        Whether the ranks have done what they were started for. A launcher that has lost sight of a host waits for its ranks
        for ever; it is ended then.
    failed : callable
        Whether a rank has ended with an error. Ranks that are stopped do not follow it; they are killed, and the code is not 0.
    tee_errors : bool
        Keep the end of what goes to standard error, too.
    patience : float
        Seconds a launcher has to end when it is asked to, by a second interrupt for example, before its session is killed.
    linger : float
        Seconds a job may go on when it is done.
    grace : float
        Seconds it may go on when a rank has failed.

    Returns
    -------
    Outcome
    """
    job = subprocess.Popen(
        session.bound(launch.argv),
        env=launch.env,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE if tee_errors else None,
        start_new_session=True,
        bufsize=0,
    )
    interrupts = _Interrupts(job, on_interrupt)
    errors = _Tee(job.stderr) if job.stderr is not None else None
    with _handling(interrupts):
        waited, killed = 0.0, False
        while True:
            try:
                code = job.wait(timeout=patience if interrupts.count > 1 else 1.0)
                break
            except subprocess.TimeoutExpired:
                if interrupts.count > 1:
                    interrupts(signal.SIGKILL, None)
                elif failed() or done():
                    waited += 1.0
                    if waited >= (grace if failed() else linger):
                        _end(job, patience)
                        code, killed = 0, failed()
                        break
        kept = "" if errors is None else errors.end(patience)
    return Outcome(INTERRUPTED if interrupts.count else _exit_code(code) or int(failed()), kept, killed)


def _end(job: subprocess.Popen[bytes], patience: Seconds) -> None:
    """End a launcher that waits in vain; how it ends says nothing of the run."""
    with suppress(OSError):
        os.killpg(job.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        job.wait(timeout=patience)
    session.kill(job.pid)
    job.wait()


@contextmanager
def _handling(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    before = take_over(handler)
    try:
        yield
    finally:
        give_back(before)


class _Tee(threading.Thread):
    """Passes on what a job writes to standard error as it comes, and keeps the end of it.

    A thread, so that the job's end and interrupts are seen while somebody who has inherited the stream holds it open.
    """

    def __init__(self, stream: IO[bytes], keep: int = 20_000) -> None:
        super().__init__(daemon=True)
        self._stream, self._keep = stream, keep
        self._kept = ""
        self.start()

    def run(self) -> None:
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        with self._stream:
            while data := self._stream.read(1 << 16):
                words = decoder.decode(data)
                # After the terminal was closed nobody reads it, and the job must not be held up.
                with suppress(OSError):
                    sys.stderr.write(words)
                    sys.stderr.flush()
                self._kept = (self._kept + words)[-self._keep :]

    def end(self, patience: Seconds) -> str:
        """What was kept, when the stream has ended, or does not within ``patience`` seconds."""
        self.join(patience)
        return self._kept


def _exit_code(code: int) -> int:
    """As a shell would say it: a launcher that was killed by signal s ended with 128 + s."""
    return code if code >= 0 else 128 - code
