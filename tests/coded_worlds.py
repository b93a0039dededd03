"""Coded training with a known answer, for tests in-process and under MPI."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from consensus.coded_handle import CodedHandle, CodedWorkerHandle, RelayHandle, seed_of
from consensus.coding import GradientCode
from consensus.optim import attach
from consensus.protocol.service import Arrival, ServerView, Verdict
from consensus.transport.base import Transport
from consensus.types import Rank, Round, Seconds

FOR_EVER = 1e5


def network(dtype: torch.dtype = torch.float64) -> nn.Module:
    """A small model with dropout, whose masks replicas of a part have to share."""
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Dropout(0.25), nn.Linear(7, 3)).to(dtype)


def samples(step: int, part: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """A part's samples at a step; parts differ in how many they have."""
    random = np.random.default_rng([step, part])
    count = 2 + part % 3
    return torch.from_numpy(random.normal(size=(count, 5))).to(dtype), torch.from_numpy(random.integers(3, size=count))


def loss_of(model: nn.Module) -> Callable[[int, int], tuple[Tensor, int]]:
    """The sum over a part's samples, and how many there are."""
    dtype = next(model.parameters()).dtype

    def part_loss(step: int, part: int) -> tuple[Tensor, int]:
        inputs, labels = samples(step, part, dtype)
        return nn.functional.cross_entropy(model(inputs), labels, reduction="sum"), len(labels)

    return part_loss


def momentum(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.5)


def numbers_of(model: nn.Module) -> np.ndarray:
    return torch.cat([parameter.detach().reshape(-1) for parameter in model.parameters()]).double().numpy().copy()


class SilentRule:
    """An edge's rule that is never content at some versions: the edge is silent then."""

    def __init__(self, rule: Any, versions: Collection[int]) -> None:
        self._rule, self._versions = rule, versions

    def __getattr__(self, name: str) -> Any:
        return getattr(self._rule, name)

    def decide(self, view: ServerView, arrival: Arrival | None, state: Any, now: Seconds) -> tuple[Verdict, Any]:
        if view.version in self._versions:
            return Verdict("silent"), state
        verdict: tuple[Verdict, Any] = self._rule.decide(view, arrival, state, now)
        return verdict


class SilentTransport:
    """A worker's transport on which its steps at some versions never end, or take so many seconds."""

    def __init__(self, transport: Transport, versions: Collection[int], seconds: Seconds = FOR_EVER) -> None:
        self._transport, self._versions, self._seconds = transport, versions, seconds
        self.version: Callable[[], int] = lambda: -1

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def pace(self, round: Round, elapsed: Seconds) -> Seconds:
        return self._seconds if self.version() in self._versions else 0.0


def silence(code: GradientCode, s_e: int, s_w: int, steps: int, seed: int) -> dict[Rank, set[int]]:
    """For each rank the versions at which it is silent: s_e edges, and s_w workers of every edge, drawn anew at each."""
    random = np.random.default_rng(seed)
    edges, counts = len(code.workers_per_edge), code.workers_per_edge
    relays = 0 if code.direct else edges
    starts = 1 + relays + np.concatenate([[0], np.cumsum(counts)])
    silent: dict[Rank, set[int]] = {rank: set() for rank in range(int(starts[-1]))}
    for step in range(steps):
        quiet = set(random.choice(edges, s_e, replace=False).tolist())
        for edge in range(edges):
            # In a code of one layer a silent edge is one whose workers are all silent.
            many = counts[edge] if code.direct and edge in quiet else s_w
            for worker in random.choice(counts[edge], many, replace=False).tolist():
                silent[int(starts[edge]) + worker].add(step)
        for edge in quiet if relays else ():
            silent[1 + edge].add(step)
    return silent


def train(
    transport: Transport,
    code: GradientCode,
    steps: int,
    *,
    silent: dict[Rank, set[int]] | None = None,
    model: nn.Module | None = None,
    **options: Any,
) -> tuple[list[np.ndarray], CodedHandle, nn.Module]:
    """Train this rank; return the master's models after each update, the handle, and the model that all end with."""
    model = network() if model is None else model
    mine = (silent or {}).get(transport.rank, set())
    quiet = SilentTransport(transport, mine)
    seen: list[np.ndarray] = []
    with attach(model, momentum(model), architecture="coded", code=code, transport=quiet, **options) as handle:
        assert isinstance(handle, CodedHandle)
        if isinstance(handle, CodedWorkerHandle):
            engine = handle.engine
            quiet.version = lambda: engine.version
        if isinstance(handle, RelayHandle):
            handle.engine.rule = SilentRule(handle.engine.rule, mine)
        handle.train(loss_of(model), steps=steps, on_update=lambda *told: seen.append(numbers_of(model)))
        handle.average()
    return seen, handle, model


def reference(steps: int, parts: int, dtype: torch.dtype = torch.float64) -> list[np.ndarray]:
    """One process that computes every part once at every step."""
    model = network(dtype)
    optimizer, part_loss = momentum(model), loss_of(model)
    seen = []
    for step in range(steps):
        optimizer.zero_grad()
        count = 0
        for part in range(parts):
            torch.manual_seed(seed_of(step, part))
            loss, n = part_loss(step, part)
            loss.backward()
            count += n
        for parameter in model.parameters():
            assert parameter.grad is not None
            parameter.grad /= count
        optimizer.step()
        seen.append(numbers_of(model))
    return seen
