"""With learning rate 0, averaging changes no mean; and whatever the rule, uneven rounds end."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from consensus.protocol.validate import check_symmetry
from consensus.transport.base import Transport
from consensus.transport.loopback import run
from tests.worlds import EVERY_RULE, EVERY_RULE_AND_WEIGHTS, attached_point, descend, numbers, random_graph, slowed

SIZE = 6


def wander(
    transport: Transport, seed: int, rule: str, weights: str, dtype: torch.dtype = torch.float64, order: str = "adapt-combine"
) -> tuple[np.ndarray, list[Any]]:
    """Average for an uneven number of rounds on a random graph."""
    slow = slowed(transport, seed)
    handle, records = attached_point(
        slow, lr=0.0, dtype=dtype, topology=random_graph(SIZE, seed), rule=EVERY_RULE[rule], weights=weights, order=order
    )
    with handle:
        descend(handle, 5 + (7 * transport.rank + 3 * seed) % 16, numbers(9).to(dtype))
    return handle.model.w.detach().double().numpy().copy(), records


@pytest.mark.parametrize(("rule", "weights"), EVERY_RULE_AND_WEIGHTS)
@pytest.mark.parametrize("seed", range(4))
def test_the_mean_is_preserved_and_nobody_hangs(rule: str, weights: str, seed: int) -> None:
    # Messages as slow as steps, so that all kinds of them cross.
    results = run(SIZE, lambda transport: wander(transport, seed, rule, weights), seed=seed, latency=(1e-5, 4e-3))
    start = np.array([numbers(rank).numpy() for rank in range(SIZE)])
    end = np.array([model for model, _ in results])
    np.testing.assert_allclose(end.mean(axis=0), start.mean(axis=0), rtol=0, atol=1e-14)
    exchanges = check_symmetry((rank, records) for rank, (_, records) in enumerate(results))
    if rule != "run_free":  # which may find nobody open
        assert exchanges > 0
        assert end.std(axis=0).sum() < start.std(axis=0).sum()
    assert [len(records) for _, records in results] == [5 + (7 * rank + 3 * seed) % 16 for rank in range(SIZE)]


@pytest.mark.parametrize("rule", ["full", "dtur"])
def test_the_mean_is_preserved_to_the_precision_of_the_dtype(rule: str) -> None:
    start = np.array([numbers(rank).numpy() for rank in range(SIZE)])
    for dtype, tolerance in ((torch.float32, 1e-6), (torch.bfloat16, 5e-2)):
        results = run(SIZE, lambda transport, dtype=dtype: wander(transport, 1, rule, "static", dtype))
        end = np.array([model for model, _ in results])
        np.testing.assert_allclose(end.mean(axis=0), start.mean(axis=0), rtol=0, atol=tolerance)


@pytest.mark.parametrize("rule", EVERY_RULE)
def test_combine_adapt_preserves_the_mean(rule: str) -> None:
    results = run(SIZE, lambda transport: wander(transport, 2, rule, "static", order="combine-adapt"), seed=5)
    start = np.array([numbers(rank).numpy() for rank in range(SIZE)])
    end = np.array([model for model, _ in results])
    np.testing.assert_allclose(end.mean(axis=0), start.mean(axis=0), rtol=0, atol=1e-14)


@pytest.mark.parametrize("rule", EVERY_RULE)
def test_many_seeds_end(rule: str) -> None:
    """The latencies are as long as the steps here, so that messages of all kinds meet."""
    for seed in range(20):
        run(5, lambda transport, seed=seed: wander_briefly(transport, seed, rule), seed=seed, latency=(1e-5, 2e-3))


def wander_briefly(transport: Transport, seed: int, rule: str) -> None:
    graph = random_graph(5, seed)
    handle, _ = attached_point(slowed(transport, seed), lr=0.0, topology=graph, rule=EVERY_RULE[rule])
    with handle:
        descend(handle, (5 * transport.rank + seed) % 9, numbers(0))
