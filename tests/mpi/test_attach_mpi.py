"""Attached optimizers on real MPI ranks. Every test gathers all ranks' results and asserts on them everywhere alike."""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from consensus.errors import ConfigError
from consensus.optim import attach
from consensus.protocol.validate import check_symmetry
from consensus.sim import reference
from consensus.topology import build
from consensus.topology.weights import metropolis
from consensus.transport.base import Transport
from tests import stress
from tests.together import together
from tests.worlds import EVERY_RULE, EVERY_RULE_AND_WEIGHTS, Point, attached_point, descend, numbers, random_graph, slowed


def starts(size: int) -> np.ndarray:
    return np.array([numbers(rank).numpy() for rank in range(size)])


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize(("rule", "weights"), EVERY_RULE_AND_WEIGHTS)
def test_the_mean_is_preserved_in_uneven_rounds(rule: str, weights: str) -> None:
    def wander(transport: Transport) -> tuple[list[float], list[Any]]:
        size = transport.size
        handle, records = attached_point(
            slowed(transport, 1, seconds=2e-4), lr=0.0, topology=random_graph(size, 5), rule=EVERY_RULE[rule], weights=weights
        )
        with handle:
            descend(handle, 5 + (7 * transport.rank) % 20, numbers(9))
        return handle.model.w.tolist(), records

    results = together(wander)
    start = starts(len(results))
    np.testing.assert_allclose(np.mean([model for model, _ in results], axis=0), start.mean(axis=0), rtol=0, atol=1e-14)
    check_symmetry((rank, records) for rank, (_, records) in enumerate(results))
    assert [len(records) for _, records in results] == [5 + (7 * rank) % 20 for rank in range(len(results))]


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("order", reference.STEPS)
def test_full_is_the_reference(order: str) -> None:
    def train(transport: Transport) -> list[float]:
        handle, _ = attached_point(transport, lr=0.3, topology="ring", rule="full", order=order, every=2)
        with handle:
            descend(handle, 12, numbers(50 + transport.rank))
        return handle.model.w.tolist()

    results = together(train)
    size = len(results)
    P, still = metropolis(build("ring", size)).toarray(), np.eye(size)
    matrices = [still, P] * 6 if order == "adapt-combine" else [P, still] * 6
    minima = np.array([numbers(50 + rank).numpy() for rank in range(size)])
    expected = reference.run(starts(size), matrices, lambda X: X - minima, 0.3, order)
    np.testing.assert_allclose(results, expected, rtol=1e-12)


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("rule", ["dtur", "pathsearch"])
def test_rules_are_the_replay_of_their_records(rule: str) -> None:
    def train(transport: Transport) -> tuple[list[float], list[Any]]:
        graph = random_graph(transport.size, 2)
        handle, records = attached_point(slowed(transport, 3, seconds=2e-4), lr=0.3, topology=graph, rule=rule)
        with handle:
            descend(handle, 10 + transport.rank, numbers(50 + transport.rank))
        return handle.model.w.tolist(), records

    results = together(train)
    size = len(results)
    graph = random_graph(size, 2)
    minima = np.array([numbers(50 + rank).numpy() for rank in range(size)])
    expected = reference.replay(
        starts(size), [records for _, records in results], [graph.degree[rank] for rank in range(size)], lambda X: X - minima, 0.3
    )
    np.testing.assert_allclose([model for model, _ in results], expected, rtol=1e-11)


@pytest.mark.mpi(min_size=2)
def test_the_two_lines_start_alike_and_end_alike() -> None:
    """As in a script: no transport given."""
    torch.manual_seed(int(np.random.SeedSequence().entropy % 2**31))
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3))
    optimizer = torch.optim.Adam(model.parameters())
    with attach(model, optimizer, topology="ring") as handle:
        start = {name: tensor.tolist() for name, tensor in model.state_dict().items()}
        for _ in range(5):
            optimizer.zero_grad()
            model(torch.randn(8, 4)).square().sum().backward()
            optimizer.step()
        handle.average()
    end = {name: tensor.tolist() for name, tensor in model.state_dict().items()}
    everybody = handle.transport.gather((start, end, handle.statistics.rounds))
    assert [start for start, _, _ in everybody] == [everybody[0][0]] * handle.size
    assert [end for _, end, _ in everybody] == [everybody[0][1]] * handle.size
    assert [rounds for _, _, rounds in everybody] == [5] * handle.size
    assert everybody[0][0] != everybody[0][1]


@pytest.mark.mpi(min_size=2)
def test_arguments_that_differ_are_refused_by_all() -> None:
    def attempt(transport: Transport) -> str:
        model = Point()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        with pytest.raises(ConfigError) as refused:
            attach(model, optimizer, topology="ring", every=1 + (transport.rank == 1), transport=transport)
        return str(refused.value)

    messages = together(attempt)
    assert messages == ["every differs between ranks: rank 0 has 1, rank 1 has 2; " + messages[0].split("; ")[1]] * len(messages)


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("rule", ["dtur", "full"])
def test_averages_at_different_rounds_and_training_goes_on(rule: str) -> None:
    def train(transport: Transport) -> tuple[list[float], list[float], list[float], int]:
        handle, _ = attached_point(slowed(transport, 1, seconds=2e-4), lr=0.1, topology="star", rule=rule)
        with handle:
            descend(handle, 2 + 3 * transport.rank, numbers(transport.rank))
            before = handle.model.w.tolist()
            with handle.averaged() as model:
                mean = model.w.tolist()
            after = handle.model.w.tolist()
            descend(handle, 30 - 3 * transport.rank, numbers(transport.rank))
        return before, mean, after, handle.statistics.rounds

    results = together(train)
    for before, mean, after, rounds in results:
        np.testing.assert_allclose(mean, np.mean([model for model, *_ in results], axis=0), rtol=1e-12)
        assert before == after
        assert rounds == 32


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("rule", EVERY_RULE)
def test_the_others_go_on_without_a_rank_that_raised(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    exits: list[Callable[[], None]] = []
    monkeypatch.setattr(atexit, "register", exits.append)

    def train(transport: Transport) -> int:
        handle, _ = attached_point(slowed(transport, 4, seconds=2e-4), lr=0.1, topology="ring", rule=EVERY_RULE[rule])
        try:
            with handle:
                descend(handle, 4, numbers(0))
                if transport.rank == 1:
                    raise ArithmeticError
                descend(handle, 60, numbers(0))
        except ArithmeticError:
            for goodbye in exits:
                goodbye()
        return handle.statistics.rounds

    results = together(train)
    assert results == [4 if rank == 1 else 64 for rank in range(len(results))]


@pytest.mark.mpi(min_size=2)
def test_allreduce_keeps_all_models_equal() -> None:
    def train(transport: Transport) -> list[float]:
        model = Point()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
        handle = attach(model, optimizer, topology="ring", rule="allreduce", transport=slowed(transport, 1, seconds=1e-4))
        with handle:
            descend(handle, 30, numbers(transport.rank))
        return model.w.tolist()

    results = together(train)
    assert results == [results[0]] * len(results)
    np.testing.assert_allclose(results[0], starts(len(results)).mean(axis=0), rtol=1e-8)


STATM = Path("/proc/self/statm")


def resident_bytes() -> int:
    return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.mpi(min_size=4)
@pytest.mark.skipif(not STATM.exists(), reason=f"resident memory is read from {STATM}, which is not there")
@pytest.mark.parametrize("rule", ["full", "dtur"])
def test_memory_does_not_grow_with_rounds(rule: str) -> None:
    def train(transport: Transport) -> int:
        if transport.size > 4:
            return 0  # said already by the batch on 4 ranks, in a fraction of the time
        handle, _ = attached_point(transport, lr=0.01, topology="complete", rule=rule)
        handle.on_round = None
        with handle:
            descend(handle, 500, numbers(transport.rank))
            early = resident_bytes()
            descend(handle, 1500, numbers(transport.rank))
            return resident_bytes() - early

    growth = together(train)
    # Every round has a dozen messages and events; one of them kept, of about 100 bytes each, would make 1.8 MB.
    assert max(growth) < 1 << 20, growth


@pytest.mark.mpi(min_size=4)
@pytest.mark.parametrize("seed", range(1000, 1012))
def test_a_few_stress_runs(seed: int) -> None:
    problems = together(lambda transport: stress.one_run(transport, stress.draw(seed, transport.size)))
    assert problems == [""] * len(problems)
