"""The models that have a name: small ones, for experiments on digits, MNIST and CIFAR-10."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TypeAlias

import torch
from torch import nn

from consensus.errors import ConfigError
from consensus.names import lookup

Builder: TypeAlias = Callable[[tuple[int, ...], int], nn.Module]
"""Takes the shape of one input and the number of classes; initialises from torch's CPU generator."""


def logistic_regression(input_shape: tuple[int, ...], classes: int) -> nn.Module:
    """Multinomial logistic regression: one linear layer on the flattened input; its loss is convex."""
    return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(input_shape), classes))


def two_hidden_layers(input_shape: tuple[int, ...], classes: int) -> nn.Module:
    """A fully connected network with two hidden layers of 256 units and ReLU: 269,322 parameters on MNIST."""
    width = 256
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(math.prod(input_shape), width),
        nn.ReLU(),
        nn.Linear(width, width),
        nn.ReLU(),
        nn.Linear(width, classes),
    )


def _convolutional(input_shape: tuple[int, ...], classes: int, normalise: bool) -> nn.Module:
    if len(input_shape) != 3 or min(input_shape[1:]) < 4:
        raise ConfigError(
            f"inputs of shape {input_shape}, but a convolutional model takes images: expected (channels, height, width) of at "
            "least 4 x 4 pixels; '2nn' takes any shape"
        )
    channels, height, width = input_shape

    def block(inward: int, outward: int) -> list[nn.Module]:
        # BatchNorm subtracts the mean, so a bias before it would have no effect and no gradient.
        convolution = nn.Conv2d(inward, outward, kernel_size=3, padding=1, bias=not normalise)
        return [convolution, *([nn.BatchNorm2d(outward)] if normalise else []), nn.ReLU(), nn.MaxPool2d(2)]

    return nn.Sequential(
        *block(channels, 16),
        *block(16, 32),
        nn.Flatten(),
        nn.Linear(32 * (height // 4) * (width // 4), 128),
        nn.ReLU(),
        nn.Linear(128, classes),
    )


def convolutional(input_shape: tuple[int, ...], classes: int) -> nn.Module:
    """Two 3 x 3 convolutions with 16 and 32 channels, each with ReLU and 2 x 2 max pooling, then 128 units and the output."""
    return _convolutional(input_shape, classes, normalise=False)


def convolutional_batchnorm(input_shape: tuple[int, ...], classes: int) -> nn.Module:
    """:func:`convolutional` with BatchNorm after each convolution: the model with buffers to average."""
    return _convolutional(input_shape, classes, normalise=True)


MODELS: Mapping[str, Builder] = MappingProxyType(
    {"logistic": logistic_regression, "2nn": two_hidden_layers, "cnn": convolutional, "cnn_bn": convolutional_batchnorm},
)
"""Builder of each model by its name."""


def build(name: str, input_shape: Sequence[int], classes: int, seed: int) -> nn.Module:
    """Make a model with random parameters that depend on the seed alone.

    Parameters
    ----------
    name
        ``"logistic"``, ``"2nn"``, ``"cnn"`` or ``"cnn_bn"``.
    input_shape
        Shape of one input without the batch axis, as :attr:`consensus.data.dataset.Dataset.input_shape` gives it.
    classes
        How many outputs, at least 2.
    seed
        For the parameters. The caller's random generators are left as they were.

    Returns
    -------
    torch.nn.Module
        On the CPU, in training mode; takes float32 of shape (b, *input_shape), gives logits of shape (b, classes).

    Raises
    ------
    ConfigError
        If there is no such model, or it does not take such inputs.

    Examples
    --------
    >>> sum(parameter.numel() for parameter in build("2nn", (1, 28, 28), classes=10, seed=0).parameters())
    269322
    """
    builder = lookup("model", name, MODELS)
    shape = tuple(input_shape)
    if not shape or min(shape) < 1:
        raise ConfigError(f"inputs of shape {shape}, expected at least one axis and none of length 0")
    if classes < 2:
        raise ConfigError(f"a model for {classes} classes, expected at least 2")
    # The CPU's generator alone is forked and seeded: torch.manual_seed would reseed every accelerator too, and not put them back.
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.default_generator.manual_seed(seed)
        return builder(shape, classes)
