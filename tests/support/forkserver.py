"""Ranks that start in a moment: forked from one process that has loaded torch, which takes a rank seconds by itself.

The launcher starts a small program for each rank (stand_in.py) that asks this server for a process with its environment and its
standard streams, and ends as that one does, by the same signal if it was one. Signals that the launcher passes on reach the rank,
and a rank whose stand-in is gone is killed. SIGUSR2 makes a rank write where it is to its standard error.
"""

from __future__ import annotations

import array
import contextlib
import faulthandler
import functools
import gc
import importlib
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from consensus import launcher
from consensus.rank import main as as_rank
from tests.ranks import ROOT

WORDS_SECONDS = 3.0
"""How long ranks that hang have to say where they are."""
STAND_IN = Path(__file__).with_name("stand_in.py")


class Done(NamedTuple):
    """How a job ended; ``code`` is None if it did not, and had to be killed."""

    code: int | None
    out: str
    errors: str


class ForkServer:
    """A context in which ranks can be forked.

    Parameters
    ----------
    modules
        To load before the first of them.
    """

    def __init__(self, modules: Sequence[str] = ("torch",)) -> None:
        self._modules = modules

    def __enter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory()
        self._socket = str(Path(self._folder.name) / "socket")
        argv = [sys.executable, "-m", "tests.support.forkserver", self._socket, *self._modules]
        environment = {**launcher.without_launcher(os.environ), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            argv, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        )
        assert self._process.stdout is not None
        if not self._process.stdout.readline():
            raise RuntimeError(f"no server to fork ranks: it ended with {self._process.wait()}")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._process.communicate()  # its input ends, and so does it
        self._folder.cleanup()

    def start(self, ranks: int, program: Sequence[str], extra: Sequence[str] = ()) -> subprocess.Popen[str]:
        """Start ``program`` as that many ranks, as :func:`consensus.launcher.command` would; ``extra``: for the launcher."""
        job = _launch(ranks, tuple(extra))
        options = job.argv[: job.argv.index(sys.executable)]
        argv = [*options, sys.executable, "-S", "-E", str(STAND_IN), self._socket, *program]
        pipe = subprocess.PIPE
        return subprocess.Popen(argv, cwd=ROOT, env=job.env, stdout=pipe, stderr=pipe, text=True, start_new_session=True)

    def run(self, ranks: int, program: Sequence[str], patience: float, extra: Sequence[str] = ()) -> Done:
        """Run ``program`` to its end, or for ``patience`` seconds; then all its ranks say where they are, and are killed."""
        job = self.start(ranks, program, extra)
        try:
            out, errors = job.communicate(timeout=patience)
            return Done(job.returncode, out, errors)
        except subprocess.TimeoutExpired:
            job.send_signal(signal.SIGUSR2)  # the launcher passes it on
            time.sleep(WORDS_SECONDS)
            kill(job)
            out, errors = job.communicate()
            return Done(None, out, errors)


@functools.cache
def _launch(ranks: int, extra: tuple[str, ...]) -> launcher.Launch:
    environment = {**launcher.without_launcher(os.environ), "PYTHONPATH": str(ROOT)}
    return launcher.command(ranks, [], extra=extra, environment=environment)


def kill(job: subprocess.Popen[str]) -> None:
    """Kill a whole job on this host, its ranks before the launcher can do anything about it."""
    job.send_signal(signal.SIGSTOP)
    for children in Path(f"/proc/{job.pid}/task").glob("*/children"):
        for child in children.read_text().split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(child), signal.SIGKILL)
    job.kill()
    job.wait()
    # What Open MPI's launcher leaves behind keeps a later one with the same process number from starting.
    shutil.rmtree(Path(tempfile.gettempdir()) / f"ompi.{job.pid}", ignore_errors=True)


def serve(listener: socket.socket) -> dict[str, Any] | None:
    """Fork until the standard input ends; a forked rank returns what was asked of it, the server nothing."""
    while True:
        ready, _, _ = select.select([listener, sys.stdin], [], [])
        if sys.stdin in ready:
            return None
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            return attend(connection)
        connection.close()


def attend(connection: socket.socket) -> dict[str, Any]:
    """Fork a rank and watch over it; returns in the rank alone."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    descriptors = array.array("i")
    head, messages, _, _ = connection.recvmsg(4, socket.CMSG_SPACE(3 * descriptors.itemsize))
    descriptors.frombytes(messages[0][2])
    with connection.makefile("rb") as stream:
        request: dict[str, Any] = json.loads(stream.read(int.from_bytes(head, "big")))
    rank = os.fork()
    if rank == 0:
        connection.close()
        for number, descriptor in enumerate(descriptors):
            os.dup2(descriptor, number)
            os.close(descriptor)
        return request
    for descriptor in (0, 1, 2, *descriptors):
        os.close(descriptor)
    ended = os.pidfd_open(rank)
    while ended not in select.select([ended, connection], [], [])[0]:
        signals = connection.recv(16)
        for number in signals or [signal.SIGKILL]:
            os.kill(rank, number)
        if not signals:
            break
    code = os.waitstatus_to_exitcode(os.waitpid(rank, 0)[1])
    try:
        connection.sendall(code.to_bytes(4, "big", signed=True))
    finally:
        os._exit(0)


def main() -> None:
    """Serve at the socket that the first argument names; the others are modules."""
    for module in sys.argv[2:]:
        importlib.import_module(module)
    gc.freeze()  # a collection would copy all that the ranks share
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(sys.argv[1])
        listener.listen(1024)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        print("ready", flush=True)
        request = serve(listener)
    if request is None:
        # Whoever forked here is done; if it was killed itself, ranks may be left, and their stand-ins end with them.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.killpg(0, signal.SIGKILL)
    assert request is not None
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["cwd"])
    faulthandler.register(signal.SIGUSR2)
    sys.argv = ["rank", *request["argv"]]
    as_rank()


if __name__ == "__main__":
    main()
