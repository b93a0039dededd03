"""Ranks one of which ends with an error; a program of its own, see tests/test_endings.py.

The arguments are a place and the rank that fails there.
"""

from __future__ import annotations

import os
import sys

import torch

import consensus
from tests.worlds import Point, numbers

FOR_EVER = 10**9


def train(rule: str, steps: int, failing: int) -> None:
    """Train for ``steps``; the failing rank fails in its fifth, or after the last."""
    model = Point(1000)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with consensus.attach(model, optimizer, topology="ring", rule=rule) as handle:
        for step in range(steps):
            if step == 5 and handle.rank == failing:
                raise ArithmeticError("a bad batch")
            optimizer.zero_grad()
            model(numbers(handle.rank, 1000)).backward()
            optimizer.step()


def drop(failing: int) -> None:
    """Train without a goodbye; the failing rank ends in the middle of it, with code 0."""
    model = Point(1000)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    handle = consensus.attach(model, optimizer, topology="ring", rule="static_backup")
    for step in range(20):
        if step == 5 and handle.rank == failing:
            sys.exit(0)
        optimizer.zero_grad()
        model(numbers(handle.rank, 1000)).backward()
        optimizer.step()


def main() -> None:
    """Fail in the place that the first argument names."""
    place, failing = sys.argv[1], int(sys.argv[2])
    fails = int(os.environ["OMPI_COMM_WORLD_RANK"]) == failing
    if place == "before MPI" and fails:
        raise ArithmeticError("a bad start")
    if place == "after training":
        train("full", 4, failing)
        if fails:
            raise ArithmeticError("a bad end")
    elif place == "instead of training" and fails:
        sys.exit(5)
    elif place == "without a goodbye":
        drop(failing)
    else:
        train("static_backup" if place == "a partial rule" else "full", FOR_EVER, failing)
    print(f"rank {os.environ['OMPI_COMM_WORLD_RANK']} came to its end", flush=True)


if __name__ == "__main__":
    main()
