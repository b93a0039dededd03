"""Steps are longer where they are few, and learning rates are what they were afterwards."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import consensus
from consensus.errors import ConfigError
from consensus.step_scale import LARGEST, WARM_UP, ScaledStep, factor
from consensus.transport.loopback import LoopbackTransport, run

LR = 0.125
ROUNDS = 60


def test_steps_are_scaled_by_how_few_they_are_within_bounds() -> None:
    assert factor(0.5, WARM_UP) == 2.0
    assert factor(2.0, WARM_UP) == 0.5
    assert factor(0.5, WARM_UP - 1) == 1.0
    assert (factor(1e-9, WARM_UP), factor(1e9, WARM_UP)) == (LARGEST, 1 / LARGEST)


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adam])
def test_the_step_is_so_many_times_as_long(kind: type[torch.optim.Optimizer]) -> None:
    moved = []
    for by in (1.0, 3.0):
        parameter = nn.Parameter(torch.zeros(2))
        optimizer = kind([parameter], lr=LR)  # type: ignore[call-arg]
        parameter.grad = torch.tensor([1.0, -2.0])
        scaled = ScaledStep(optimizer)
        scaled.begin(by)
        optimizer.step()
        scaled.end()
        assert optimizer.param_groups[0]["lr"] == LR
        moved.append(parameter.detach())
    torch.testing.assert_close(moved[1], 3 * moved[0])


def test_a_step_that_was_broken_off_does_not_add_up() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=LR)
    scaled = ScaledStep(optimizer)
    scaled.begin(2.0)
    scaled.begin(2.0)
    assert optimizer.param_groups[0]["lr"] == 2 * LR
    scaled.end()
    assert optimizer.param_groups[0]["lr"] == LR


class Rates(torch.optim.SGD):
    """Takes down the learning rate of every step."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model.parameters(), lr=LR)
        self.seen: list[float] = []

    def step(self, closure: object = None) -> None:  # type: ignore[override]
        self.seen.append(self.param_groups[0]["lr"])


def train(transport: LoopbackTransport, step_scale: str) -> tuple[list[float], list[float], int]:
    model = nn.Linear(1, 1)
    optimizer = Rates(model)
    scheduler = torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
    after = []
    with consensus.attach(
        model, optimizer, topology="complete", rule="static_backup", transport=transport, step_scale=step_scale  # type: ignore[arg-type]
    ) as handle:
        while transport.now() < ROUNDS:
            transport.sleep(4.0 if transport.rank == 0 else 1.0)
            optimizer.step()
            scheduler.step()
            after.append(optimizer.param_groups[0]["lr"])
        return optimizer.seen, after, handle.statistics.rounds


def test_a_slow_rank_takes_longer_steps() -> None:
    results = run(4, lambda transport: train(transport, "participation"))
    rounds = [count for _, _, count in results]
    assert rounds[0] < min(rounds[1:]) / 3
    for (seen, after, _), count in zip(results, rounds, strict=True):
        assert set(after) == {LR}
        assert set(seen[:WARM_UP]) == {LR}
        assert seen[-1] / LR == pytest.approx(sum(rounds) / len(rounds) / count, rel=0.15)


def test_by_default_steps_are_left_alone() -> None:
    for seen, _, _ in run(4, lambda transport: train(transport, "none")):
        assert set(seen) == {LR}


def test_bad_input() -> None:
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)
    with pytest.raises(ConfigError, match="step_scale = 'participaton'; did you mean 'participation'"):
        consensus.attach(model, optimizer, topology="ring", step_scale="participaton")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="step_scale do not apply"):
        consensus.attach(model, optimizer, topology="ring", rule="allreduce", step_scale="participation")
