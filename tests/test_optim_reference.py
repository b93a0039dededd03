"""Attached ranks against the whole-network reference in NumPy, to rounding."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from consensus.protocol.rounds import RoundRecord
from consensus.sim import reference
from consensus.topology import build
from consensus.topology.weights import metropolis
from consensus.transport.base import Transport
from consensus.transport.loopback import run
from tests.worlds import EVERY_RULE, EVERY_RULE_AND_WEIGHTS, attached_point, descend, numbers, random_graph, slowed

ETA = 0.3


def starts(size: int) -> np.ndarray:
    return np.array([numbers(rank).numpy() for rank in range(size)])


def targets(size: int) -> np.ndarray:
    return np.array([numbers(50 + rank).numpy() for rank in range(size)])


def train(transport: Transport, steps: int, **options: Any) -> tuple[np.ndarray, list[RoundRecord]]:
    handle, records = attached_point(transport, lr=ETA, **options)
    with handle:
        descend(handle, steps, numbers(50 + transport.rank))
    return handle.model.w.detach().numpy().copy(), records


@pytest.mark.parametrize("order", reference.STEPS)
@pytest.mark.parametrize("weights", ["static", "active"])
@pytest.mark.parametrize("kind", ["ring", "star"])
def test_full_is_the_reference(order: str, weights: str, kind: str) -> None:
    # On a star degrees differ, and under full the exchanges of a round are all edges: static and active weights agree.
    results = run(4, lambda t: train(slowed(t, 3), 8, topology=kind, rule="full", order=order, weights=weights), seed=1)
    P, minima = metropolis(build(kind, 4)).toarray(), targets(4)
    expected = reference.run(starts(4), [P] * 8, lambda X: X - minima, ETA, order)
    np.testing.assert_allclose([model for model, _ in results], expected, rtol=1e-13)


@pytest.mark.parametrize("order", reference.STEPS)
def test_every_third_step(order: str) -> None:
    results = run(4, lambda t: train(t, 7, topology="ring", rule="full", order=order, every=3), seed=2)
    P, still, minima = metropolis(build("ring", 4)).toarray(), np.eye(4), targets(4)
    averages = {"adapt-combine": {2, 5}, "combine-adapt": {0, 3, 6}}[order]
    expected = reference.run(
        starts(4), [P if step in averages else still for step in range(7)], lambda X: X - minima, ETA, order
    )
    np.testing.assert_allclose([model for model, _ in results], expected, rtol=1e-13)
    assert {len(records) for _, records in results} == {len(averages)}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("rule", "weights"), EVERY_RULE_AND_WEIGHTS)
def test_every_rule_is_the_replay_of_its_records(rule: str, weights: str, seed: int) -> None:
    size, graph = 6, random_graph(6, seed)
    results = run(
        size,
        lambda t: train(slowed(t, seed), 6 + (5 * t.rank) % 7, topology=graph, rule=EVERY_RULE[rule], weights=weights),
        seed=seed,
    )
    minima = targets(size)
    degrees = [graph.degree[rank] for rank in range(size)] if weights == "static" else None
    expected = reference.replay(starts(size), [records for _, records in results], degrees, lambda X: X - minima, ETA)
    np.testing.assert_allclose([model for model, _ in results], expected, rtol=1e-12)


def test_the_gradient_is_taken_at_the_averaged_model() -> None:
    """One rank far away: after combine-adapt's first round all gradients are those at the average."""

    def look(transport: Transport) -> np.ndarray:
        handle, _ = attached_point(transport, lr=0.0, topology="complete", rule="full", order="combine-adapt")
        with handle:
            descend(handle, 1, torch.zeros(3, dtype=torch.float64))
        return handle.model.w.grad.numpy()

    np.testing.assert_allclose(run(4, look), np.tile(starts(4).mean(axis=0), (4, 1)), rtol=1e-13)
