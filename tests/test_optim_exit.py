"""A rank that raises, in processes of their own: uncaught it ends the job; caught, the others finish first."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.ranks import needs_mpirun, python
from tests.support.forkserver import ForkServer

SCRIPT = """
import torch
import consensus

torch.set_num_threads(1)
model = torch.nn.Linear(2, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

def steps(count):
    for _ in range(count):
        optimizer.zero_grad()
        model(torch.ones(1, 2)).sum().backward()
        optimizer.step()

def main(others):
    with consensus.attach(model, optimizer, topology="ring", rule="full") as handle:
        steps(5)
        if handle.rank == 1:
            raise ArithmeticError("a bad batch")
        steps(others)
    print(f"rank {{handle.rank}} made {{handle.statistics.rounds}} rounds", flush=True)

if {caught}:
    try:
        main(200)
    except ArithmeticError:
        print("rank 1 goes home", flush=True)
else:
    main(10**9)
"""


@needs_mpirun
@pytest.mark.slow
def test_uncaught_it_ends_the_job(tmp_path: Path) -> None:
    path = tmp_path / "script.py"
    path.write_text(SCRIPT.format(caught=False))
    done = python(str(path), ranks=2)
    assert done.returncode != 0
    assert "ArithmeticError: a bad batch\non rank 1 of 2" in done.stderr
    assert "rounds" not in done.stdout


def test_caught_the_others_finish(tmp_path: Path, forked: ForkServer) -> None:
    path = tmp_path / "script.py"
    path.write_text(SCRIPT.format(caught=True))
    done = forked.run(2, [str(path)], patience=60)
    assert (done.code, done.errors) == (0, "")
    assert sorted(done.out.splitlines()) == ["rank 0 made 205 rounds", "rank 1 goes home"]
