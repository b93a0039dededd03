"""A parameter server on real MPI ranks. Every test gathers all ranks' results and asserts on them everywhere alike."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from consensus.optim import attach
from consensus.protocol.service import PushMode
from consensus.serving import ServerHandle
from consensus.transport.base import Transport
from tests.served_worlds import EVERY_SERVER_RULE, Served, attached, modes
from tests.together import together
from tests.worlds import Point, numbers, slowed

# Each rule as it is by default, and what is different about the other ways.
every_rule = pytest.mark.parametrize(
    ("rule", "push"),
    [*((rule, modes(rule)[0]) for rule in EVERY_SERVER_RULE), ("bsp", "interrupt"), ("backup", "interrupt"), ("dbw", "pull")],
)


def momentum(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.5)


def one_step(handle: Served, target: torch.Tensor, corrupt: bool = False) -> None:
    handle.optimizer.zero_grad()
    loss = handle.model(target)
    loss.backward()
    if corrupt:
        next(handle.model.parameters()).grad[0] = math.nan  # type: ignore[index]
    handle.report_loss(loss.item())
    handle.optimizer.step()


@pytest.mark.mpi(min_size=3)
@pytest.mark.parametrize("push", ["wait", "interrupt", "pull"])
@pytest.mark.parametrize("size", [3, 200_000])
def test_bsp_is_one_process_with_the_averaged_gradient(push: PushMode, size: int) -> None:
    """Models of one chunk and of several, which MPI sends in different ways."""
    steps = 8

    def train(transport: Transport) -> list[np.ndarray]:
        model, seen = Point(size), []
        with attached(slowed(transport, 2, seconds=2e-4), model, "bsp", momentum(model), push=push) as handle:
            for _ in range(steps * handle.works):
                one_step(handle, numbers(transport.rank, size))
                seen.append(model.w.detach().numpy()[:: max(1, size // 50)].copy())
        return seen or [model.w.detach().numpy()[:: max(1, size // 50)].copy()]

    results = together(train)
    mean = np.mean([numbers(rank, size).numpy() for rank in range(1, len(results))], axis=0)[:: max(1, size // 50)]
    w, velocity, expected = np.zeros_like(mean), np.zeros_like(mean), []
    for _ in range(steps):
        velocity = 0.5 * velocity + (w - mean)
        w = w - 0.1 * velocity
        expected.append(w)
    for seen in results[1:]:
        np.testing.assert_allclose(seen, expected, rtol=1e-10, atol=1e-13)
    np.testing.assert_array_equal(results[0][0], results[1][-1])


@pytest.mark.mpi(min_size=3)
@every_rule
def test_every_rule_trains_and_all_end_with_the_servers_model(rule: str, push: PushMode) -> None:
    def train(transport: Transport) -> tuple[list[float], list[float], int]:
        # More than MPI sends before it is asked to.
        model = Point(20_000)
        with attached(slowed(transport, 1, seconds=2e-4), model, EVERY_SERVER_RULE[rule], momentum(model), push=push) as handle:
            for _ in range((30 + 5 * transport.rank) * handle.works):
                one_step(handle, numbers(9, 20_000))
            before = model.w[::1000].tolist()
            handle.average()
        return before, model.w[::1000].tolist(), handle.statistics.rounds

    results = together(train)
    server = results[0][0]
    assert np.allclose(server, numbers(9, 20_000)[::1000], atol=0.1)
    assert [end for _, end, _ in results] == [server] * len(results)
    assert [rounds for *_, rounds in results[1:]] == [30 + 5 * rank for rank in range(1, len(results))]


@pytest.mark.mpi(min_size=3)
@every_rule
def test_one_leaves_midway_and_one_errs_once(rule: str, push: PushMode) -> None:
    def train(transport: Transport) -> tuple[int, bool, int]:
        model = Point()
        with attached(slowed(transport, 4, seconds=2e-4), model, EVERY_SERVER_RULE[rule], momentum(model), push=push) as handle:
            for step in range((5 if transport.rank == 1 else 25) * handle.works):
                one_step(handle, numbers(transport.rank), corrupt=(transport.rank, step) == (2, 7))
        rejected = handle.engine.rejected.total() if isinstance(handle, ServerHandle) else 0
        return handle.statistics.rounds, bool(torch.isfinite(model.w).all()), rejected

    results = together(train)
    assert [rounds for rounds, *_ in results[1:]] == [5] + [25] * (len(results) - 2)
    assert all(finite for _, finite, _ in results)
    # An interrupted batch is dropped, whatever came of it.
    assert results[0][2] in ([0, 1] if push == "interrupt" else [1])


@pytest.mark.mpi(min_size=4)
@every_rule
def test_two_shards(rule: str, push: PushMode) -> None:
    from mpi4py import MPI

    if MPI.COMM_WORLD.size > 4:
        pytest.skip("on four ranks: more workers bring nothing new")

    def train(transport: Transport) -> list[float]:
        model, slow = Point(20_000), slowed(transport, 1, seconds=2e-4)
        with attached(slow, model, EVERY_SERVER_RULE[rule], momentum(model), push=push, servers=2) as handle:
            for _ in range((30 + 5 * transport.rank) * handle.works):
                one_step(handle, numbers(9, 20_000))
            handle.average()
        return list(model.w[::1000].tolist())

    results = together(train)
    assert np.allclose(results[0], numbers(9, 20_000)[::1000], atol=0.1)
    assert results == [results[0]] * len(results)


@pytest.mark.mpi(min_size=3)
def test_the_two_lines() -> None:
    """As in a script: no transport given, a function of each process's own for the learning rate."""
    torch.manual_seed(int(np.random.SeedSequence().entropy % 2**31))
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    optimizer = torch.optim.Adam(model.parameters())
    with attach(model, optimizer, architecture="server", learning_rate=lambda k, n: (k / n) ** 0.5) as handle:
        assert isinstance(handle, Served)
        start = {name: tensor.tolist() for name, tensor in model.state_dict().items()}
        for _ in range(10 * handle.works):
            optimizer.zero_grad()
            loss = model(torch.randn(8, 4)).square().sum()
            loss.backward()
            handle.report_loss(loss.item())
            optimizer.step()
        handle.average()
    weights = [parameter.tolist() for parameter in model.parameters()]
    everybody = handle.transport.gather((start["0.weight"], weights, handle.statistics.rounds))
    assert [end for _, end, _ in everybody] == [weights] * handle.size
    assert [rounds for *_, rounds in everybody[1:]] == [10] * (handle.size - 1)
