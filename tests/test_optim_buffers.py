"""BatchNorm under an attached optimizer, averaged and local, with static and active weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from consensus.optim import attach
from consensus.transport.base import Transport
from consensus.transport.loopback import run
from tests.worlds import slowed

SIZE = 4


def batch(rank: int) -> torch.Tensor:
    """64 samples of 3 features whose mean and variance depend on the rank."""
    generator = torch.Generator().manual_seed(rank)
    return torch.randn(64, 3, generator=generator, dtype=torch.float64) * (1 + rank) + 10 * rank


def train(transport: Transport, buffers: str, weights: str, rule: str = "full") -> dict[str, np.ndarray]:
    model = nn.Sequential(nn.BatchNorm1d(3, momentum=1.0, dtype=torch.float64), nn.Linear(3, 1, dtype=torch.float64))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with attach(
        model, optimizer, topology="complete", rule=rule, weights=weights, buffers=buffers, transport=slowed(transport, 1)
    ) as handle:
        for _ in range(1 + transport.rank * (rule == "dtur")):
            optimizer.zero_grad()
            model(batch(transport.rank)).square().mean().backward()
            optimizer.step()
    state = {name: tensor.numpy().copy() for name, tensor in model.state_dict().items()}
    return {**state, "backups": np.array(handle.statistics.backups)}


@pytest.mark.parametrize("weights", ["static", "active"])
def test_averaged_statistics_are_those_of_the_mixture(weights: str) -> None:
    states = run(SIZE, lambda t: train(t, "average", weights))
    means = np.array([batch(rank).mean(0).numpy() for rank in range(SIZE)])
    variances = np.array([batch(rank).var(0).numpy() for rank in range(SIZE)])
    mean = means.mean(axis=0)
    for state in states:
        np.testing.assert_allclose(state["0.running_mean"], mean, rtol=1e-12)
        np.testing.assert_allclose(state["0.running_var"], (variances + (means - mean) ** 2).mean(axis=0), rtol=1e-12)
        np.testing.assert_allclose(state["1.weight"], states[0]["1.weight"], rtol=1e-12)


@pytest.mark.parametrize("weights", ["static", "active"])
def test_local_statistics_are_the_ranks_own(weights: str) -> None:
    states = run(SIZE, lambda t: train(t, "local", weights))
    for rank, state in enumerate(states):
        np.testing.assert_allclose(state["0.running_mean"], batch(rank).mean(0), rtol=1e-12)
        np.testing.assert_allclose(state["0.running_var"], batch(rank).var(0), rtol=1e-12)
        np.testing.assert_allclose(state["1.weight"], states[0]["1.weight"], rtol=1e-12)


@pytest.mark.parametrize("buffers", ["average", "local"])
def test_counters_stay_local(buffers: str) -> None:
    states = run(SIZE, lambda t: train(t, buffers, "active", "dtur"))
    assert [int(state["0.num_batches_tracked"]) for state in states] == [1, 2, 3, 4]


def test_the_final_mean_has_the_statistics_of_the_mixture() -> None:
    def final(transport: Transport) -> tuple[np.ndarray, np.ndarray]:
        model = nn.BatchNorm1d(3, momentum=1.0, dtype=torch.float64)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
        with attach(model, optimizer, topology="ring", transport=transport) as handle:
            model(batch(transport.rank))
            handle.average()
        return model.running_mean.numpy(), model.running_var.numpy()

    means = np.array([batch(rank).mean(0).numpy() for rank in range(SIZE)])
    variances = np.array([batch(rank).var(0).numpy() for rank in range(SIZE)])
    for mean, variance in run(SIZE, final):
        np.testing.assert_allclose(mean, means.mean(axis=0), rtol=1e-12)
        np.testing.assert_allclose(variance, variances.mean(axis=0) + means.var(axis=0), rtol=1e-12)
