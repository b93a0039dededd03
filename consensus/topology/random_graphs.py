"""Random families: like :mod:`consensus.topology.shapes`, with a ``seed``; every draw is repeated until connected."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from typing import Any

import networkx as nx

from consensus.errors import TopologyError
from consensus.types import Edge

TRIES = 200
"""Draws before a random family gives up: at a probability of 0.05 per draw, all 200 fail once in 28,000 seeds."""


def random_regular(n: int, *, seed: int, degree: int = 4) -> Iterator[Edge]:
    """Uniformly drawn graph in which every rank has ``degree`` neighbours; an expander with high probability from degree 3 on."""
    if not 1 <= degree < n:
        raise TopologyError(f"random_regular: degree must be between 1 and n - 1 = {n - 1}, got {degree}")
    if n * degree % 2:
        raise TopologyError(
            f"random_regular: n * degree must be even, because an edge has two ends; got {n} * {degree}; "
            f"take degree={degree - 1 or 2} or {degree + 1}"
        )
    if degree == 1 and n > 2:
        raise TopologyError(
            f"random_regular: degree=1 joins ranks in pairs, so n = {n} cannot be connected; take degree=2 or more"
        )
    return _connected(
        lambda rng: nx.random_regular_graph(degree, n, seed=rng),
        seed,
        f"random_regular(n={n}, degree={degree})",
        "raise the degree",
    )


def erdos_renyi(n: int, *, seed: int, probability: float = 0.3) -> Iterator[Edge]:
    """Every pair joined with ``probability``, independently, given that the result is connected."""
    _check_probability("erdos_renyi", probability, lowest_allowed=False)
    return _connected(
        lambda rng: nx.fast_gnp_random_graph(n, probability, seed=rng),
        seed,
        f"erdos_renyi(n={n}, probability={probability:g})",
        f"connected graphs become usual from a probability of ln(n)/n = {math.log(n) / n:.2g} on",
    )


def watts_strogatz(n: int, *, seed: int, neighbours: int = 4, probability: float = 0.1) -> Iterator[Edge]:
    """Small world: ring lattice of ``neighbours`` per rank, edges rewired with ``probability``, given that it stays connected."""
    if neighbours % 2 or not 2 <= neighbours < n:
        raise TopologyError(f"watts_strogatz: neighbours must be even and between 2 and n - 1 = {n - 1}, got {neighbours}")
    _check_probability("watts_strogatz", probability, lowest_allowed=True)
    return _connected(
        lambda rng: nx.watts_strogatz_graph(n, neighbours, probability, seed=rng),
        seed,
        f"watts_strogatz(n={n}, neighbours={neighbours}, probability={probability:g})",
        "raise neighbours or lower the probability",
    )


def _connected(draw: Callable[[random.Random], nx.Graph[Any]], seed: int, what: str, advice: str) -> Iterator[Edge]:
    rng = random.Random(seed)
    for _ in range(TRIES):
        graph = draw(rng)
        if nx.is_connected(graph):
            return iter(graph.edges())
    raise TopologyError(f"no connected graph in {TRIES} draws of {what} from seed {seed}; {advice}")


def _check_probability(family: str, value: float, *, lowest_allowed: bool) -> None:
    if not (0 < value <= 1 or (lowest_allowed and value == 0)):
        interval = "[0, 1]" if lowest_allowed else "(0, 1]"
        raise TopologyError(f"{family}: probability must lie in {interval}, got {value}")
