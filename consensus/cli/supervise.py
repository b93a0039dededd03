"""Watching over launched ranks: an interrupted run ends in good order, and no rank outlives the command.

The launcher runs in a session of its own, so that Ctrl-C reaches this process alone: mpirun answers an interrupt by killing
the ranks, and what they have learnt would be lost. Instead it is sent SIGUSR1, which Open MPI's and MPICH's launchers forward
to every rank, and ranks finish their round, write what they have, and end. Whoever is in a hurry interrupts a second time.
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

from consensus.launcher import Launch
from consensus.types import Seconds

STOP = signal.SIGUSR1
"""Asks a rank to finish."""

INTERRUPTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
"""What asks the command to end: Ctrl-C, a batch system by either of two signals, a terminal that was closed."""

INTERRUPTED = 130
"""Exit code of an interrupted command."""


@dataclass
class Outcome:
    """How a job ended.

    Attributes
    ----------
    code : int
        The exit code to pass on.
    errors : str
        The end of what the job wrote to standard error, if it was kept.
    """

    code: int
    errors: str = ""

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
            else:
                # The launcher's whole session on this host; the launcher ends the ranks on others.
                os.killpg(self.job.pid, signal.SIGTERM if self.count == 2 else signal.SIGKILL)


def supervise(
    launch: Launch,
    *,
    on_interrupt: Callable[[], None] = lambda: None,
    done: Callable[[], bool] = lambda: False,
    tee_errors: bool = False,
    patience: Seconds = 10.0,
    linger: Seconds = 60.0,
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
    tee_errors : bool
        Keep the end of what goes to standard error, too.
    patience : float
        Seconds a job has to end after a second interrupt before it is killed.
    linger : float
        Seconds a job may go on when it is done.

    Returns
    -------
    Outcome
    """
    job = subprocess.Popen(
        launch.argv,
        env=launch.env,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE if tee_errors else None,
        start_new_session=True,
        bufsize=0,
    )
    interrupts = _Interrupts(job, on_interrupt)
    errors = _Tee(job.stderr) if job.stderr is not None else None
    with _handling(interrupts):
        left = linger
        while True:
            try:
                code = job.wait(timeout=patience if interrupts.count > 1 else 1.0)
                break
            except subprocess.TimeoutExpired:
                if interrupts.count > 1:
                    interrupts(signal.SIGKILL, None)
                elif done():
                    left -= 1.0
                    if left <= 0:
                        code = _end(job, patience)
                        break
        kept = "" if errors is None else errors.end(patience)
    return Outcome(INTERRUPTED if interrupts.count else _exit_code(code), kept)


def _end(job: subprocess.Popen[bytes], patience: Seconds) -> int:
    """End a launcher that waits in vain; nothing is lost, so that is no failure."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(OSError):
            os.killpg(job.pid, number)
        with suppress(subprocess.TimeoutExpired):
            job.wait(timeout=patience)
            break
    return 0


@contextmanager
def _handling(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number in INTERRUPTS}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


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
