"""A model to train or merely to exchange, and an optimizer that leaves it alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import nn
from torch.nn import functional


def network(widths: Sequence[int]) -> nn.Sequential:
    """A perceptron with ReLU between layers of these widths."""
    layers = [module for inward, outward in pairwise(widths) for module in (nn.Linear(inward, outward), nn.ReLU())]
    return nn.Sequential(*layers[:-1])


class Still(torch.optim.Optimizer):
    """An optimizer whose step changes nothing: what is left of a step is what hangs on it."""

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        super().__init__(parameters, {})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        """Do nothing."""


def forward_backward(model: nn.Module, inward: int, batch: int) -> Callable[[], None]:
    """A function that computes the gradients of one random batch, always the same."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(batch, inward, generator=generator)
    labels = torch.randint(10, (batch,), generator=generator)

    def run() -> None:
        model.zero_grad()
        functional.cross_entropy(model(inputs), labels).backward()

    return run
