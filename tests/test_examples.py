"""The examples: the first is run in every way that users have; the others as ranks that cost less to start."""

from __future__ import annotations

import re
import subprocess

import pytest

from tests.ranks import ROOT, needs_mpirun, python
from tests.support.forkserver import Done, ForkServer

EXAMPLES = ROOT / "examples"


def check_accuracy(out: str, ranks: int) -> None:
    found = re.fullmatch(rf"{ranks} ranks?, (\d+) rounds on rank 0, test accuracy (\S+)\n", out)
    assert found, out
    assert float(found[2]) > 0.93


def told(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def from_fork(forked: ForkServer, script: str, ranks: int) -> Done:
    done = forked.run(ranks, [str(EXAMPLES / script)], patience=90)
    assert done.code == 0, done
    return done


def test_digits_alone() -> None:
    check_accuracy(told(python("train_digits.py", folder=EXAMPLES)), 1)


@needs_mpirun
@pytest.mark.slow
def test_digits_under_mpirun() -> None:
    check_accuracy(told(python("train_digits.py", ranks=2, folder=EXAMPLES)), 2)


@needs_mpirun
@pytest.mark.slow
def test_digits_under_consensus_launch() -> None:
    check_accuracy(told(python("-m", "consensus", "launch", "-n", "2", "train_digits.py", folder=EXAMPLES)), 2)


def test_loader(forked: ForkServer) -> None:
    done = from_fork(forked, "train_loader.py", 2)
    check_accuracy(done.out, 2)
    assert "forks" not in done.errors


def test_server(forked: ForkServer) -> None:
    check_accuracy(from_fork(forked, "train_server.py", 3).out, 3)


def test_coded(forked: ForkServer) -> None:
    check_accuracy(from_fork(forked, "train_coded.py", 10).out, 10)


def test_own_graph(forked: ForkServer) -> None:
    out = from_fork(forked, "own_graph.py", 4).out
    found = re.findall(r"^rank (\d): own guess (\S+), mean of all (\S+); 200 rounds, ", out, re.MULTILINE)
    assert [int(rank) for rank, _, _ in found] == [0, 1, 2, 3]
    assert len({mean for _, _, mean in found}) == 1
    assert float(found[0][2]) == pytest.approx(1.5, abs=0.4)
