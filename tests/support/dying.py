"""Ranks of which some kill themselves at chosen moments; a program of its own, see tests/transport/test_dead_ranks.py.

How a rank dies (:func:`doom`) is the kill matrix's and the stress test's too.

The ranks are dealt out in groups of ``size``, one after the other; group k does ``scenarios[k]``, and counts its own ranks.
Survivors make their rounds, say goodbye, sum up their numbers, and then do it once more. Each reports what it has seen.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from consensus.driver import Driver
from consensus.protocol.commands import Command, SendControl
from consensus.protocol.events import Event, PeerLost
from consensus.protocol.messages import Engage
from consensus.protocol.neighbour import NeighbourEngine
from consensus.protocol.rounds import RoundRecord
from consensus.rules import build
from consensus.transport.base import Bytes, Transport
from consensus.transport.failures import prepare

CHUNKS, CHUNK_BYTES = 3, 1 << 18
MOMENTS = ("computing", "open", "offered", "moving")
"""Of a round, when a rank may die; see :func:`doom`."""
FIRST = 4
"""The round from which on a victim may die: everybody has exchanged with everybody by then."""


class Scenario(NamedTuple):
    """Who dies, when, on which graph, under which rule."""

    size: int
    graph: str
    rule: str
    victims: list[int]
    moment: str
    rounds: int = 15


class Models:
    """A mixer that does no arithmetic and breaks when it is given what it does not expect."""

    def __init__(self) -> None:
        self.chunks = [np.zeros(CHUNK_BYTES, np.uint8) for _ in range(CHUNKS)]
        self.arrived: dict[int, int] = {}

    def incoming(self, peer: int) -> int:
        return CHUNKS

    def outgoing(self, peer: int) -> Sequence[Bytes]:
        return self.chunks

    def lend(self, peer: int, index: int) -> Bytes:
        return np.empty(CHUNK_BYTES, np.uint8)

    def deliver(self, peer: int, index: int, data: Bytes) -> None:
        if self.arrived[peer] != index:
            raise AssertionError(f"chunk {index} of rank {peer} after {self.arrived[peer]} others")
        self.arrived[peer] += 1

    def release(self, peer: int, index: int) -> None:
        pass

    def begin(self) -> None:
        self.arrived = {}

    def expect(self, peer: int, weight: float | None, last: bool) -> None:
        self.arrived[peer] = 0

    def forget(self, peer: int) -> None:
        del self.arrived[peer]

    def mix(self, weights: tuple[tuple[int, float], ...]) -> None:
        for peer, _ in weights:
            if self.arrived[peer] != CHUNKS:
                raise AssertionError(f"{self.arrived[peer]} chunks of rank {peer} are to be mixed")


def die(when: str = "") -> None:
    """Kill this process as a kernel without memory does; last words, ``when``, go to the standard output."""
    if when:
        os.write(1, f"\ndied {when}\n".encode())
    os.kill(os.getpid(), signal.SIGKILL)


def doom(driver: Driver[NeighbourEngine], moment: str, first: int, patience: int = 10) -> None:
    """Make this process kill itself at ``moment`` of a round.

    Parameters
    ----------
    driver
        Of this process.
    moment
        "computing": a step is done, and its round not open. "open": the round is, and nobody knows. "offered": a neighbour has
        been offered an exchange. "moving": the first chunk of the model has left.
    first
        The first round in which it may be.
    patience
        After so many rounds without such a moment (a rank that is left alone offers nothing) the next step will do.
    """
    engine, mixer = driver.engine, driver._mixer
    exchange, release, recorder = driver.exchange, mixer.release, driver._recorder

    def record(now: float, event: Event, commands: Sequence[Command]) -> None:
        if recorder is not None:
            recorder(now, event, commands)
        if moment not in ("open", "offered") or engine.round < first or not engine.view.is_open:
            return
        if moment == "open":
            die(f"open in round {engine.round}")
        for command in commands:
            if isinstance(command, SendControl) and isinstance(command.message, Engage):
                driver._transport.send(command.peer, command.message)
                die(f"offered in round {engine.round}")

    def fatal_exchange() -> RoundRecord:
        if engine.round + 1 >= (first if moment == "computing" else first + patience):
            die(f"computing in round {engine.round + 1}")
        return exchange()

    def fatal_release(peer: int, index: int) -> None:
        if moment == "moving" and engine.round >= first:
            die(f"moving in round {engine.round}")
        release(peer, index)

    driver._recorder, mixer.release = record, fatal_release
    driver.exchange = fatal_exchange  # type: ignore[method-assign]


def adjacency(graph: str, size: int) -> dict[int, list[int]]:
    """The graph by its name."""
    ranks = range(size)
    apart = {"ring": {1, size - 1}, "path": {1}, "complete": set(ranks)}.get(graph)
    if apart is None:
        return {rank: [0] if rank else list(ranks[1:]) for rank in ranks}
    return {i: [j for j in ranks if i != j and abs(i - j) in apart] for i in ranks}


def session(transport: Transport, scenario: Scenario, rounds: int, dies: bool) -> list[int]:
    """Some rounds and the goodbye; returns who was lost."""
    lost: list[int] = []
    engine = NeighbourEngine(transport.rank, adjacency(scenario.graph, scenario.size), build(scenario.rule))

    def record(now: float, event: Event, commands: Sequence[Command]) -> None:
        if isinstance(event, PeerLost):
            lost.append(event.peer)

    driver = Driver(engine, transport, Models(), recorder=record)
    if dies and scenario.moment in MOMENTS:
        doom(driver, scenario.moment, FIRST)
    for _ in range(rounds):
        driver.exchange()
    driver.leave()
    if dies and scenario.moment == "left":
        die()
    driver.drain()
    return sorted(lost)


def report(transport: Transport, scenario: Scenario) -> dict[str, Any]:
    """What this rank does, and what it has seen if it is still there."""
    victim = transport.rank in scenario.victims
    lost = session(transport, scenario, scenario.rounds, victim)
    total = np.full(1000, float(transport.rank))
    if victim and scenario.moment == "summing":
        die()
    transport.sum(total)
    mean = float(total[0] / len(transport.members))
    again = session(transport, scenario, 3, False)
    return {"rank": transport.rank, "lost": lost, "again": again, "members": transport.gather(transport.rank), "mean": mean}


def main() -> None:
    """Do the scenarios in the arguments."""
    prepare(os.environ)
    from mpi4py import MPI

    from consensus.transport.mpi import MpiTransport

    scenarios = [Scenario(*fields) for fields in json.loads(sys.argv[1])]
    groups = [group for group, scenario in enumerate(scenarios) for _ in range(scenario.size)]
    group = groups[MPI.COMM_WORLD.rank]
    transport = MpiTransport(MPI.COMM_WORLD.Split(group))
    print("\n" + json.dumps({"group": group, **report(transport, scenarios[group])}), flush=True)


if __name__ == "__main__":
    main()
