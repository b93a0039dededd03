"""The selection: equal to brute force in the surrogate, and to the best of independent simulations when refined."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import combinations, product
from typing import Any

import numpy as np
import pytest

from consensus.coding import HierarchicalCode
from consensus.coding.load import least_load
from consensus.coding.runtime import iteration_times
from consensus.coding.selection import Model, select, surrogate_times
from consensus.coding.succession import Push, update_seconds
from consensus.coding.system import Edge, System, Worker
from consensus.errors import ConfigError


def random_system(generator: np.random.Generator, workers_per_edge: tuple[int, ...]) -> System:
    def worker() -> Worker:
        slowdown = generator.choice([1.0, 10.0], p=[0.8, 0.2])
        return Worker(
            c=0.02 * slowdown,
            gamma=generator.uniform(20, 200) / slowdown,
            tau=generator.uniform(0, 0.05),
            p=generator.uniform(0, 0.5),
        )

    return System(
        [
            Edge(tau=generator.choice([0.01, 0.2]), p=generator.uniform(0, 0.5), workers=[worker() for _ in range(count)])
            for count in workers_per_edge
        ]
    )


def all_choices(system: System, parts: int) -> Iterator[tuple[float, tuple[int, int], tuple[tuple[int, ...], ...]]]:
    """Time, tolerance and kept nodes of every set of nodes that a tolerance may keep."""
    workers = system.workers_per_edge
    for s_e, s_w in product(range(len(workers)), range(min(workers))):
        load = least_load(workers, parts, s_e, s_w)
        for edges in combinations(range(len(workers)), len(workers) - s_e):
            for kept in product(*(combinations(range(workers[i]), workers[i] - s_w) for i in edges)):
                time = max(
                    system.edges[i].mean_transfers + max(system.edges[i].workers[j].mean(load) for j in js)
                    for i, js in zip(edges, kept, strict=True)
                )
                by_edge = dict(zip(edges, kept, strict=True))
                yield time, (s_e, s_w), tuple(by_edge.get(i, ()) for i in range(len(workers)))


@pytest.mark.parametrize("number", range(30))
def test_the_surrogates_choice_is_brute_forces(number: int) -> None:
    generator = np.random.default_rng((17, number))
    counts = tuple(generator.integers(1, 5, size=generator.integers(1, 4)).tolist())
    system, parts = random_system(generator, counts), int(generator.integers(1, 40))
    best = min(time for time, _, _ in all_choices(system, parts))
    choice = select(system, parts, refine=False)
    assert choice.expected == choice.surrogate == pytest.approx(best, rel=1e-12)
    tolerance = (choice.edge_stragglers, choice.worker_stragglers)
    same = {kept: time for time, other, kept in all_choices(system, parts) if other == tolerance}
    assert same[choice.kept] == pytest.approx(best, rel=1e-12)
    assert choice.load == least_load(counts, parts, *tolerance)


@pytest.mark.parametrize("counts", [(6, 8, 9, 11), (3, 3, 12), (5,), (2, 2, 2, 2, 2, 2)])
def test_the_choice_by_counts_is_within_a_percent_of_the_simulated_best(counts: tuple[int, ...]) -> None:
    system, parts = random_system(np.random.default_rng((5, *counts)), counts), 3 * sum(counts)
    choice = select(system, parts, model="counts")
    simulated = {
        (s_e, s_w): iteration_times(system, least_load(counts, parts, s_e, s_w), s_e, s_w, draws=6_000, seed=99).mean()
        for s_e, s_w in product(range(len(counts)), range(min(counts)))
    }
    chosen = simulated[choice.edge_stragglers, choice.worker_stragglers]
    assert chosen <= 1.01 * min(simulated.values())
    assert choice.expected == pytest.approx(chosen, abs=4 * choice.standard_error * math.sqrt(1 + 2 / 3))
    assert choice.times.keys() == simulated.keys()
    assert min(choice.times.values()) == choice.expected


@pytest.mark.parametrize("push", ["wait", "interrupt"])
@pytest.mark.parametrize("counts", [(2, 3, 4), (3, 3, 9), (5,), (2, 2, 2, 2)])
def test_the_choice_by_codes_is_within_a_percent_of_the_simulated_best(counts: tuple[int, ...], push: Push) -> None:
    system, parts = random_system(np.random.default_rng((5, *counts)), counts), 2 * sum(counts)
    choice = select(system, parts, push=push)
    simulated = {
        (s_e, s_w): update_seconds(system, HierarchicalCode(counts, parts, s_e, s_w), push, draws=12_000, seed=99)
        for s_e, s_w in product(range(len(counts)), range(min(counts)))
    }
    chosen = simulated[choice.edge_stragglers, choice.worker_stragglers]
    assert chosen.mean() <= 1.01 * min(times.mean() for times in simulated.values())
    error = math.hypot(choice.standard_error, chosen.std() / math.sqrt(len(chosen)))
    assert choice.expected == pytest.approx(chosen.mean(), abs=4 * error)
    assert choice.times.keys() == simulated.keys()
    assert min(choice.times.values()) == choice.expected


@pytest.mark.parametrize("model", ["counts", "codes"])
def test_refinement_sees_the_worth_of_redundancy_that_the_surrogate_does_not(model: Model) -> None:
    # All alike in the mean, so the surrogate waits for all; but by chance somebody is always late.
    system = System([Edge(workers=[Worker(c=0.001, gamma=1.0)] * 6)] * 3)
    plain, refined = select(system, 18, refine=False), select(system, 18, model=model, push="interrupt")
    assert (plain.edge_stragglers, plain.worker_stragglers) == (0, 0)
    assert refined.worker_stragglers > 0
    assert refined.expected < 0.9 * refined.times[0, 0]
    assert refined.surrogate > plain.surrogate


def test_codes_are_quicker_than_counts_say_where_one_of_a_group_will_do() -> None:
    quantiles = [0.01] * 4 + [0.1]  # a fifth of all steps, whoever makes them
    system = System([Edge(workers=[Worker(c=0.0, measured=quantiles, gamma=36.0)] * 9)] * 2)
    by_counts, by_codes = select(system, 18, model="counts"), select(system, 18, push="interrupt")
    assert by_codes.times[0, 2] < 0.7 * by_counts.times[0, 2]
    assert by_codes.times[0, 0] == pytest.approx(by_counts.times[0, 0], rel=0.02)
    assert by_codes.worker_stragglers < by_counts.worker_stragglers


def test_one_part_for_each_worker_is_the_default() -> None:
    system = random_system(np.random.default_rng(3), (3, 4))
    assert select(system, draws=50) == select(system, 7, draws=50)


def test_slow_nodes_are_not_kept() -> None:
    quick, slow = Worker(c=0.01), Worker(c=10.0)
    system = System([Edge(workers=[quick, slow, quick]), Edge(tau=50.0, workers=[quick] * 3), Edge(workers=[slow, quick, quick])])
    choice = select(system, 9)
    assert (choice.edge_stragglers, choice.worker_stragglers) == (1, 1)
    assert choice.kept == ((0, 2), (), (1, 2))


def test_the_same_seed_selects_the_same() -> None:
    system = random_system(np.random.default_rng(3), (3, 4))
    assert select(system, 14, draws=50, seed=4) == select(system, 14, draws=50, seed=4)
    assert select(system, 14, draws=50, seed=4).times != select(system, 14, draws=50, seed=5).times


def test_nothing_simulated_has_no_error_of_simulation() -> None:
    system = random_system(np.random.default_rng(3), (3, 4))
    choice = select(system, 14, refine=False)
    assert math.isnan(choice.standard_error)
    assert choice.times == surrogate_times(system, 14)


@pytest.mark.parametrize(
    ("parts", "options", "words"),
    [
        (0, {}, "parts = 0"),
        (2.5, {}, "parts = 2.5"),
        (4, {"draws": 0}, "draws = 0"),
        (4, {"seed": -3}, "seed = -3"),
        (4, {"model": "paper"}, "model = 'paper': expected 'codes', what the engines do, or 'counts'"),
        (4, {"push": "pull"}, "push = 'pull': expected 'wait', or 'interrupt'"),
    ],
)
def test_bad_input(parts: int, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        select(System([Edge(workers=[Worker(c=1.0)])]), parts, **options)
