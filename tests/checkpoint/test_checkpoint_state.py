"""Training that stops, is written, read and restored into new objects goes on as if it had not stopped, bit by bit."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam, Optimizer
from torch.optim import lr_scheduler as schedulers

from consensus.checkpoint.state import capture, restore
from consensus.checkpoint.store import Store
from consensus.data.sampler import Sampler
from consensus.errors import CheckpointError, ConfigError
from consensus.flat import FlatModel

SAMPLES, FEATURES = 37, 6
INPUTS = torch.randn(SAMPLES, FEATURES, generator=torch.Generator().manual_seed(1))
LABELS = torch.arange(SAMPLES) % 3

OPTIMIZERS: dict[str, Callable[[Any], Optimizer]] = {
    "sgd": lambda parameters: SGD(parameters, lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-3),
    "adam": lambda parameters: Adam(parameters, lr=0.01, amsgrad=True),
}
SCHEDULERS: dict[str, Callable[[Optimizer], Any]] = {
    "step": lambda optimizer: schedulers.StepLR(optimizer, 3, 0.5),
    "milestones": lambda optimizer: schedulers.MultiStepLR(optimizer, [2, 6, 6, 8], 0.5),
    "one-cycle": lambda optimizer: schedulers.OneCycleLR(optimizer, 0.2, 12),
    "sequence": lambda optimizer: schedulers.SequentialLR(
        optimizer, [schedulers.LinearLR(optimizer, 0.1, total_iters=4), schedulers.CosineAnnealingLR(optimizer, 6)], [4]
    ),
    "function": lambda optimizer: schedulers.LambdaLR(optimizer, lambda step: 0.9**step),
}


class Training(NamedTuple):
    model: nn.Module
    optimizer: Optimizer
    scheduler: Any
    sampler: Sampler

    def step(self) -> float:
        batch = torch.from_numpy(next(self.sampler))
        noise = torch.from_numpy(np.random.normal(scale=random.random(), size=(len(batch), FEATURES))).float()  # noqa: NPY002
        self.optimizer.zero_grad()
        loss = nn.functional.cross_entropy(self.model(INPUTS[batch] + noise), LABELS[batch])
        loss.backward()
        self.optimizer.step()
        self.scheduler.step()
        return loss.item()


def training(optimizer: str = "sgd", scheduler: str = "step", seed: int = 0) -> Training:
    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    random.seed(seed)
    model = nn.Sequential(nn.Linear(FEATURES, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 3))
    chosen = OPTIMIZERS[optimizer](model.parameters())
    return Training(model, chosen, SCHEDULERS[scheduler](chosen), Sampler(np.arange(SAMPLES), 8, seed=0, rank=0))


def bits(module: nn.Module) -> list[bytes]:
    return [tensor.numpy().tobytes() for tensor in module.state_dict().values()]


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_going_on_is_exact(optimizer: str, scheduler: str, tmp_path: Path) -> None:
    whole = training(optimizer, scheduler)
    losses = [whole.step() for _ in range(10)]

    first = training(optimizer, scheduler)
    before = [first.step() for _ in range(5)]
    store = Store(tmp_path, 0, 1)
    state = capture(*first)
    first.step()  # what was captured does not follow
    assert store.write(1, state)

    second = training(optimizer, scheduler, seed=5)
    second.step()
    moment = store.newest()
    assert moment is not None
    restore(store.read(moment, 0), *second)
    after = [second.step() for _ in range(5)]

    assert before + after == losses
    assert bits(second.model) == bits(whole.model)
    assert second.scheduler.get_last_lr() == whole.scheduler.get_last_lr()
    assert second.sampler.state_dict() == whole.sampler.state_dict()


def test_a_state_serves_more_than_once() -> None:
    first = training()
    for _ in range(3):
        first.step()
    state = capture(*first)
    losses = []
    for seed in (1, 2):
        again = training(seed=seed)
        restore(state, *again)
        losses.append([again.step() for _ in range(4)])
    assert losses[0] == losses[1]


def test_a_flat_model_stays_flat() -> None:
    source, target = training(seed=1), training(seed=2)
    source.step()
    flat = FlatModel(target.model, target.model.parameters(), buffers="average")
    restore(capture(*source), *target)
    flat.begin()  # refuses parameters that are no views
    assert bits(target.model) == bits(source.model)
    weight = source.model[0].weight.detach()
    assert torch.equal(torch.from_numpy(flat.snapshot()[0]).view(torch.float32)[: weight.numel()].view_as(weight), weight)


def test_versions_of_layers_are_kept() -> None:
    state = capture(*training())
    assert state["versions"]["1"] == {"version": 2}
    seen = {}
    target = training()
    target.model[1]._register_load_state_dict_pre_hook(lambda _, prefix, metadata, *rest: seen.update(metadata))
    restore(state, *target)
    assert seen == {"version": 2}


def test_what_is_not_there_is_none() -> None:
    model, optimizer, *_ = training()
    state = capture(model, optimizer)
    assert (state["scheduler"], state["sampler"]) == (None, None)
    restore(state, model, optimizer)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda state, to: ({"model": state["model"]}, *to), "lacks versions, optimizer"),
        (lambda state, to: (state, to.model, to.optimizer, None, to.sampler), "scheduler: there is none here"),
        (lambda state, to: ({**state, "sampler": None}, *to), "sampler: there is one here, but the checkpoint has none"),
        (lambda state, to: (state, nn.Linear(2, 2), *to[1:]), "model's state does not fit a Linear"),
        (lambda state, to: (state, to.model, SGD(to.model[0].parameters(), lr=1.0), *to[2:]), "optimizer's state does not fit"),
        (lambda state, to: ({**state, "scheduler": 3}, *to), "scheduler's state does not fit a StepLR"),
    ],
)
def test_what_does_not_fit_is_refused(change: Callable[..., tuple[Any, ...]], words: str) -> None:
    with pytest.raises(CheckpointError, match=words):
        restore(*change(capture(*training()), training()))


def test_another_walk_is_refused_by_the_sampler() -> None:
    state, target = capture(*training()), training()
    with pytest.raises(ConfigError, match="batch_size"):
        restore(state, *target[:3], Sampler(np.arange(SAMPLES), 4, seed=0, rank=0))
