"""A Slurm cluster of two nodes on this machine: its own munged, a controller and two node daemons, all in one folder."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

DAEMONS = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol", "sinfo")
NODES = 2
CPUS = 4

# A node has more processors than the machine, which nobody minds: nothing is bound (task/none). A job that is queued anew
# starts again when its credentials have expired, hence the short time.
CONFIGURATION = """
ClusterName=two
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=10
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/%n/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
SlurmdParameters=config_overrides
ReturnToService=2
InactiveLimit=0
NodeName=n[1-{nodes}] NodeHostname={host} NodeAddr=127.0.0.1 Port=[{first}-{last}] CPUs={cpus} RealMemory=4000
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


class Cluster:
    """A context in which there is one; on leaving it every daemon is stopped, by its number.

    Attributes
    ----------
    environment : dict
        In which Slurm's commands, and what calls them, find this cluster and no other.
    """

    def __init__(self, folder: Path, port: int = 17_001) -> None:
        self.folder = folder
        self.environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}
        self._port = port
        self._daemons: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        host = subprocess.run(["hostname", "-s"], capture_output=True, text=True, check=True).stdout.strip()
        names = [f"n{number}" for number in range(1, NODES + 1)]
        for name in ("state", *(f"{node}/spool" for node in names)):
            (self.folder / name).mkdir(parents=True)
        text = CONFIGURATION.format(
            host=host, user=_user(), folder=self.folder, nodes=NODES, cpus=CPUS,
            port=self._port, first=self._port + 1, last=self._port + NODES,
        )  # fmt: skip
        (self.folder / "slurm.conf").write_text(text)
        key = self.folder / "munge.key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o600)
        kinds = ("key", "socket", "pid", "log", "seed")
        files = [f"--{kind}{'' if kind == 'socket' else '-file'}={self.folder / f'munge.{kind}'}" for kind in kinds]
        try:
            self._start("munged", "--foreground", "--force", *files)
            until(lambda: (self.folder / "munge.socket").exists(), 20, "munged's socket", self._alive)
            self._start("slurmctld", "-D", "-c")
            for name in names:
                self._start("slurmd", "-D", "-N", name)
            until(lambda: self._idle() == NODES, 60, "idle nodes", self._alive)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if self._idle() != NODES:
            self.call("scancel", "--user", _user())
        for daemon in reversed(self._daemons):
            daemon.terminate()
        for daemon in self._daemons:
            try:
                daemon.wait(timeout=20)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()

    def call(self, *argv: str) -> str:
        """What one of Slurm's commands says; nothing if it fails."""
        done = subprocess.run(argv, env=self.environment, capture_output=True, text=True, timeout=60)
        return done.stdout if done.returncode == 0 else ""

    def job(self, number: str) -> dict[str, str]:
        """What ``scontrol show job`` says, by key."""
        words = self.call("scontrol", "--oneliner", "show", "job", number).split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def _idle(self) -> int:
        return len(self.call("sinfo", "--Node", "--noheader", "--states=idle").splitlines())

    def _start(self, *argv: str) -> None:
        with (self.folder / f"{argv[0]}.out").open("ab") as out:
            self._daemons.append(subprocess.Popen(argv, env=self.environment, stdin=subprocess.DEVNULL, stdout=out, stderr=out))

    def _alive(self) -> None:
        for daemon in self._daemons:
            if daemon.poll() is not None:
                said = (self.folder / f"{daemon.args[0]}.out").read_text()[-2000:]  # type: ignore[index]
                raise SystemExit(f"{daemon.args} ended with {daemon.returncode}:\n{said}")


def missing(programs: Sequence[str] = DAEMONS) -> list[str]:
    """Which of ``programs`` are not on PATH, the administrators' folders included."""
    return [program for program in programs if shutil.which(program) is None]


def until(reached: Callable[[], bool], seconds: float, what: str, check: Callable[[], None] = lambda: None) -> None:
    """Ask once a second until ``reached`` says so.

    Raises
    ------
    SystemExit
        If that takes too long.
    """
    end = time.monotonic() + seconds
    while not reached():
        check()
        if time.monotonic() > end:
            sys.exit(f"waited {seconds:.0f} s for {what} in vain")
        time.sleep(1)


def _user() -> str:
    return subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()
