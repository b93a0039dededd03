"""Range tests: of problems whose knee is known, and of a small run file."""

from __future__ import annotations

import json
import math
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch

from consensus.errors import ConfigError
from consensus.rules.rates import Knee
from consensus.run.prepare import prepare
from consensus.run.range_results import NUMBERS, PICTURE, setting, write_range_test
from consensus.run.range_test import SAFETY, Curve, Plan, knee_table, sweep
from consensus.run.range_training import range_test
from tests.experiments import small


class NoisyQuadratic:
    """F(x) = a/2 ||x||^2 with the mean of k gradients of standard deviation ``noise`` per coordinate."""

    def __init__(self, k: int, noise: float, seed: int, curvature: float = 0.5) -> None:
        self.x, self.a = np.full(20, 20**-0.5), curvature
        self.deviation, self.random = noise / math.sqrt(k), np.random.default_rng((seed, k))

    def step(self, rate: float) -> float:
        loss = 0.5 * self.a * float(self.x @ self.x)
        self.x = self.x - rate * (self.a * self.x + self.deviation * self.random.standard_normal(20))
        return loss


def quadratic(k: int, noise: float, plan: Plan, curvature: float = 0.5) -> Curve:
    losses = [sweep(NoisyQuadratic(k, noise, seed, curvature).step, plan) for seed in range(plan.repetitions)]
    return Curve(k, np.array(losses), plan)


@pytest.mark.parametrize("curvature", [0.05, 0.5, 5.0])
def test_without_noise_the_knee_is_where_theory_has_it(curvature: float) -> None:
    # Steps below 2/a descend, steps above ascend, and the best one is 1/a.
    plan = Plan(repetitions=1)
    curve = quadratic(1, 0.0, plan, curvature)
    between_two_means = (plan.stop / plan.start) ** (plan.width / plan.steps)
    assert 2 / curvature / between_two_means < curve.knee < 2 / curvature * between_two_means
    assert knee_table([curve])[1] == pytest.approx(curve.knee / SAFETY)


def test_the_knee_rises_with_the_gradients_until_noise_is_nothing() -> None:
    plan = Plan(repetitions=9)
    knees = [quadratic(k, 0.1, plan).knee for k in (1, 8, 64, 4096)]
    assert knees == sorted(knees)
    assert knees[1] > 1.1 * knees[0]
    assert knees[2] > 1.1 * knees[1]
    assert knees[3] < 2 / 0.5 * 1.3


def test_a_sweep_ends_when_it_has_diverged() -> None:
    rates: list[float] = []

    def step(rate: float) -> float:
        rates.append(rate)
        return 1.0 if rate < 1 else 10.0

    plan = Plan(start=0.01, stop=100, steps=100)
    losses = sweep(step, plan)
    assert len(losses) == plan.steps - 1
    assert 1 < rates[-1] < 2
    assert np.isinf(losses[len(rates) - 1 :]).all()
    assert np.isfinite(losses[: len(rates) - 1]).all()


def test_a_loss_is_that_after_the_step() -> None:
    after = {rate: float(index) for index, rate in enumerate(Plan(steps=50).rates[1:])}
    losses = sweep(lambda rate: after.get(rate, 5.0) / 1e3 + 1, Plan(steps=50))
    assert losses.tolist() == pytest.approx([index / 1e3 + 1 for index in range(49)])


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_no_number_ends_a_sweep(broken: float) -> None:
    losses = sweep(lambda rate: broken if rate > 1 else 1.0, Plan(steps=50))
    assert np.isfinite(losses[:20]).all()
    assert np.isposinf(losses[30:]).all()


def test_how_far_it_diverges_does_not_matter() -> None:
    plan = Plan(repetitions=1)
    rates = plan.rates[:-1]
    knees = []
    for above in (2.5, 1e6, math.inf):
        losses = np.where(rates < 1, 2 - 0.3 * np.log10(rates / plan.start), above)
        knees.append(Curve(1, losses[None], plan).knee)
    assert knees[0] == knees[1] == knees[2]


def made_up(k: int, knee: float, plan: Plan) -> Curve:
    """A loss that falls as far as ``knee`` and rises from there."""
    distance = np.abs(np.log(plan.rates[:-1] / knee))
    return Curve(k, np.tile(np.minimum(2.0, 1 + distance), (plan.repetitions, 1)), plan)


def test_rates_that_fall_with_k_are_pooled() -> None:
    plan = Plan(repetitions=1)
    curves = [made_up(k, knee, plan) for k, knee in ((8, 4.0), (1, 1.0), (2, 4.0), (4, 1.0))]
    table = knee_table(curves)
    assert list(table) == [1, 2, 4, 8]
    assert list(table.values()) == pytest.approx([0.5, 1.0, 1.0, 2.0], rel=0.06)


def test_one_odd_repetition_does_not_move_the_knee() -> None:
    plan = Plan(repetitions=5)
    curve = made_up(1, 1.0, plan)
    losses = curve.losses.copy()
    losses[0] = made_up(1, 30.0, Plan(repetitions=1)).losses[0]
    assert Curve(1, losses, plan).knee == curve.knee


def test_a_loss_that_never_falls() -> None:
    plan = Plan()
    noise = np.random.default_rng(1).normal(2.3, 0.2, (plan.repetitions, plan.steps - 1))
    rising = np.tile(np.linspace(1, 3, plan.steps - 1), (plan.repetitions, 1))
    diverged = np.full((plan.repetitions, plan.steps - 1), math.inf)
    for losses in (noise, rising, diverged):
        with pytest.raises(ConfigError, match=r"k = 4: the loss never falls: .* --start 1e-06; otherwise take --steps 480"):
            _ = Curve(4, losses, plan).knee


def test_a_loss_that_falls_to_the_end() -> None:
    with pytest.raises(ConfigError, match=r"still falls at the highest rate, 10 times .* --stop 10000"):
        _ = quadratic(1, 0.0, Plan(stop=10), curvature=0.01).knee


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"start": 0.0}, "rates from 0 to 1000, expected 0 < start < stop"),
        ({"start": 2.0, "stop": 1.0}, "rates from 2 to 1,"),
        ({"stop": math.inf}, "to inf"),
        ({"start": math.nan}, "from nan"),
        ({"steps": 49}, "49 steps, expected 50 or more"),
        ({"repetitions": 0}, "0 repetitions, expected 1 or more"),
    ],
)
def test_impossible_plans(change: dict[str, float], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Plan(**change)  # type: ignore[arg-type]


QUICK = Plan(steps=80, repetitions=2)


def test_a_run_file(tmp_path: Path) -> None:
    config = small(tmp_path, run={"ranks": 5}, rule={"name": "dbw"})
    done: list[tuple[int, int]] = []
    curves = range_test(config, plan=QUICK, report=lambda *counts: done.append(counts))
    assert [curve.gradients for curve in curves] == [1, 2, 4]
    assert done == [(count, 6) for count in range(1, 7)]
    table = knee_table(curves)
    write_range_test(tmp_path, config, curves, table)
    numbers = json.loads((tmp_path / NUMBERS).read_text())
    assert numbers["workers"] == 4
    assert numbers["table"] == {str(k): rate for k, rate in table.items()}
    assert [np.shape(curve["losses"]) for curve in numbers["curves"]] == [(2, 79)] * 3
    assert (tmp_path / PICTURE).stat().st_size > 0
    again = range_test(config, [4, 1, 4], QUICK)
    assert [curve.gradients for curve in again] == [1, 4]
    assert (again[0].losses == curves[0].losses).all()


def test_the_setting_is_what_a_run_file_takes() -> None:
    table = {1: 0.000012345, 2: 1.0, 16: 12345.6}
    section = tomllib.loads(setting(table))["learning_rate"]
    assert section.pop("name") == "knee"
    assert Knee(**section).table == pytest.approx(table, rel=0.005)


def test_the_mean_of_all_gradients_is_that_of_all_their_samples(tmp_path: Path) -> None:
    config = small(
        tmp_path, run={"ranks": 3}, rule={"name": "bsp"}, data={"batch": 1000}, optimizer={"lr": 0.05, "clip_norm": 0.3}
    )
    # Batches as large as the shares, two shares alike in size: the mean of both gradients is that of all samples.
    plan = Plan(start=0.5, stop=4.0, steps=50, repetitions=1)
    (curve,) = range_test(config, [2], plan)
    task = prepare(config, 1, 3)
    inputs, labels = task.dataset.train.batch(np.arange(len(task.dataset.train.labels)))
    assert len(labels) % 2 == 0
    expected = []
    for rate in plan.rates:
        task.optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(task.model(inputs), labels)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(task.model.parameters(), 0.3)
        task.optimizer.param_groups[0]["lr"] = 0.05 * rate
        task.optimizer.step()
        expected.append(loss.item())
    assert curve.losses[0] == pytest.approx(expected[1:], rel=1e-4)


@pytest.mark.parametrize(
    ("changes", "gradients", "words"),
    [
        ({}, [], r"run.ranks: missing, .* --ranks 8"),
        ({"run": {"ranks": 4}, "rule": {"name": "dbw"}}, [1, 4], r"k = 4 gradients, expected 1 to 3"),
        ({"run": {"ranks": 4}}, [0], r"k = 0 gradients, expected 1 to 4"),
        ({"run": {"ranks": 4}, "optimizer": {"lr": 0.0}}, [], r"optimizer.lr = 0: expected above 0"),
        ({"run": {"ranks": 4}, "model": {"name": "cnm"}}, [], r"cnm"),
    ],
)
def test_what_cannot_be_measured(tmp_path: Path, changes: dict, gradients: list[int], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        range_test(small(tmp_path, **changes), gradients, QUICK)
