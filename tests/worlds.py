"""Small worlds for the tests of attached optimizers: a model with a known gradient, and ranks that are slow at random."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import networkx as nx
import numpy as np
import torch
from torch import nn

from consensus.handle import Handle
from consensus.neighbours import NeighbourHandle
from consensus.optim import attach
from consensus.protocol.decision import Rule
from consensus.protocol.rounds import RoundRecord
from consensus.rules import RULES
from consensus.rules.deadline import Deadline
from consensus.rules.gap import Gap
from consensus.timing import Transient
from consensus.topology import build
from consensus.transport.base import Transport
from consensus.transport.straggler import StragglerTransport

EVERY_RULE: dict[str, Rule] = {
    **{name: rule() for name, rule in RULES.items()},
    "deadline": Deadline(seconds=0.002),  # the default is made for longer steps
    "gap": Gap(window=3),
}

EVERY_RULE_AND_WEIGHTS = [*((rule, "static") for rule in EVERY_RULE), ("full", "active"), ("dtur", "active")]


class Point(nn.Module):
    """A point w in R^d; its loss for a target c is |w - c|^2 / 2, so the gradient is w - c."""

    def __init__(self, size: int = 3, dtype: torch.dtype = torch.float64, value: float = 0.0) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.full((size,), value, dtype=dtype))

    def forward(self, target: torch.Tensor) -> torch.Tensor:
        return 0.5 * (self.w - target).square().sum()


def numbers(rank: int, size: int = 3, scale: float = 1.0) -> torch.Tensor:
    """A rank's own numbers, float64, shape (size,)."""
    return torch.from_numpy(np.random.default_rng([7, rank]).normal(size=size) * scale)


def random_graph(size: int, seed: int) -> nx.Graph:
    return build("erdos_renyi", size, seed=seed, probability=0.5)


def slowed(transport: Transport, seed: int, seconds: float = 1e-3, probability: float = 0.3, factor: float = 10) -> Transport:
    """The transport of a rank that is slow at times."""
    return StragglerTransport(transport, Transient(seconds, probability, factor).stream(transport.rank, seed))


def descend(handle: Handle, steps: int, target: torch.Tensor, after: Callable[[int], None] | None = None) -> None:
    """The loop that every script has."""
    for step in range(steps):
        handle.optimizer.zero_grad()
        handle.model(target).backward()
        handle.optimizer.step()
        if after is not None:
            after(step)


def attached_point(
    transport: Transport, *, lr: float, dtype: torch.dtype = torch.float64, **options: Any
) -> tuple[NeighbourHandle, list[RoundRecord]]:
    """An attached Point with plain SGD, at its rank's own numbers, and the list of its rounds to come."""
    model = Point(dtype=dtype)
    handle = attach(model, torch.optim.SGD(model.parameters(), lr=lr), transport=transport, **options)
    with torch.no_grad():
        model.w.copy_(numbers(transport.rank))
    records: list[RoundRecord] = []
    handle.on_round = lambda record, _: records.append(record)
    return handle, records


def closure_of(model: nn.Module, optimizer: torch.optim.Optimizer, target: torch.Tensor) -> Callable[[], torch.Tensor]:
    """What LBFGS and its like are given."""
    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = model(target)
        loss.backward()
        return loss

    return closure
