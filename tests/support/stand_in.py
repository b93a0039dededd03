"""Stands in for a rank at the launcher; a program of its own, see forkserver.py, and one that loads next to nothing."""

from __future__ import annotations

import array
import json
import os
import resource
import signal
import socket
import sys


def main() -> None:
    """Have the rank forked, pass signals on to it, and end as it does."""
    with socket.socket(socket.AF_UNIX) as server:
        server.connect(sys.argv[1])
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(number, lambda number, frame: server.sendall(bytes([number])))
        request = json.dumps({"argv": sys.argv[2:], "cwd": os.getcwd(), "environment": dict(os.environ)}).encode()
        descriptors = array.array("i", [0, 1, 2])
        server.sendmsg([len(request).to_bytes(4, "big")], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)])
        server.sendall(request)
        answer = server.recv(4)
    code = int.from_bytes(answer, "big", signed=True) if answer else -signal.SIGKILL
    if code < 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.signal(-code, signal.SIG_DFL) if -code != signal.SIGKILL else None
        os.kill(os.getpid(), -code)
    os._exit(code)


if __name__ == "__main__":
    main()
