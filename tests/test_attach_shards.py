"""A parameter server in several shards, on the in-process twin: the same as one server, part by part."""

from __future__ import annotations

import logging
import math

import numpy as np
import pytest
import torch
from torch import nn

from consensus.errors import ConfigError
from consensus.protocol.service import PushMode
from consensus.serving import ServerHandle
from consensus.transport.base import Transport
from consensus.transport.loopback import run
from tests.served_worlds import EVERY_RULE_AND_PUSH, EVERY_SERVER_RULE, Served, attached
from tests.worlds import Point, numbers, slowed

SIZE = 40  # five chunks of 64 bytes


def momentum(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.5)


def one_step(handle: Served, target: torch.Tensor, corrupt: int | None = None) -> None:
    handle.optimizer.zero_grad()
    loss = handle.model(target)
    loss.backward()
    if corrupt is not None:
        next(handle.model.parameters()).grad[corrupt] = math.nan  # type: ignore[index]
    handle.report_loss(loss.item())
    handle.optimizer.step()


@pytest.mark.parametrize("servers", [2, 3])
@pytest.mark.parametrize("push", ["wait", "interrupt", "pull"])
def test_bsp_is_one_process_with_the_averaged_gradient(push: PushMode, servers: int) -> None:
    def train(transport: Transport) -> list[np.ndarray]:
        model, seen = Point(SIZE), []
        with attached(slowed(transport, 2), model, "bsp", momentum(model), push=push, servers=servers) as handle:
            for _ in range(12 * handle.works):
                one_step(handle, numbers(transport.rank, SIZE))
                seen.append(model.w.detach().numpy().copy())
            handle.average()
        return [*seen, model.w.detach().numpy().copy()]

    results = run(servers + 3, train, seed=servers)
    mean = np.mean([numbers(rank, SIZE).numpy() for rank in range(servers, servers + 3)], axis=0)
    w, velocity, expected = np.zeros(SIZE), np.zeros(SIZE), []
    for _ in range(12):
        velocity = 0.5 * velocity + (w - mean)
        w = w - 0.1 * velocity
        expected.append(w)
    for seen in results[servers:]:
        np.testing.assert_allclose(seen[:-1], expected, rtol=1e-11, atol=1e-13)
    for seen in results:
        np.testing.assert_array_equal(seen[-1], results[servers][-2])


@pytest.mark.parametrize(("rule", "push"), EVERY_RULE_AND_PUSH)
@pytest.mark.parametrize("seed", range(4))
def test_every_rule_with_early_leavers(rule: str, push: PushMode, seed: int) -> None:
    def train(transport: Transport) -> tuple[list[float], int]:
        model = Point(SIZE)
        with attached(slowed(transport, 5), model, EVERY_SERVER_RULE[rule], momentum(model), push=push, servers=2) as handle:
            for _ in range((5 if transport.rank == 3 else 40) * handle.works):
                one_step(handle, numbers(9, SIZE))
            handle.average()
        return model.w.tolist(), handle.statistics.rounds

    results = run(5, train, seed=seed)
    assert np.allclose(results[0][0], numbers(9, SIZE), atol=0.1)
    assert [end for end, _ in results] == [results[0][0]] * 5
    assert [rounds for _, rounds in results[2:]] == [40, 5, 40]
    assert results[0][1] == results[1][1] > 0


@pytest.mark.parametrize("place", [0, SIZE - 1])
def test_a_gradient_that_is_not_finite_in_one_share_is_rejected_by_all(place: int, caplog: pytest.LogCaptureFixture) -> None:
    def train(transport: Transport) -> tuple[bool, int]:
        model = Point(SIZE)
        with attached(slowed(transport, 5), model, "bsp", momentum(model), servers=2) as handle:
            for step in range(10 * handle.works):
                one_step(handle, numbers(9, SIZE), place if (transport.rank, step) == (2, 4) else None)
        own = handle.decides if isinstance(handle, ServerHandle) else None
        return bool(torch.isfinite(model.w).all()), own.rejected.total() if own is not None else 0

    with caplog.at_level(logging.WARNING, logger="consensus"):
        results = run(4, train)
    assert all(finite for finite, _ in results)
    assert [rejected for _, rejected in results] == [1, 0, 0, 0]
    assert "rank 2's step 5" in caplog.text


def test_the_shares_are_put_together_before_another_session() -> None:
    def train(transport: Transport) -> list[float]:
        model = Point(SIZE)
        optimizer = momentum(model)
        with attached(transport, model, "bsp", optimizer, servers=2) as handle:
            for _ in range(handle.works):
                one_step(handle, numbers(9, SIZE))
        with pytest.raises(ConfigError, match=r"served by several ranks, .* call handle\.average\(\) at all ranks before"):
            attached(transport, model, "bsp", optimizer, servers=2)
        handle.average()
        with attached(transport, model, "bsp", optimizer, servers=2) as handle:
            for _ in range(handle.works):
                one_step(handle, numbers(9, SIZE))
            handle.average()
        return model.w.tolist()

    first, *others = run(4, train)
    assert others == [first] * 3


def test_what_cannot_be_shared_out() -> None:
    def whole(transport: Transport) -> None:
        model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
        with pytest.raises(ConfigError, match=r'servers = 2: averaged buffers .*; use servers=1 \(or buffers="local"'):
            attached(transport, model, "bsp", momentum(model), servers=2)

    run(4, whole)

    def too_small(transport: Transport) -> None:
        model = Point(3)
        with pytest.raises(ConfigError, match=r"servers = 2: the model has 64 bytes, .* use at most 1 servers"):
            attached(transport, model, "bsp", momentum(model), servers=2)

    run(3, too_small)

    def nobody_works(transport: Transport) -> None:
        model = Point(SIZE)
        with pytest.raises(ConfigError, match=r"servers = 3 with 3 ranks: expected one or more that serve and one or more"):
            attached(transport, model, "bsp", momentum(model), servers=3)

    run(3, nobody_works)
