"""What torch users do with models and optimizers goes on working, and goes on averaging, once attached."""

from __future__ import annotations

import copy
import io
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from consensus.neighbours import NeighbourHandle
from consensus.optim import attach
from consensus.topology import build
from consensus.topology.weights import metropolis
from consensus.transport.base import Transport
from consensus.transport.loopback import run
from tests.worlds import EVERY_RULE, Point, closure_of, numbers, slowed

SIZE = 4
P = metropolis(build("ring", SIZE)).toarray()

OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-2),
    "adam": lambda p: torch.optim.Adam(p, lr=0.05),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.05, amsgrad=True),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=0.2),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.02, centered=True),
    "lbfgs": lambda p: torch.optim.LBFGS(p, lr=0.5, max_iter=3, line_search_fn="strong_wolfe"),
}


def by_hand(make: Callable[[Any], torch.optim.Optimizer], steps: int) -> np.ndarray:
    """All ranks in one process: their steps, then the averaging matrix."""
    models = [Point() for _ in range(SIZE)]
    optimizers = [make(model.parameters()) for model in models]
    for _ in range(steps):
        for rank, (model, optimizer) in enumerate(zip(models, optimizers, strict=True)):
            optimizer.step(closure_of(model, optimizer, numbers(rank)))
        mixed = torch.from_numpy(P) @ torch.stack([model.w.detach() for model in models])
        for model, row in zip(models, mixed, strict=True):
            model.w.data.copy_(row)
    return np.array([model.w.detach().numpy() for model in models])


def on_ring(transport: Transport, model: nn.Module, optimizer: torch.optim.Optimizer, **options: Any) -> NeighbourHandle:
    return attach(model, optimizer, transport=transport, **{"topology": "ring", "rule": "full", **options})


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_any_optimizer(name: str) -> None:
    def train(transport: Transport) -> np.ndarray:
        model = Point()
        optimizer = OPTIMIZERS[name](model.parameters())
        with on_ring(slowed(transport, 1), model, optimizer):
            for _ in range(6):
                optimizer.step(closure_of(model, optimizer, numbers(transport.rank)))
        return model.w.detach().numpy().copy()

    np.testing.assert_allclose(run(SIZE, train), by_hand(OPTIMIZERS[name], 6), rtol=1e-10)


def test_lbfgs_combines_once_a_step_before_its_first_gradient() -> None:
    def train(transport: Transport) -> int:
        model = Point()
        optimizer = OPTIMIZERS["lbfgs"](model.parameters())
        with on_ring(transport, model, optimizer, order="combine-adapt") as handle:
            for _ in range(5):
                optimizer.step(closure_of(model, optimizer, numbers(transport.rank)))
        return handle.statistics.rounds

    assert run(SIZE, train) == [5] * SIZE


class Mixed(nn.Module):
    """Two dtypes, a frozen and a tied parameter."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.narrow = nn.Parameter(torch.full((3,), value))
        self.wide = nn.Parameter(torch.full((2,), value, dtype=torch.float64))
        self.frozen = nn.Parameter(torch.full((2,), value), requires_grad=False)
        self.tied = self.narrow
        self.unlisted = nn.Parameter(torch.full((1,), value))
        self.register_buffer("count", torch.tensor(int(value)))
        self.register_buffer("running", torch.full((2,), value))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (self.narrow * self.tied * x).sum() + self.wide.sum() + self.unlisted.sum()


def test_models_start_as_rank_0s_whatever_is_exchanged() -> None:
    def start(transport: Transport) -> dict[str, list[float]]:
        model = Mixed(transport.rank + 1.0)
        optimizer = torch.optim.SGD([model.narrow, model.wide], lr=0.1)
        with on_ring(transport, model, optimizer):
            return {name: tensor.flatten().tolist() for name, tensor in model.state_dict().items()}

    states = run(SIZE, start)
    assert states == [states[0]] * SIZE
    assert states[0] == {name: tensor.flatten().tolist() for name, tensor in Mixed(1.0).state_dict().items()}


def test_groups_dtypes_frozen_and_tied_parameters() -> None:
    def train(transport: Transport) -> dict[str, list[float]]:
        model = Mixed(1.0)
        groups = [{"params": [model.narrow, model.frozen], "lr": 0.0}, {"params": [model.wide], "lr": 1.0}]
        optimizer = torch.optim.SGD(groups, lr=0.5)
        with on_ring(transport, model, optimizer, topology="complete"):
            with torch.no_grad():
                for tensor in model.state_dict().values():
                    tensor.fill_(transport.rank)
            model(torch.ones(3)).backward()
            optimizer.step()
        assert model.tied is model.narrow
        assert model.frozen.grad is None
        return {name: tensor.double().flatten().tolist() for name, tensor in model.state_dict().items()}

    for rank, state in enumerate(run(SIZE, train, seed=3)):
        mean = (SIZE - 1) / 2
        np.testing.assert_allclose(state["narrow"], mean, rtol=1e-6)
        np.testing.assert_allclose(state["tied"], mean, rtol=1e-6)
        np.testing.assert_allclose(state["wide"], mean - 1, rtol=1e-14)
        np.testing.assert_allclose(state["running"], mean, rtol=1e-6)
        assert state["frozen"] == [rank] * 2
        assert state["unlisted"] == [rank]
        assert state["count"] == [rank]


def test_gradient_accumulation_and_clipping_leave_one_round_a_step() -> None:
    def train(transport: Transport) -> tuple[int, float]:
        model = Point()
        optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
        with on_ring(transport, model, optimizer) as handle:
            for batch in range(12):
                model(numbers(transport.rank, scale=100)).backward()
                if batch % 4 == 3:
                    nn.utils.clip_grad_norm_(model.parameters(), 0.5)
                    optimizer.step()
                    optimizer.zero_grad()
        return handle.statistics.rounds, float(model.w.detach().norm())

    for rounds, norm in run(SIZE, train):
        assert rounds == 3
        assert 0 < norm <= 1.5 + 1e-9


@pytest.mark.parametrize("rule", EVERY_RULE)
@pytest.mark.parametrize("order", ["adapt-combine", "combine-adapt"])
def test_a_skipped_step_of_a_scaler_is_no_round_and_hangs_nobody(rule: str, order: str) -> None:
    def train(transport: Transport) -> tuple[int, list[float]]:
        model = Point(dtype=torch.float32)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        scaler = torch.amp.GradScaler("cpu", init_scale=16.0)
        with on_ring(slowed(transport, 2), model, optimizer, rule=EVERY_RULE[rule], order=order) as handle:
            for step in range(10):
                optimizer.zero_grad()
                overflow = float("inf") if transport.rank == 1 and step in (2, 5, 6) else 1.0
                scaler.scale(model(numbers(transport.rank).float()) * overflow).backward()
                scaler.step(optimizer)
                scaler.update()
        return handle.statistics.rounds, model.w.tolist()

    results = run(SIZE, train)
    # After combine-adapt's skipped step the averaging done before it still stands, and the next forward has none due.
    assert [rounds for rounds, _ in results] == [10, 7, 10, 10]
    assert all(np.isfinite(model).all() for _, model in results)


@pytest.mark.parametrize("before", [False, True])
def test_schedulers_see_every_step(before: bool) -> None:
    def train(transport: Transport) -> list[float]:
        model = Point()
        optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.1) if before else None
        with on_ring(transport, model, optimizer) as handle:
            scheduler = scheduler or torch.optim.lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.1)
            rates = []
            for _ in range(4):
                model(numbers(0)).backward()
                optimizer.step()
                scheduler.step()
                rates.append(optimizer.param_groups[0]["lr"])
        assert handle.statistics.rounds == 4
        return rates

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for rates in run(2, train):
            np.testing.assert_allclose(rates, [1.0, 0.1, 0.1, 0.01])


@pytest.mark.parametrize("order", ["adapt-combine", "combine-adapt"])
def test_state_dicts_go_out_and_in_and_stay_attached(order: str) -> None:
    def train(transport: Transport) -> tuple[list[float], list[float], int]:
        model = Point()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

        def steps(count: int) -> None:
            for _ in range(count):
                optimizer.zero_grad()
                model(numbers(transport.rank)).backward()
                optimizer.step()

        with on_ring(transport, model, optimizer, order=order) as handle:
            steps(3)
            file = io.BytesIO()
            torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, file)
            steps(4)
            first = model.w.tolist()
            file.seek(0)
            saved = torch.load(file, weights_only=True)
            model.load_state_dict(saved["model"])
            optimizer.load_state_dict(saved["optimizer"])
            steps(4)
            return first, model.w.tolist(), handle.statistics.rounds

    for first, second, rounds in run(SIZE, train, seed=4):
        np.testing.assert_allclose(second, first, rtol=1e-12)
        assert rounds == 11


@pytest.mark.parametrize("order", ["adapt-combine", "combine-adapt"])
def test_classes_stay_and_copies_are_free(order: str) -> None:
    def look(transport: Transport) -> int:
        model = Point()
        optimizer = torch.optim.Adam(model.parameters())
        with on_ring(transport, model, optimizer, order=order) as handle:
            assert type(optimizer) is torch.optim.Adam
            assert type(model) is Point
            twin, twins_optimizer = copy.deepcopy((model, optimizer))
            assert twin.w.data_ptr() != model.w.data_ptr()
            averaged = torch.optim.swa_utils.AveragedModel(model)
            for _ in range(3):
                closure_of(twin, twins_optimizer, numbers(5))()
                twins_optimizer.step()
            averaged(numbers(0))
            assert handle.statistics.rounds == 0
            file = io.BytesIO()
            torch.save(model, file)
            file.seek(0)
            loaded = torch.load(file, weights_only=False)
            assert loaded.w.tolist() == model.w.tolist() != twin.w.tolist()
            loaded(numbers(0))
            closure_of(model, optimizer, numbers(5))()
            optimizer.step()
        return handle.statistics.rounds

    assert run(2, look) == [1, 1]


def test_after_close_the_optimizer_steps_alone() -> None:
    def train(transport: Transport) -> int:
        model = Point()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        with on_ring(transport, model, optimizer, order="combine-adapt") as handle:
            pass
        for _ in range(transport.rank):
            closure_of(model, optimizer, numbers(0))()
            optimizer.step()
        return handle.statistics.rounds

    assert run(3, train) == [0, 0, 0]
