"""The all-reduce baseline: all ranks together are one large batch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from consensus.allreduce import AllReduceHandle
from consensus.driver import RoundTimes
from consensus.errors import ConfigError
from consensus.optim import attach
from consensus.transport.base import Transport
from consensus.transport.loopback import run
from tests.worlds import Point, closure_of, numbers, slowed

SIZE, BATCH = 4, 8


def network(seed: int) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 2)).double()


def data(step: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(step)
    return torch.randn(SIZE * BATCH, 5, generator=generator, dtype=torch.float64), torch.randint(
        2, (SIZE * BATCH,), generator=generator
    )


def learn(model: nn.Module, optimizer: torch.optim.Optimizer, rows: slice, steps: int) -> list[np.ndarray]:
    for step in range(steps):
        inputs, labels = data(step)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs[rows]), labels[rows]).backward()
        optimizer.step()
    return [parameter.detach().numpy().copy() for parameter in model.parameters()]


def reduce(transport: Transport, model: nn.Module, optimizer: torch.optim.Optimizer) -> AllReduceHandle:
    handle = attach(model, optimizer, topology="ring", rule="allreduce", transport=transport)
    assert isinstance(handle, AllReduceHandle)
    return handle


@pytest.mark.parametrize("make", [lambda p: torch.optim.SGD(p, 0.5, momentum=0.9), lambda p: torch.optim.Adam(p, 0.01)])
@pytest.mark.parametrize("straggling", [False, True])
def test_it_is_sgd_on_the_large_batch(make: Any, straggling: bool) -> None:
    def train(transport: Transport) -> list[np.ndarray]:
        model = network(transport.rank)  # all start from rank 0's
        optimizer = make(model.parameters())
        rows = slice(transport.rank * BATCH, (transport.rank + 1) * BATCH)
        with reduce(slowed(transport, 1) if straggling else transport, model, optimizer) as handle:
            result = learn(model, optimizer, rows, 10)
        assert handle.statistics.rounds == 10
        return result

    alone = network(0)
    expected = learn(alone, make(alone.parameters()), slice(None), 10)
    for parameters in run(SIZE, train):
        for own, large in zip(parameters, expected, strict=True):
            np.testing.assert_allclose(own, large, rtol=1e-9, atol=1e-12)


def test_everybody_waits_for_the_slowest() -> None:
    def train(transport: Transport) -> tuple[float, list[RoundTimes]]:
        model = Point()
        times: list[RoundTimes] = []
        slow = slowed(transport, 5, seconds=1.0, probability=float(transport.rank == 2), factor=10)
        with reduce(slow, model, torch.optim.SGD(model.parameters(), lr=0.1)) as handle:
            handle.on_round = lambda record, t: times.append(t)
            for _ in range(3):
                model(numbers(0)).backward()
                handle.optimizer.step()
        return transport.now(), times

    for rank, (now, times) in enumerate(run(SIZE, train)):
        assert now == pytest.approx(30.0)
        assert [t.compute for t in times] == pytest.approx([10.0 if rank == 2 else 1.0] * 3)
        assert [t.wait for t in times] == pytest.approx([0.0 if rank == 2 else 9.0] * 3)


def test_missing_gradients_count_as_zero() -> None:
    def train(transport: Transport) -> tuple[list[float], list[float]]:
        model = nn.ParameterDict({"a": torch.zeros(2), "b": torch.zeros(2), "c": torch.zeros(2)}).double()
        optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
        with reduce(transport, model, optimizer):
            (model["a"].sum() * (transport.rank + 1)).backward()
            if transport.rank == 3:
                (model["b"].sum() * 8).backward()
            optimizer.step()
        assert model["c"].grad.tolist() == [0, 0]
        return model["a"].tolist(), model["b"].tolist()

    assert run(SIZE, train) == [([-2.5, -2.5], [-2.0, -2.0])] * SIZE


def test_dtypes_and_complex_numbers() -> None:
    def train(transport: Transport) -> list[list[complex]]:
        model = nn.Module()
        model.narrow = nn.Parameter(torch.zeros(2, dtype=torch.bfloat16))
        model.wave = nn.Parameter(torch.zeros(2, dtype=torch.complex64))
        optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
        with reduce(transport, model, optimizer):
            model.narrow.grad = torch.full((2,), float(transport.rank), dtype=torch.bfloat16)
            if transport.rank:
                model.wave.grad = torch.full((2,), complex(1, transport.rank))
            optimizer.step()
        return [model.narrow.tolist(), model.wave.tolist()]

    assert run(SIZE, train) == [[[-1.5, -1.5], [-0.75 - 1.5j] * 2]] * SIZE


def test_one_vote_stops_all_after_the_same_step() -> None:
    def train(transport: Transport) -> tuple[int, list[float]]:
        model = Point()
        with reduce(slowed(transport, 2), model, torch.optim.SGD(model.parameters(), lr=0.1)) as handle:
            while not handle.stop_agreed:
                handle.optimizer.zero_grad()
                model(numbers(transport.rank)).backward()
                if transport.rank == 1 and handle.statistics.rounds == 6:
                    handle.vote_to_stop()
                handle.optimizer.step()
        return handle.statistics.rounds, model.w.tolist()

    results = run(SIZE, train)
    assert results == [(7, results[0][1])] * SIZE


def test_averages_change_nothing_but_buffers() -> None:
    def train(transport: Transport) -> tuple[list[float], list[float]]:
        model = nn.BatchNorm1d(2, momentum=1.0, affine=True).double()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        with reduce(transport, model, optimizer) as handle:
            model(torch.tensor([[0.0, 0.0], [2.0, 2.0]], dtype=torch.float64) + 4 * transport.rank).square().sum().backward()
            optimizer.step()
            before = model.weight.tolist()
            with handle.averaged():
                assert model.running_mean.tolist() == [7.0, 7.0]
            assert model.running_mean.tolist() == [1 + 4 * transport.rank] * 2
            handle.average()
        return before, [*model.weight.tolist(), *model.running_mean.tolist()]

    for before, after in run(SIZE, train):
        assert after == [pytest.approx(before[0]), pytest.approx(before[1]), 7.0, 7.0]


def test_a_closure_is_refused() -> None:
    def train(transport: Transport) -> None:
        model = Point()
        optimizer = torch.optim.LBFGS(model.parameters())
        with reduce(transport, model, optimizer), pytest.raises(ConfigError, match="in a closure"):
            optimizer.step(closure_of(model, optimizer, numbers(0)))

    run(2, train)


def test_whose_gradients_a_sum_is_without_is_known() -> None:
    def train(transport: Any) -> frozenset[int]:
        model = Point()
        with reduce(transport, model, torch.optim.SGD(model.parameters(), lr=0.1)) as handle:
            assert not handle.lost
            transport.members = [0, 2]  # as after a collective in which rank 1 was found dead
            return handle.lost

    assert run(3, train) == [frozenset({1})] * 3
