"""Variants of the same thing, measured in turns: what disturbs the machine disturbs all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TypeAlias

from mpi4py import MPI

Variants: TypeAlias = Mapping[str, Callable[[], object]]

PILOT_ROUNDS = 3
FEWEST_CYCLES = 5
MOST_ROUNDS = 2000


def alternate(
    variants: Variants,
    *,
    seconds: float,
    block_seconds: float = 0.2,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[list[float]]]:
    """Time blocks of rounds of each variant, A B C, B C A, C A B, ... Collective.

    Every block begins with a barrier and a round that is not counted, so that ranks are in step.

    Parameters
    ----------
    variants
        By name: one round, a collective act.
    seconds
        About how long to go on; at least :data:`FEWEST_CYCLES` cycles.
    block_seconds
        About how long a block lasts.
    clock
        Of this rank, seconds.

    Returns
    -------
    dict
        By variant: for each rank its seconds per round, one number a cycle.
    """
    comm = MPI.COMM_WORLD
    rounds = {name: _rounds(one, block_seconds) for name, one in variants.items()}
    times: dict[str, list[float]] = {name: [] for name in variants}
    order = list(variants)
    began = time.monotonic()
    cycle = 0
    while comm.bcast(cycle < FEWEST_CYCLES or time.monotonic() - began < seconds):
        shift = cycle % len(order)
        for name in order[shift:] + order[:shift]:
            times[name].append(_block(variants[name], rounds[name], clock))
        cycle += 1
    everybody = comm.allgather(times)
    return {name: [theirs[name] for theirs in everybody] for name in variants}


def slowest(times: list[list[float]]) -> list[float]:
    """For each cycle the time of the rank that took longest."""
    return [max(column) for column in zip(*times, strict=True)]


def mean(times: list[list[float]]) -> list[float]:
    """For each cycle the mean over ranks."""
    return [sum(column) / len(column) for column in zip(*times, strict=True)]


def _block(one: Callable[[], object], rounds: int, clock: Callable[[], float]) -> float:
    MPI.COMM_WORLD.Barrier()
    one()
    began = clock()
    for _ in range(rounds):
        one()
    return (clock() - began) / rounds


def _rounds(one: Callable[[], object], block_seconds: float) -> int:
    one()  # the first ever pays for page faults and connections
    each = _block(one, PILOT_ROUNDS, time.perf_counter)
    slow = MPI.COMM_WORLD.allreduce(each, MPI.MAX)
    return max(2, min(MOST_ROUNDS, int(block_seconds / slow)))
