"""The numbers of a parameter server: gradients and weights as they travel, and what an update makes of them."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from consensus.bundle import Bundle
from consensus.errors import ConfigError
from consensus.flat import FlatModel
from consensus.gradient import Gradient
from consensus.protocol.events import Applied, GradientTaken, ModelTaken
from consensus.pushed import PushedModel
from consensus.served import ServedModel

NONE = np.zeros(0)


class Mixed(nn.Module):
    """Two dtypes, an averaged buffer, an integer buffer, a frozen parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 5)
        self.norm = nn.BatchNorm1d(5)
        self.second = nn.Linear(5, 2, dtype=torch.float64)
        self.frozen = nn.Parameter(torch.ones(4), requires_grad=False)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(self.second(self.norm(self.first(inputs)).double()))


def flat_of(model: nn.Module, **options: Any) -> FlatModel:
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return FlatModel(model, trainable, **{"buffers": "average", **options})


def same(model: Callable[[], nn.Module], count: int) -> list[nn.Module]:
    torch.manual_seed(5)
    first = model()
    return [copy.deepcopy(first) for _ in range(count)]


class World:
    """A served model and the pushed models of its workers, whose bytes are moved by hand."""

    def __init__(
        self, model: Callable[[], nn.Module], workers: int, optimizer: Callable[[Any], torch.optim.Optimizer], **options: Any
    ) -> None:
        self.model, *self.models = same(model, workers + 1)
        self.flat = flat_of(self.model, **options)
        self.optimizer, *self.optimizers = (
            optimizer(p for p in each.parameters() if p.requires_grad) for each in (self.model, *self.models)
        )
        self.server = ServedModel(self.flat, self.optimizer)
        self.workers = [
            PushedModel(flat_of(each, **options), its) for each, its in zip(self.models, self.optimizers, strict=True)
        ]

    def push(self, worker: int) -> GradientTaken:
        for index, chunk in enumerate(self.workers[worker].outgoing(0)):
            landing = self.server.lend(worker, index)
            landing[:] = chunk
            self.workers[worker].release(0, index)
            self.server.deliver(worker, index, landing)
        taken = self.server.taken(worker)
        assert isinstance(taken, GradientTaken)
        return taken

    def give(self, worker: int, chunks: Any = None) -> None:
        for index, chunk in enumerate(self.server.outgoing(worker) if chunks is None else chunks):
            landing = self.workers[worker].lend(0, index)
            landing[:] = chunk
            self.server.release(worker, index)
            self.workers[worker].deliver(0, index, landing)
        assert self.workers[worker].taken(0) == ModelTaken(0)
        self.workers[worker].install()


def sgd(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(list(parameters), lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01)


def adam(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(list(parameters), lr=0.01)


def numbers(model: nn.Module) -> list[list[float]]:
    return [parameter.detach().double().flatten().tolist() for parameter in model.parameters()]


# -- bundles ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk_bytes", [64, 128, 1 << 20])
def test_a_bundle_is_laid_out_as_the_model(chunk_bytes: int) -> None:
    model = Mixed()
    flat = flat_of(model, chunk_bytes=chunk_bytes)
    bundle = Bundle(flat)
    assert [chunk.size for chunk in bundle.chunks] == [chunk.size for chunk in flat.chunks]
    assert [(part.dtype, part.numel()) for part in bundle.parts] == flat.layout
    assert [body.numel() for body in bundle.bodies] == flat.bodies
    # A copy byte by byte of the chunks is a copy of the model.
    flat.begin()
    for mine, theirs in zip(bundle.chunks, flat.chunks, strict=True):
        mine[:] = theirs
    for mine, theirs in zip(bundle.bytes, flat.snapshot(), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    for parameter, region, start in flat.places:
        part = bundle.parts[region][start : start + parameter.numel()]
        assert part.tolist() == parameter.detach().flatten().tolist()


def test_weights_in_a_bundle_are_the_model() -> None:
    model, other = same(Mixed, 2)
    flat, bundle = flat_of(model), Bundle(flat_of(other))
    with torch.no_grad():
        for number, parameter in enumerate(model.parameters()):
            parameter.fill_(number)
    model.get_buffer("norm.running_mean").fill_(3.0)
    bundle.copy_weights(flat)
    recipient = PushedModel(flat_of(other), sgd(other.parameters()))
    for index, chunk in enumerate(bundle.chunks):
        recipient.lend(0, index)[:] = chunk
    recipient.taken(0)
    recipient.install()
    trained = [parameter.tolist() for parameter in model.parameters() if parameter.requires_grad]
    assert [parameter.tolist() for parameter in other.parameters() if parameter.requires_grad] == trained
    assert other.get_buffer("norm.running_mean").tolist() == [3.0] * 5


def test_a_gradient_in_a_bundle() -> None:
    model = Mixed()
    flat = flat_of(model)
    gradient = Gradient(flat, 0)
    model(torch.randn(7, 3)).square().sum().backward()
    gradient.take(flat, NONE)
    for parameter, region, start in flat.places:
        assert parameter.grad is not None
        assert gradient.parts[region][start : start + parameter.numel()].tolist() == parameter.grad.flatten().tolist()
    expected = sum(float(p.grad.double().square().sum()) for p in model.parameters() if p.grad is not None)
    assert gradient.square() == pytest.approx(expected, rel=1e-6)
    # Averaged buffers come along.
    mean = model.get_buffer("norm.running_mean")
    tails = [part[len(body) :] for part, body in zip(gradient.parts, gradient.bodies, strict=True)]
    assert any(mean.tolist() == tail[: len(mean)].tolist() for tail in tails)


def test_a_missing_gradient_counts_as_zero() -> None:
    model = Mixed()
    flat = flat_of(model)
    gradient = Gradient(flat, 0)
    model(torch.randn(7, 3)).square().sum().backward()
    gradient.take(flat, NONE)
    for parameter in model.parameters():
        parameter.grad = None
    model.first.weight.grad = torch.ones(5, 3)
    gradient.take(flat, NONE)
    assert gradient.square() == pytest.approx(15.0)


class Tied(nn.Module):
    """The same numbers used twice: as one parameter, and as two that share memory."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Linear(3, 3, bias=False)
        self.right = nn.Linear(3, 3, bias=False)
        self.right.weight = nn.Parameter(self.left.weight.data)
        self.again = self.left


def test_gradients_of_parameters_that_share_memory_add_up() -> None:
    model = Tied()
    flat = flat_of(model)
    gradient = Gradient(flat, 0)
    model.left.weight.grad, model.right.weight.grad = torch.ones(3, 3), torch.full((3, 3), 2.0)
    gradient.take(flat, NONE)
    assert sum(body.numel() for body in gradient.bodies) == 16
    assert gradient.square() == 81.0


def test_a_parameter_used_twice() -> None:
    model = Tied()
    inputs = torch.randn(4, 3)
    flat = flat_of(model)
    model.again(model.left(inputs)).square().sum().backward()
    gradient = Gradient(flat, 0)
    gradient.take(flat, NONE)
    assert model.left.weight.grad is not None
    assert gradient.square() == pytest.approx(float(model.left.weight.grad.square().sum()))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_one_number_that_is_not_finite_shows(value: float, dtype: torch.dtype) -> None:
    model = nn.Linear(3, 3, bias=False).to(dtype)
    flat = flat_of(model)
    model.weight.grad = torch.zeros(3, 3, dtype=dtype)
    model.weight.grad[1, 1] = value
    gradient = Gradient(flat, 0)
    gradient.take(flat, NONE)
    assert not math.isfinite(gradient.square())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_norm_beyond_half_precision_is_finite(dtype: torch.dtype) -> None:
    model = nn.Linear(20, 20, bias=False).to(dtype)
    flat = flat_of(model)
    model.weight.grad = torch.full((20, 20), 6e4, dtype=dtype)
    gradient = Gradient(flat, 0)
    gradient.take(flat, NONE)
    assert gradient.square() == pytest.approx(400 * 3.6e9, rel=1e-2)


def test_complex_gradients() -> None:
    model = nn.Linear(2, 1, bias=False, dtype=torch.complex64)
    flat = flat_of(model)
    model.weight.grad = torch.tensor([[3 + 4j, 0]], dtype=torch.complex64)
    gradient = Gradient(flat, 0)
    gradient.take(flat, NONE)
    assert gradient.square() == 25.0


# -- updates ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", [sgd, adam])
@pytest.mark.parametrize("chunk_bytes", [64, 1 << 20])
def test_steps_are_those_of_the_large_batch(optimizer: Callable[[Any], torch.optim.Optimizer], chunk_bytes: int) -> None:
    def network() -> nn.Module:
        return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 1)).double()

    world = World(network, 3, optimizer, chunk_bytes=chunk_bytes)
    (alone,) = same(network, 1)
    alone_optimizer = optimizer(alone.parameters())
    batches = torch.randn(6, 3, 4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for batch in batches:
        for worker, (model, inputs) in enumerate(zip(world.models, batch, strict=True)):
            model.zero_grad()
            model(inputs).square().mean().backward()
            taken = world.push(worker)
            squares = sum(float(parameter.grad.square().sum()) for parameter in model.parameters() if parameter.grad is not None)
            assert taken == GradientTaken(worker, pytest.approx(squares, rel=1e-12))
        alone_optimizer.zero_grad()
        alone(batch.reshape(12, 3)).square().mean().backward()
        squares = sum(float(parameter.grad.square().sum()) for parameter in alone.parameters() if parameter.grad is not None)
        lr = alone_optimizer.param_groups[0]["lr"]
        assert world.server.apply((0, 1, 2), 1.0) == Applied(pytest.approx(squares, rel=1e-12), lr)
        alone_optimizer.step()
        for worker in range(3):
            world.give(worker)
        for model in (world.model, *world.models):
            for mine, theirs in zip(numbers(model), numbers(alone), strict=True):
                assert mine == pytest.approx(theirs, rel=1e-12, abs=1e-14)


def test_the_factor_scales_one_step_of_every_group() -> None:
    def groups(parameters: Any) -> torch.optim.Optimizer:
        return torch.optim.SGD([{"params": [each], "lr": lr} for each, lr in zip(parameters, (0.5, 0.25), strict=True)])

    world = World(lambda: nn.Linear(2, 2), 1, groups)
    before = copy.deepcopy(world.model)
    for parameter in world.models[0].parameters():
        parameter.grad = torch.ones_like(parameter)
    world.push(0)
    # Of six numbers four are in the first group.
    assert world.server.apply((0,), 0.5) == Applied(pytest.approx(6.0), pytest.approx(0.5 * (4 * 0.5 + 2 * 0.25) / 6))
    assert isinstance(before, nn.Linear)
    assert isinstance(world.model, nn.Linear)
    assert (before.weight - world.model.weight).flatten().tolist() == pytest.approx([0.25] * 4)
    assert (before.bias - world.model.bias).tolist() == pytest.approx([0.125] * 2)
    assert [group["lr"] for group in world.optimizer.param_groups] == [0.5, 0.25]


def test_a_step_is_made_with_the_mean_of_the_workers_options() -> None:
    world = World(lambda: nn.Linear(2, 2), 3, sgd)
    before = world.model.get_parameter("weight").tolist()
    for worker, (model, optimizer) in enumerate(zip(world.models, world.optimizers, strict=True)):
        optimizer.param_groups[0].update(lr=[0.1, 0.5, 0.0][worker], weight_decay=0.0, momentum=[0.9, 0.9, 0.3][worker])
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
        world.push(worker)
    seen = []
    world.optimizer.register_step_pre_hook(lambda optimizer, args, kwargs: seen.append(dict(optimizer.param_groups[0])))
    assert world.server.apply((0, 1, 2), 1.0) == Applied(pytest.approx(6.0), pytest.approx(0.2))
    assert {key: seen[0][key] for key in ("lr", "momentum", "weight_decay")} == pytest.approx(
        {"lr": 0.2, "momentum": 0.7, "weight_decay": 0.0}
    )
    after = world.model.get_parameter("weight").tolist()
    assert np.subtract(before, after).ravel() == pytest.approx(0.2 * 1.7, rel=1e-5)  # Nesterov's
    # Its own are as they were.
    assert {key: world.optimizer.param_groups[0][key] for key in ("lr", "momentum")} == {"lr": 0.1, "momentum": 0.9}


def test_equal_options_are_taken_to_the_bit() -> None:
    world = World(lambda: nn.Linear(2, 2), 3, sgd)
    for worker, model in enumerate(world.models):
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
        world.push(worker)
    assert world.server.apply((0, 1, 2), 1.0).step == 0.1  # type: ignore[union-attr]


def test_a_parameter_without_a_gradient_is_left_alone() -> None:
    """Momentum and weight decay would move one whose gradient is zero."""
    world = World(lambda: nn.Linear(2, 2), 2, sgd)
    for worker in (0, 1):
        for parameter in world.models[worker].parameters():
            parameter.grad = torch.ones_like(parameter)
        world.push(worker)
    world.server.apply((0, 1), 1.0)
    before = copy.deepcopy(world.model.state_dict())
    for worker, model in enumerate(world.models):
        model.get_parameter("weight").grad = None
        model.get_parameter("bias").grad = torch.ones(2) if worker else None
        world.push(worker)
    # What one of two workers has counts for half.
    assert world.server.apply((0, 1), 1.0) == Applied(pytest.approx(2 * 0.5**2), 0.1)
    assert torch.equal(world.model.get_parameter("weight"), before["weight"])
    assert not torch.equal(world.model.get_parameter("bias"), before["bias"])


def test_a_learning_rate_that_is_no_number() -> None:
    world = World(lambda: nn.Linear(2, 2), 1, sgd)
    world.optimizers[0].param_groups[0]["lr"] = math.nan
    assert math.isnan(world.push(0).square)


def test_a_sparse_gradient() -> None:
    model = nn.Embedding(4, 2, sparse=True)
    flat = flat_of(model)
    model(torch.tensor([1])).sum().backward()
    with pytest.raises(ConfigError, match=r"the gradient of parameter 'weight' is of layout torch\.sparse_coo, .* sparse=False"):
        Gradient(flat, 0).take(flat, NONE)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_gradients_are_summed_up_in_single(dtype: torch.dtype) -> None:
    world = World(lambda: nn.Linear(2, 1, bias=False).to(dtype), 4, lambda p: torch.optim.SGD(p, lr=1.0))
    with torch.no_grad():
        world.model.get_parameter("weight").zero_()
    for worker, model in enumerate(world.models):
        # In half precision the sum of the first two is beyond float16, and bfloat16 would lose the last ones.
        value = [4e4, 4e4, -4e4, -4e4 + 64][worker] if dtype is torch.float16 else [256.0, 1.0, 1.0, -256.0][worker]
        model.get_parameter("weight").grad = torch.full((1, 2), value, dtype=dtype)
        world.push(worker)
    world.server.apply((0, 1, 2, 3), 1.0)
    pushed = [float(model.get_parameter("weight").grad[0, 0]) for model in world.models]  # type: ignore[index]
    assert world.model.get_parameter("weight").tolist() == [[-sum(pushed) / 4] * 2]
    assert sum(pushed) != 0


def test_averaged_buffers_are_pooled_over_the_gradients_of_an_update() -> None:
    world = World(Mixed, 3, sgd)
    for worker, model in enumerate(world.models):
        model.get_buffer("norm.running_mean").fill_(float(worker))
        model.get_buffer("norm.running_var").fill_(1.0)
        world.push(worker)
    world.server.discard(1)
    world.server.apply((0, 2), 1.0)
    assert world.model.get_buffer("norm.running_mean").tolist() == [1.0] * 5
    # The law of total variance.
    assert world.model.get_buffer("norm.running_var").tolist() == pytest.approx([2.0] * 5)
    world.give(1)
    assert world.models[1].get_buffer("norm.running_mean").tolist() == [1.0] * 5


def test_local_buffers_stay_where_they_are() -> None:
    world = World(Mixed, 1, sgd, buffers="local")
    world.models[0].get_buffer("norm.running_mean").fill_(7.0)
    world.push(0)
    world.server.apply((0,), 1.0)
    world.give(0)
    assert world.model.get_buffer("norm.running_mean").tolist() == [0.0] * 5
    assert world.models[0].get_buffer("norm.running_mean").tolist() == [7.0] * 5


def test_what_is_discarded_is_in_no_update() -> None:
    world = World(lambda: nn.Linear(2, 1, bias=False), 2, lambda p: torch.optim.SGD(p, lr=1.0))
    before = world.model.get_parameter("weight").tolist()
    for worker, model in enumerate(world.models):
        model.get_parameter("weight").grad = torch.full((1, 2), math.nan if worker else 1.0)
        world.push(worker)
    world.server.discard(1)
    world.server.apply((0,), 1.0)
    assert world.model.get_parameter("weight").tolist() == [[value - 1.0 for value in before[0]]]
    world.server.discard(1)  # of one of whom nothing is here


def test_a_part_of_a_gradient_is_discarded() -> None:
    world = World(Mixed, 1, sgd, chunk_bytes=64)
    world.server.lend(0, 0)[:] = 255
    world.server.discard(0)
    world.models[0](torch.randn(4, 3)).sum().backward()
    assert math.isfinite(world.push(0).square)


# -- memory -----------------------------------------------------------------------------------------------------------------


def step(world: World, worker: int = 0) -> None:
    for parameter in world.models[worker].parameters():
        if parameter.requires_grad:
            parameter.grad = torch.ones_like(parameter)
    world.push(worker)
    world.server.apply((worker,), 1.0)


def test_a_version_on_its_way_is_not_written_over() -> None:
    world = World(Mixed, 3, sgd)
    first = numbers(world.model)
    leaving = world.server.outgoing(1)
    step(world)
    second = numbers(world.model)
    also_leaving = world.server.outgoing(2)
    step(world)
    step(world)
    world.give(1, leaving)
    world.give(2, also_leaving)
    assert numbers(world.models[1]) == first
    assert numbers(world.models[2]) == second
    world.give(0)
    assert numbers(world.models[0]) == numbers(world.model) != second


def test_memory_is_reused() -> None:
    world = World(Mixed, 3, sgd)
    addresses = set()
    for _ in range(20):
        leaving = {worker: world.server.outgoing(worker) for worker in (1, 2)}
        addresses |= {chunk.__array_interface__["data"][0] for chunks in leaving.values() for chunk in chunks[:1]}
        addresses.add(world.server.lend(0, 0).__array_interface__["data"][0])
        step(world)
        for worker, chunks in leaving.items():
            world.give(worker, chunks)
    # One version on its way, the present one, and a gradient.
    assert len(addresses) <= 3


def test_a_dead_worker_keeps_no_memory() -> None:
    world = World(Mixed, 2, sgd)
    leaving = world.server.outgoing(1)
    step(world)
    world.server.forget(1)
    world.server.forget(1)
    addresses = set()
    for _ in range(5):
        # A version that nobody reads any more is written anew as soon as the present one is being read.
        addresses.add(world.server.outgoing(2)[0].__array_interface__["data"][0])
        step(world)
        world.server.forget(2)
    assert leaving[0].__array_interface__["data"][0] in addresses


def test_the_workers_gradient_is_a_copy_and_the_newest_weights_replace_older_ones() -> None:
    world = World(lambda: nn.Linear(2, 1, bias=False), 1, lambda p: torch.optim.SGD(p, lr=1.0))
    worker, model = world.workers[0], world.models[0]
    model.get_parameter("weight").grad = torch.ones(1, 2)
    worker.begin()
    leaving = worker.outgoing(0)
    model.get_parameter("weight").grad.zero_()  # type: ignore[union-attr]
    assert leaving[0].view(np.float32)[:2].tolist() == [1.0, 1.0]
    for value in (1.0, 2.0):
        worker.lend(0, 0).view(np.float32)[:] = value
        worker.taken(0)
    worker.lend(0, 0).view(np.float32)[:] = 3.0  # begins to arrive, and is not here
    before = model.get_parameter("weight").tolist()
    assert before != [[2.0, 2.0]]
    worker.install()
    assert model.get_parameter("weight").tolist() == [[2.0, 2.0]]
