"""Ranks of which some stop themselves at chosen moments; a program of its own, see tests/transport/test_stopped_ranks.py.

The ranks are dealt out in groups as in :mod:`tests.support.dying`. Each says who it is, then that it has made its rounds, and at
last, when all have said goodbye, what its model has become.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from consensus.driver import Driver
from consensus.protocol.commands import Command
from consensus.protocol.events import Control, Event
from consensus.protocol.neighbour import NeighbourEngine
from consensus.rules import build
from consensus.transport.base import Bytes, Transport
from consensus.transport.failures import prepare
from tests.support.dying import CHUNK_BYTES, CHUNKS, FIRST, Models, Scenario, adjacency

PARAMETERS: dict[str, dict[str, Any]] = {"gap": {"window": 2}, "patience": {"window": 2}, "deadline": {"seconds": 0.02}}
STUCK_AFTER = 0.3
"""Seconds; a rank that is late for other reasons is not waited for either, and nothing is lost by it."""


class Averaged(Models):
    """Models of which all numbers are alike, averaged as they arrive."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.numbers = [np.full(CHUNK_BYTES // 8, value) for _ in range(CHUNKS)]
        self.chunks = [numbers.view(np.uint8) for numbers in self.numbers]
        self._weights: dict[int, float] = {}
        self._sums = [np.zeros(CHUNK_BYTES // 8) for _ in range(CHUNKS)]

    def begin(self) -> None:
        super().begin()
        for total in self._sums:
            total.fill(0.0)

    def expect(self, peer: int, weight: float | None, last: bool) -> None:
        super().expect(peer, weight, last)
        assert weight is not None
        self._weights[peer] = weight

    def deliver(self, peer: int, index: int, data: Bytes) -> None:
        super().deliver(peer, index, data)
        self._sums[index] += self._weights[peer] * data.view(np.float64)

    def mix(self, weights: tuple[tuple[int, float], ...]) -> None:
        super().mix(weights)
        for numbers, total in zip(self.numbers, self._sums, strict=True):
            numbers *= 1 - sum(weight for _, weight in weights)
            numbers += total


def say(group: int, transport: Transport, **told: Any) -> None:
    """Tell whoever started the job, in one piece."""
    sys.stdout.write("\n" + json.dumps({"group": group, "rank": transport.rank, **told}) + "\n")
    sys.stdout.flush()


def stop() -> None:
    """Stop this process, until somebody lets it go on."""
    os.kill(os.getpid(), signal.SIGSTOP)


def take_part(group: int, transport: Transport, scenario: Scenario) -> None:
    """What this rank does."""
    rule = build(scenario.rule, **PARAMETERS.get(scenario.rule, {}))
    graph = adjacency(scenario.graph, scenario.size)
    engine = NeighbourEngine(transport.rank, graph, rule, stuck_after=STUCK_AFTER)
    victim, stopped = transport.rank in scenario.victims, False

    def record(now: float, event: Event, commands: Sequence[Command]) -> None:
        nonlocal stopped
        # Its neighbours have been told by then that it is open, and one has answered.
        known = engine.round >= FIRST and engine.view.is_open and isinstance(event, Control)
        if victim and scenario.moment == "offered" and known and not stopped:
            stopped = True
            stop()

    models = Averaged(float(transport.rank))
    driver = Driver(engine, transport, models, recorder=record)
    say(group, transport, pid=os.getpid())
    for k in range(1, scenario.rounds + 1):
        if victim and scenario.moment == "computing" and k == FIRST:
            stop()
        driver.exchange()
    say(group, transport, reached=engine.round)
    driver.leave()
    driver.drain()
    values = {float(number) for numbers in models.numbers for number in numbers}
    assert len(values) == 1
    say(group, transport, value=values.pop())


def main() -> None:
    """Do the scenarios in the arguments."""
    prepare(os.environ)
    from mpi4py import MPI

    from consensus.transport.mpi import MpiTransport

    scenarios = [Scenario(*fields) for fields in json.loads(sys.argv[1])]
    groups = [group for group, scenario in enumerate(scenarios) for _ in range(scenario.size)]
    group = groups[MPI.COMM_WORLD.rank]
    take_part(group, MpiTransport(MPI.COMM_WORLD.Split(group)), scenarios[group])


if __name__ == "__main__":
    main()
