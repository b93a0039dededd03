"""The named models: shapes, sizes, seeds, and that they learn."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from consensus.data.catalogue import load
from consensus.errors import ConfigError
from consensus.models import MODELS, build

SHAPES = {"digits": (1, 8, 8), "mnist": (1, 28, 28), "cifar10": (3, 32, 32)}


def size(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
@pytest.mark.parametrize("name", MODELS)
def test_every_model_takes_every_data_set(name: str, shape: tuple[int, ...]) -> None:
    model = build(name, shape, classes=10, seed=0)
    logits = model(torch.zeros(3, *shape))
    assert logits.shape == (3, 10)
    logits.sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize(("name", "parameters"), [("logistic", 7_850), ("2nn", 269_322), ("cnn", 206_922), ("cnn_bn", 206_970)])
def test_sizes_on_mnist(name: str, parameters: int) -> None:
    assert size(build(name, (1, 28, 28), classes=10, seed=0)) == parameters


@pytest.mark.parametrize("shape", [(1, 5, 7), (2, 4, 4)])
def test_convolutions_take_odd_sizes(shape: tuple[int, ...]) -> None:
    assert build("cnn", shape, classes=3, seed=0)(torch.zeros(2, *shape)).shape == (2, 3)


def test_only_the_batchnorm_variant_has_buffers() -> None:
    with_buffers = {name for name in MODELS if list(build(name, (1, 8, 8), 10, seed=0).buffers())}
    assert with_buffers == {"cnn_bn"}


@pytest.mark.parametrize("name", MODELS)
def test_parameters_depend_on_the_seed_alone(name: str) -> None:
    torch.manual_seed(1)
    one = torch.cat([parameter.flatten() for parameter in build(name, (1, 8, 8), 10, seed=4).parameters()])
    torch.manual_seed(2)
    same = torch.cat([parameter.flatten() for parameter in build(name, (1, 8, 8), 10, seed=4).parameters()])
    other = torch.cat([parameter.flatten() for parameter in build(name, (1, 8, 8), 10, seed=5).parameters()])
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_the_callers_generator_is_left_alone() -> None:
    before = torch.random.get_rng_state()
    build("2nn", (1, 8, 8), 10, seed=0)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize(
    ("name", "rate", "reached"), [("logistic", 0.1, 0.9), ("2nn", 0.1, 0.93), ("cnn", 0.1, 0.93), ("cnn_bn", 0.1, 0.93)]
)
def test_models_learn_digits(name: str, rate: float, reached: float) -> None:
    digits = load("digits")
    model = build(name, digits.input_shape, digits.classes, seed=0)
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    inputs, labels = digits.train.batch(slice(None))
    generator = torch.Generator().manual_seed(0)
    for _ in range(6):
        for chosen in torch.randperm(len(labels), generator=generator).split(32):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(inputs[chosen]), labels[chosen]).backward()
            optimizer.step()
    inputs, labels = digits.test.batch(slice(None))
    accuracy = (model.eval()(inputs).argmax(dim=1) == labels).float().mean()
    assert float(accuracy) > reached


def test_unknown_name() -> None:
    with pytest.raises(ConfigError, match="unknown model 'cnnbn'; did you mean 'cnn_bn'"):
        build("cnnbn", (1, 8, 8), 10, seed=0)


@pytest.mark.parametrize(
    ("name", "shape", "classes", "words"),
    [
        ("cnn", (64,), 10, r"inputs of shape \(64,\), but a convolutional model takes images"),
        ("cnn_bn", (1, 3, 8), 10, "at least 4 x 4 pixels"),
        ("2nn", (), 10, "at least one axis"),
        ("2nn", (3, 0), 10, "none of length 0"),
        ("2nn", (3,), 1, "for 1 classes, expected at least 2"),
    ],
)
def test_bad_arguments(name: str, shape: tuple[int, ...], classes: int, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        build(name, shape, classes, seed=0)
