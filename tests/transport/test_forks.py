"""Who is warned of forks, and who is refused for being a child."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from consensus.errors import LaunchError
from consensus.transport.forks import refuse_children
from consensus.transport.launched import default_transport
from tests.ranks import python

FORKING = """
import os, subprocess, sys
from consensus.transport.forks import watch_forks
def fork():
    child = os.fork()
    if not child:
        os._exit(os.fork() and 0)  # a child's own forks are its affair
    os.waitpid(child, 0)
watch_forks()
subprocess.run([sys.executable, "-c", ""])
with watch_forks().on_purpose():
    fork()
print("so far", file=sys.stderr, flush=True)
fork()
fork()
"""

SPAWNING = """
import multiprocessing
from consensus.transport.forks import refuse_children
def become_a_rank(place):
    if place == "{where}":
        refuse_children()
        print("a rank" * (place == "in its work"), end="", flush=True)
become_a_rank("in the script")
if __name__ == "__main__":
    child = multiprocessing.get_context("{method}").Process(target=become_a_rank, args=["in its work"])
    child.start()
    child.join()
    print("ended with", child.exitcode)
"""


def test_a_fork_is_told_once() -> None:
    done = python("-c", FORKING)
    assert done.returncode == 0, done
    said = done.stderr.splitlines()
    assert said[0] == "so far"
    assert len(said) == 2
    assert "forks while MPI is in use" in said[1]
    assert "multiprocessing_context=consensus.loader_context()" in said[1]


@pytest.mark.parametrize(
    ("method", "where"), [("spawn", "in the script"), ("forkserver", "in the script"), ("fork", "in its work")]
)
def test_a_child_is_no_rank(tmp_path: Path, method: str, where: str) -> None:
    script = tmp_path / "script.py"
    script.write_text(SPAWNING.format(method=method, where=where))
    done = python(str(script))
    assert (done.returncode, done.stdout) == (0, "ended with 1\n"), done
    assert "started by multiprocessing" in done.stderr
    assert "__name__ == '__main__'" in done.stderr


def test_this_process_is_nobodys_child() -> None:
    refuse_children()


def test_a_child_does_not_get_as_far_as_loading_mpi(monkeypatch: pytest.MonkeyPatch) -> None:
    script = type(sys)("__mp_main__")
    monkeypatch.setitem(sys.modules, "__mp_main__", script)
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
    with pytest.raises(LaunchError, match="started by multiprocessing"):
        default_transport()
