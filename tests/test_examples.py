"""The examples, run as their users run them."""

from __future__ import annotations

import re
import subprocess

import pytest

from tests.ranks import ROOT, needs_mpirun, python

EXAMPLES = ROOT / "examples"


def check_accuracy(done: subprocess.CompletedProcess[str], ranks: int) -> None:
    assert done.returncode == 0, done.stdout + done.stderr
    found = re.fullmatch(rf"{ranks} ranks?, (\d+) rounds on rank 0, test accuracy (\S+)\n", done.stdout)
    assert found, done.stdout
    assert float(found[2]) > 0.93


def test_digits_alone() -> None:
    check_accuracy(python("train_digits.py", folder=EXAMPLES), 1)


@needs_mpirun
@pytest.mark.slow
def test_digits_under_mpirun() -> None:
    check_accuracy(python("train_digits.py", ranks=2, folder=EXAMPLES), 2)


@needs_mpirun
@pytest.mark.slow
def test_digits_under_consensus_launch() -> None:
    check_accuracy(python("-m", "consensus", "launch", "-n", "2", "train_digits.py", folder=EXAMPLES), 2)


@needs_mpirun
@pytest.mark.slow
def test_loader_under_mpirun() -> None:
    done = python("train_loader.py", ranks=2, folder=EXAMPLES)
    check_accuracy(done, 2)
    assert "forks" not in done.stderr


@needs_mpirun
@pytest.mark.slow
def test_server_under_mpirun() -> None:
    check_accuracy(python("train_server.py", ranks=3, folder=EXAMPLES), 3)


@needs_mpirun
@pytest.mark.slow
def test_coded_under_mpirun() -> None:
    check_accuracy(python("train_coded.py", ranks=10, folder=EXAMPLES), 10)


@needs_mpirun
@pytest.mark.slow
def test_own_graph() -> None:
    done = python("own_graph.py", ranks=4, folder=EXAMPLES)
    assert done.returncode == 0, done.stdout + done.stderr
    found = re.findall(r"^rank (\d): own guess (\S+), mean of all (\S+); 200 rounds, ", done.stdout, re.MULTILINE)
    assert [int(rank) for rank, _, _ in found] == [0, 1, 2, 3]
    assert len({mean for _, _, mean in found}) == 1
    assert float(found[0][2]) == pytest.approx(1.5, abs=0.4)
