"""Hosts on this machine: a network namespace and a name for each, joined by a switch, with links that can be slow or cut."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.slurm.cluster import missing, until

PROGRAMS = ("ip", "tc", "unshare", "bash")
LINK = "e0"
"""A host's own end of its link, and the only interface it has beside loopback."""

# In ssh's place: HOST COMMAND..., a shell on the host; COMMAND is given to it in one string.
AGENT = """#!/bin/bash
host=${{1##*.}}
shift
ip netns exec "{prefix}$host" unshare --uts bash -c "hostname host$host && $*"
exit $?
"""


class Network:
    """A context in which there are hosts; on leaving it they and all that runs on them are gone.

    The switch is a namespace as well, so nothing is added to the machine's own network.

    Parameters
    ----------
    folder
        For the hostfile and the program that takes the place of ssh.
    hosts
        How many.
    slots
        Ranks on each.

    Attributes
    ----------
    hostfile, agent : Path
        What ``mpirun`` needs to start ranks on all of them.
    """

    def __init__(self, folder: Path, hosts: int = 3, slots: int = 2) -> None:
        # Two networks on one machine do not know of each other.
        self._prefix = f"consensus-{os.getpid()}-"
        self.hosts = range(1, hosts + 1)
        self.hostfile, self.agent = folder / "hostfile", folder / "agent"
        self.hostfile.write_text("".join(f"{self.address(host)} slots={slots}\n" for host in self.hosts))
        self.agent.write_text(AGENT.format(prefix=self._prefix))
        self.agent.chmod(0o755)

    @staticmethod
    def address(host: int) -> str:
        """Of one host; names would have to be in everybody's /etc/hosts."""
        return f"10.77.0.{host}"

    def __enter__(self) -> Self:
        try:
            ip("netns", "add", self._switch)
            self._inside(self._switch, "ip", "link", "add", "switch", "type", "bridge")
            self._inside(self._switch, "ip", "link", "set", "switch", "up")
            for host in self.hosts:
                space = self._space(host)
                ip("netns", "add", space)
                names = ("link", "add", _port(host), "type", "veth", "peer", "name", LINK, "netns", space)
                self._inside(self._switch, "ip", *names)
                self._inside(self._switch, "ip", "link", "set", _port(host), "master", "switch", "up")
                self._inside(space, "ip", "address", "add", f"{self.address(host)}/24", "dev", LINK)
                for device in ("lo", LINK):
                    self._inside(space, "ip", "link", "set", device, "up")
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        for space in (*map(self._space, self.hosts), self._switch):
            if not Path("/run/netns", space).exists():
                continue
            until(lambda space=space: not self._kill(space), 20, f"the processes of {space} to end")  # type: ignore[misc]
            # What is in a namespace goes with it, the bridge and both ends of its links included.
            ip("netns", "del", space)

    def start(self, host: int, argv: Sequence[str], out: Path, **environment: str) -> subprocess.Popen[bytes]:
        """Run a program on a host, in a session of its own; both its streams go to ``out``."""
        enter = ["ip", "netns", "exec", self._space(host), "unshare", "--uts", "bash", "-c", 'hostname "$0" && exec "$@"']
        with out.open("ab") as stream:
            return subprocess.Popen(
                [*enter, f"host{host}", *argv],
                env={**os.environ, **environment}, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, start_new_session=True,
            )  # fmt: skip

    def ranks_on(self, host: int) -> int:
        """How many ranks there are on a host."""
        return len(self._ranks(host))

    def kill_ranks(self, host: int) -> None:
        """Kill the ranks of a host, and nothing else on it."""
        for number in self._ranks(host):
            os.kill(number, signal.SIGKILL)

    def limit(self, host: int, rate: str, latency: str) -> None:
        """Let a host's link carry no more than ``rate``, either way; what would wait longer than ``latency`` is dropped."""
        for space, device in ((self._space(host), LINK), (self._switch, _port(host))):
            bucket = ("rate", rate, "burst", "16kb", "latency", latency)
            self._inside(space, "tc", "qdisc", "add", "dev", device, "root", "tbf", *bucket)

    def cut(self, host: int) -> None:
        """Take a host's link down: no end of any connection is told."""
        self._inside(self._space(host), "ip", "link", "set", LINK, "down")

    def mend(self, host: int) -> None:
        """Take a host's link up again."""
        self._inside(self._space(host), "ip", "link", "set", LINK, "up")

    def crash(self, host: int) -> int:
        """Kill whatever runs on a host, at once; returns how many processes that were."""
        return self._kill(self._space(host))

    @property
    def _switch(self) -> str:
        return f"{self._prefix}switch"

    def _space(self, host: int) -> str:
        return f"{self._prefix}{host}"

    def _ranks(self, host: int) -> list[int]:
        def environment(number: int) -> bytes:
            try:
                return Path(f"/proc/{number}/environ").read_bytes()
            except OSError:
                return b""

        inside = map(int, ip("netns", "pids", self._space(host)).split())
        return [number for number in inside if b"OMPI_COMM_WORLD_RANK=" in environment(number)]

    def _kill(self, space: str) -> int:
        numbers = ip("netns", "pids", space).split()
        for number in numbers:
            with suppress(ProcessLookupError):
                os.kill(int(number), signal.SIGKILL)
        return len(numbers)

    def _inside(self, space: str, *argv: str) -> None:
        ip("netns", "exec", space, *argv)


def ip(*arguments: str) -> str:
    """What ``ip`` prints.

    Raises
    ------
    SystemExit
        If it fails.
    """
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"ip {' '.join(arguments)}: {done.stderr.strip() or f'exit code {done.returncode}'}")
    return done.stdout


def lacking() -> str:
    """What this machine lacks, in words; nothing if hosts can be made."""
    if absent := missing(PROGRAMS):
        return f"not found: {', '.join(absent)}; install iproute2 and util-linux, as in: apt-get install iproute2 util-linux"
    done = subprocess.run(["unshare", "--net", "--uts", "true"], capture_output=True, text=True)
    if done.returncode != 0:
        return f"no network namespaces ({done.stderr.strip()}); they need root, or CAP_SYS_ADMIN: sudo make hosts-test"
    return ""


def _port(host: int) -> str:
    return f"port{host}"
