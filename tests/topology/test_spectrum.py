"""Spectral gap and mixing time against closed forms and against the matrix powers themselves."""

from __future__ import annotations

import math

import networkx as nx
import numpy as np
import pytest

from consensus.errors import TopologyError
from consensus.topology import build, lazy, mixing_time, spectral_gap
from consensus.topology.weights import metropolis


@pytest.mark.parametrize("n", [3, 8, 31, 400])
def test_ring(n: int) -> None:
    largest = max(abs(1 / 3 + 2 / 3 * math.cos(2 * math.pi * k / n)) for k in range(1, n))
    assert spectral_gap(metropolis(build("ring", n))) == pytest.approx(1 - largest, rel=1e-6)


def test_complete_agrees_at_once() -> None:
    assert spectral_gap(metropolis(build("complete", 9))) == pytest.approx(1, abs=1e-12)
    assert mixing_time(metropolis(build("complete", 9))) == 1


@pytest.mark.parametrize("dimension", [2, 4, 9])
def test_hypercube(dimension: int) -> None:
    # eigenvalues 1 - 2k/(d+1): second largest modulus is 1 - 2/(d+1)
    assert spectral_gap(metropolis(build("hypercube", 2**dimension))) == pytest.approx(2 / (dimension + 1), rel=1e-6)


def test_lanczos_and_dense_agree() -> None:
    P = metropolis(build("random_regular", 300, seed=1))
    exact = 1 - np.sort(np.abs(np.linalg.eigvalsh(P.toarray())))[-2]
    assert spectral_gap(P) == pytest.approx(exact, rel=1e-6)


def test_lazy_halves_a_gap_on_the_positive_side() -> None:
    P = metropolis(build("path", 10))
    assert spectral_gap(lazy(P)) == pytest.approx(spectral_gap(P) / 2)


@pytest.mark.parametrize("name", ["ring", "star", "torus"])
def test_mixing_time_is_the_first_power_that_is_close(name: str) -> None:
    P = metropolis(build(name, 12))
    k = int(mixing_time(P, 0.05))
    mean = np.full((12, 12), 1 / 12)
    power = np.linalg.matrix_power(P.toarray(), k - 1)
    assert np.linalg.norm(power - mean, 2) > 0.05
    assert np.linalg.norm(power @ P.toarray() - mean, 2) <= 0.05 * (1 + 1e-9)


def test_corner_cases() -> None:
    assert spectral_gap(metropolis(build("ring", 1))) == 1
    assert mixing_time(metropolis(build("ring", 1))) == 0
    apart = np.eye(4)
    assert spectral_gap(apart) == 0
    assert math.isinf(mixing_time(apart))
    for bad in (np.ones((2, 3)), np.array([[1.0, 0.5], [0.0, 1.0]]), 2 * np.eye(2)):
        with pytest.raises(TopologyError):
            spectral_gap(bad)
    with pytest.raises(TopologyError):
        mixing_time(metropolis(nx.path_graph(3)), epsilon=1.5)
