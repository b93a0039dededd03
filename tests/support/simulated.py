"""Simulated networks for tests: a quadratic problem, streams of a time model, and all that a run leaves to look at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import networkx as nx
import numpy as np

from consensus.protocol.commands import Command
from consensus.protocol.decision import Rule
from consensus.protocol.events import Event
from consensus.protocol.neighbour import NeighbourEngine
from consensus.protocol.rounds import RoundRecord
from consensus.protocol.validate import check_engine
from consensus.sim.network import Network
from consensus.sim.quadratic import Quadratic
from consensus.timing import ComputeTime, Link, ShiftedExponential

ETA = 0.3


def adjacency_of(graph: nx.Graph) -> dict[int, tuple[int, ...]]:
    """As engines take it."""
    return {rank: tuple(sorted(graph[rank])) for rank in sorted(graph)}


def problem(size: int, seed: int = 0) -> Quadratic:
    """A quadratic whose models start apart."""
    generator = np.random.default_rng([seed, size])
    centres, start = generator.normal(size=(2, size, 3))
    return Quadratic(centres, lr=ETA, curvatures=generator.uniform(0.5, 1.5, size), start=start)


class Validator:
    """A recorder that checks an engine's invariants after every event."""

    def __init__(self) -> None:
        self.engine: NeighbourEngine | None = None

    def __call__(self, now: float, event: Event, commands: list[Command]) -> None:
        assert self.engine is not None
        check_engine(self.engine, commands)


@dataclass
class Simulated:
    """A network that has run, and the records of all rounds by rank."""

    network: Network
    histories: list[list[RoundRecord]]

    @property
    def exchanges(self) -> list[list[frozenset[tuple[int, int]]]]:
        """By rank and round: whom it exchanged with, in which of their rounds."""
        return [
            [frozenset((each.peer, each.round) for each in record.exchanges) for record in rounds] for rounds in self.histories
        ]


def simulate(
    graph: nx.Graph,
    rule: Rule,
    *,
    rounds: int | list[int] = 10,
    compute: ComputeTime | None = None,
    link: Link | None = None,
    seed: int = 0,
    **options: Any,
) -> Simulated:
    """Run so many rounds of each rank, with the engines' invariants checked after every event."""
    size = len(graph)
    limits = [rounds] * size if isinstance(rounds, int) else rounds
    model = compute or ShiftedExponential(0.01, 0.01)
    histories: list[list[RoundRecord]] = [[] for _ in range(size)]
    validators = [Validator() for _ in range(size)]
    network = Network(
        adjacency_of(graph),
        rule,
        [model.stream(rank, seed) for rank in range(size)],
        link or Link(1e-4, 1e9),
        stop=lambda rank, done: done >= limits[rank],
        on_round=lambda rank, record, compute: histories[rank].append(record),
        recorders=validators,
        **options,
    )
    for validator, engine in zip(validators, network.engines, strict=True):
        validator.engine = engine
    network.run()
    return Simulated(network, histories)
