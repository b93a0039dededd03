"""Sampled iteration times: against closed forms, against a plain sampler written another way, and in order."""

from __future__ import annotations

import math

import numpy as np
import pytest

from consensus.coding.runtime import iteration_times, samples
from consensus.coding.system import Edge, System, Worker
from consensus.errors import ConfigError

MIXED = System(
    [
        Edge(tau=0.05, p=0.3, workers=[Worker(c=0.02, gamma=50, tau=0.01, p=0.2), Worker(c=0.08, gamma=20)]),
        Edge(tau=0.02, p=0.0, workers=[Worker(c=0.03, gamma=30, tau=0.02, p=0.5)] * 3),
        Edge(tau=0.0, p=0.9, workers=[Worker(c=0.01, gamma=10, tau=0.03)] * 2),
    ]
)


def drawn_plainly(system: System, load: int, s_e: int, s_w: int, generator: np.random.Generator) -> float:
    """One iteration, node by node, with NumPy's own distributions."""

    def transfers(tau: float, p: float) -> float:
        return tau * float(generator.geometric(1 - p) + generator.geometric(1 - p))

    at_master = []
    for edge in system.edges:
        arrivals = sorted(load * w.c + generator.exponential(load / w.gamma) + transfers(w.tau, w.p) for w in edge.workers)
        at_master.append(transfers(edge.tau, edge.p) + arrivals[len(arrivals) - s_w - 1])
    return sorted(at_master)[len(at_master) - s_e - 1]


def test_the_closed_form_of_ten_equal_workers() -> None:
    system = System([Edge(workers=[Worker(c=0.02, gamma=60.0)] * 10)])
    times = iteration_times(system, 8, 0, 3, draws=40_000)
    closed = 8 * 0.02 + 8 / 60 * sum(1 / k for k in range(4, 11))
    assert closed == pytest.approx(0.30608, abs=5e-6)
    assert times.mean() == pytest.approx(closed, abs=4 * times.std() / math.sqrt(len(times)))


def test_the_means_of_single_nodes() -> None:
    edge = Edge(tau=0.05, p=0.3, workers=[Worker(c=0.02, gamma=50.0, tau=0.01, p=0.6)])
    times = iteration_times(System([edge]), 3, 0, 0, draws=40_000)
    mean = edge.mean_transfers + edge.workers[0].mean(3)
    assert times.mean() == pytest.approx(mean, abs=4 * times.std() / math.sqrt(len(times)))


@pytest.mark.parametrize(("s_e", "s_w"), [(0, 0), (1, 0), (0, 1), (2, 1)])
def test_a_plain_sampler_agrees(s_e: int, s_w: int) -> None:
    generator = np.random.default_rng(4)
    plain = np.array([drawn_plainly(MIXED, 4, s_e, s_w, generator) for _ in range(4_000)])
    times = iteration_times(MIXED, 4, s_e, s_w, draws=20_000, seed=5)
    error = math.hypot(plain.std() / math.sqrt(len(plain)), times.std() / math.sqrt(len(times)))
    assert times.mean() == pytest.approx(plain.mean(), abs=4 * error)
    assert times.std() == pytest.approx(plain.std(), rel=0.1)


def test_without_chance_times_are_exact() -> None:
    edges = [Edge(tau=0.5, workers=[Worker(c=1.0), Worker(c=3.0, tau=0.25)]), Edge(workers=[Worker(c=2.0), Worker(c=7.0)])]
    found = {(s_e, s_w): set(iteration_times(System(edges), 2, s_e, s_w, draws=2).tolist()) for s_e in (0, 1) for s_w in (0, 1)}
    assert found == {(0, 0): {14.0}, (0, 1): {4.0}, (1, 0): {7.5}, (1, 1): {3.0}}


def test_random_numbers_are_common() -> None:
    times = {key: iteration_times(MIXED, *key, draws=500) for key in [(2, 0, 0), (4, 0, 0), (4, 1, 0), (4, 1, 1)]}
    assert np.all(times[2, 0, 0] < times[4, 0, 0])
    assert np.all(times[4, 1, 0] <= times[4, 0, 0])
    assert np.all(times[4, 1, 1] <= times[4, 1, 0])
    assert not np.array_equal(times[4, 0, 0], iteration_times(MIXED, 4, 0, 0, draws=500, seed=1))


def test_measured_times_are_drawn_by_the_numbers_that_the_fit_would_use() -> None:
    fitted, measured = Worker(c=0.0, gamma=1.0), Worker(c=0.0, gamma=1.0, measured=[5.0, 1.0, 2.0, 3.0])
    by_fit = iteration_times(System([Edge(workers=[fitted])]), 1, 0, 0, draws=4000)
    times = iteration_times(System([Edge(workers=[measured])]), 2, 0, 0, draws=4000)
    assert set(times) == {2.0, 4.0, 6.0, 10.0}
    # The same quantile: the longest quarter are those with which the exponential is above ln 4.
    assert np.array_equal(times == 10.0, by_fit > math.log(4))
    assert np.array_equal(times == 2.0, by_fit < math.log(4 / 3))


def test_measuring_one_worker_leaves_the_others_draws() -> None:
    plain = Worker(c=0.02, gamma=50.0, tau=0.01, p=0.3)
    measured = Worker(c=0.0, measured=[0.0], tau=0.01, p=0.3)
    (before,) = samples(System([Edge(workers=[plain, plain, plain])]), 50, seed=3)
    (after,) = samples(System([Edge(workers=[plain, measured, plain])]), 50, seed=3)
    assert np.array_equal(before.part[..., [0, 2]], after.part[..., [0, 2]])
    assert np.all(after.part[..., 1] == 0.0)
    for way in ("down", "up", "edge_down", "edge_up"):
        assert np.array_equal(getattr(before, way), getattr(after, way))


def test_many_measured_times_are_as_good_as_the_distribution_that_they_are_of() -> None:
    quantiles = -np.log1p(-(np.arange(2000) + 0.5) / 2000) / 60
    fitted = System([Edge(workers=[Worker(c=0.02, gamma=60.0)] * 4)] * 2)
    measured = System([Edge(workers=[Worker(c=1.0, measured=(0.02 + quantiles).tolist())] * 4)] * 2)
    one, other = (iteration_times(system, 3, 1, 1, draws=2000) for system in (fitted, measured))
    assert np.abs(one - other).max() < 1e-3


def test_more_draws_go_on_where_fewer_end_across_blocks() -> None:
    system = System([Edge(tau=0.01, p=0.5, workers=[Worker(c=0.01, gamma=50.0)] * 100)] * 20)
    assert len(list(samples(system, 150, seed=0))) > 1
    assert np.array_equal(iteration_times(system, 3, 2, 10, draws=150)[:40], iteration_times(system, 3, 2, 10, draws=40))


@pytest.mark.parametrize(
    ("load", "s_e", "s_w", "options", "words"),
    [
        (0, 0, 0, {}, "load = 0"),
        (2, 3, 0, {}, "edge_stragglers = 3: expected 0 to 2"),
        (2, 0, 2, {}, "worker_stragglers = 2: expected 0 to 1"),
        (2, 0, 0, {"draws": 1}, "draws = 1: expected a whole number, 2 or more"),
        (2, 0, 0, {"seed": -1}, "seed = -1"),
    ],
)
def test_bad_input(load: int, s_e: int, s_w: int, options: dict[str, int], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        iteration_times(MIXED, load, s_e, s_w, **options)
