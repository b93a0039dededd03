"""The oracle itself, against what can be said of it by hand."""

from __future__ import annotations

import numpy as np
import pytest

from consensus.errors import ProtocolError
from consensus.protocol.rounds import RoundRecord
from consensus.sim import reference
from consensus.topology import build
from consensus.topology.weights import metropolis

MINIMA = np.arange(8.0).reshape(4, 2) ** 2
P = metropolis(build("path", 4)).toarray()


def towards_minima(X: np.ndarray) -> np.ndarray:
    return X - MINIMA


def test_one_round_by_hand() -> None:
    X, half = np.array([[0.0], [4.0]]), np.full((2, 2), 0.5)
    assert reference.adapt_combine(X, half, lambda Y: Y, 0.5).tolist() == [[1.0], [1.0]]
    assert reference.combine_adapt(X, half, lambda Y: Y - X, 0.5).tolist() == [[1.0], [3.0]]


@pytest.mark.parametrize("order", reference.STEPS)
def test_the_mean_moves_by_the_mean_gradient(order: str) -> None:
    X = np.random.default_rng(0).normal(size=(4, 2))
    still = reference.run(X, [P] * 20, lambda Y: np.zeros_like(Y), 0.3, order)
    np.testing.assert_allclose(still.mean(axis=0), X.mean(axis=0), rtol=1e-14)
    # The minima's gradients are linear, so the mean obeys gradient descent on the mean.
    moved = reference.run(X, [P] * 20, towards_minima, 0.3, order)
    expected = MINIMA.mean(axis=0) + 0.7**20 * (X.mean(axis=0) - MINIMA.mean(axis=0))
    np.testing.assert_allclose(moved.mean(axis=0), expected, rtol=1e-12)


def test_the_orders_are_one_sequence_shifted_by_half_a_round() -> None:
    X = np.random.default_rng(1).normal(size=(4, 2))
    first = X - 0.3 * towards_minima(X)
    shifted = P @ reference.run(first, [P] * 6, towards_minima, 0.3, "combine-adapt")
    np.testing.assert_allclose(reference.run(X, [P] * 7, towards_minima, 0.3), shifted, rtol=1e-13)


def records(partners: dict[int, list[int]], rounds: int) -> list[list[RoundRecord]]:
    return [
        [RoundRecord(k, 0.0, 0.0, tuple((peer, k, np.nan, 0.0) for peer in peers), (), "") for k in range(1, rounds + 1)]
        for _, peers in sorted(partners.items())
    ]


def test_replay_of_lockstep_rounds_is_run() -> None:
    graph, X = build("path", 4), np.random.default_rng(2).normal(size=(4, 2))
    histories = records({rank: sorted(graph[rank]) for rank in graph}, rounds=5)
    expected = reference.run(X, [P] * 5, towards_minima, 0.3)
    for degrees in ([1, 2, 2, 1], None):
        np.testing.assert_allclose(reference.replay(X, histories, degrees, towards_minima, 0.3), expected, rtol=1e-13)


def test_replay_takes_a_partner_of_another_round() -> None:
    # Rank 0's only round meets round 2 of rank 1, whose round 1 met nobody; rank 2 has no rounds.
    histories = [
        [RoundRecord(1, 0.0, 0.0, ((1, 2, np.nan, 0.0),), (), "")],
        [RoundRecord(1, 0.0, 0.0, (), (0,), ""), RoundRecord(2, 0.0, 0.0, ((0, 1, np.nan, 0.0),), (), "")],
        [],
    ]
    X = np.array([[8.0], [16.0], [1.0]])
    halved = reference.replay(X, histories, [1, 2, 1], lambda Y: Y, 0.5)  # steps: 8 -> 4, and 16 -> 8 -> 4
    assert halved.tolist() == [[4.0], [4.0], [1.0]]
    still = reference.replay(X, histories, [1, 2, 1], np.zeros_like, 0.5)
    np.testing.assert_allclose(still.ravel(), [8 + 8 / 3, 16 - 8 / 3, 1], rtol=1e-15)
    active = reference.replay(X, histories, None, np.zeros_like, 0.5)
    assert active.tolist() == [[12.0], [12.0], [1.0]]


def test_replay_of_incomplete_histories_is_refused() -> None:
    histories = records({0: [1], 1: [0]}, rounds=2)
    with pytest.raises(ProtocolError, match=r"ranks \[0\] wait for rounds"):
        reference.replay(np.zeros((2, 1)), [histories[0], []], [1, 1], np.zeros_like, 0.1)
