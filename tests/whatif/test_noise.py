"""How fast averaging forgets, where it is known."""

from __future__ import annotations

import math

import pytest

from consensus.rules import build
from consensus.sim.kernel import Kernel
from consensus.sim.network import Network
from consensus.timing import Constant, Link
from consensus.whatif.noise import Noise


def contraction(adjacency: dict[int, tuple[int, ...]], rounds: int = 400, open_for: float = 0.0) -> float:
    kernel, plant = Kernel(), Noise(len(adjacency), 1)
    streams = [Constant(1.0).stream(rank, 0) for rank in adjacency]
    network = Network(
        adjacency,
        build("full"),
        streams,
        Link(open_for, math.inf),
        stop=lambda rank, round: round == rounds,
        plant=plant,
        control_bytes=0,
        kernel=kernel,
    )
    plant.watch(kernel, 0.1)
    network.run()
    return plant.contraction(max(network.ended_at))


def test_where_one_round_makes_all_equal() -> None:
    # Differences live from a step's end until its round closes: three messages of 0.1 s.
    complete = {i: tuple(j for j in range(4) if j != i) for i in range(4)}
    assert contraction(complete, open_for=0.1) == pytest.approx(1 / 0.3, rel=0.1)


def test_where_each_round_leaves_a_part() -> None:
    # On a path of three, weights 1/3: the modes of I - L/3 are 2/3 and 0. Noise goes into both alike; a part m^2k of it is left
    # after k rounds of 1 s, so differences live (1 / (1 - 4/9) + 1) / 2 s, less the first one, in which the step is not yet over.
    path = {0: (1,), 1: (0, 2), 2: (1,)}
    lives = (4 / 9 / (1 - 4 / 9) + 0) / 2
    assert contraction(path) == pytest.approx(1 / lives, rel=0.1)


def test_without_averaging_nothing_is_forgotten() -> None:
    plant, kernel = Noise(2, 1), Kernel()
    plant.watch(kernel, 0.1)
    for k in range(100):
        kernel.at(float(k), lambda round: plant.step(0, round), k)
    kernel.run()
    assert plant.contraction(100.0) == pytest.approx(0.0, abs=0.01)


def test_models_that_never_differ() -> None:
    assert Noise(2, 1).contraction(1.0) == math.inf
