"""The quadratic plant against its closed forms."""

from __future__ import annotations

import numpy as np
import pytest

from consensus.errors import ConfigError
from consensus.sim.quadratic import Quadratic


def test_the_minimum_is_one() -> None:
    plant = Quadratic.draw(5, 3, heterogeneity=1.0, lr=0.1, condition=10.0, seed=2)
    at = lambda x: 0.5 * (plant.curvatures * np.square(x - plant.centres).sum(axis=1)).mean()  # noqa: E731
    assert plant.minimum == pytest.approx(at(plant.optimum))
    assert plant.loss() == pytest.approx(at(plant.mean()))
    assert all(at(plant.optimum + 1e-3 * np.eye(3)[k]) > plant.minimum for k in range(3))
    assert 0.1 <= plant.curvatures.min() <= plant.curvatures.max() <= 1.0


def test_workers_start_alike_at_distance_one() -> None:
    plant = Quadratic.draw(4, 9, heterogeneity=0.0, lr=0.1)
    assert plant.consensus_distance() == 0.0
    assert plant.distance() == pytest.approx(1.0)


def test_noise_has_the_given_size_and_is_the_workers_own() -> None:
    def models(order: list[int]) -> np.ndarray:
        plant = Quadratic(np.zeros((2, 20_000)), lr=1.0, noise=0.5, seed=3)
        for rank in order:
            plant.step(rank, 1)
        return plant.models

    first = models([0, 1])
    np.testing.assert_array_equal(first, models([1, 0]))
    assert first.std(axis=1) == pytest.approx([0.5, 0.5], rel=0.03)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"curvatures": np.ones(3)}, r"curvatures of \(3,\); expected"),
        ({"curvatures": np.array([1.0, 0.0])}, "expected curvatures above 0"),
        ({"noise": -1.0}, "noise 0 or more"),
        ({"noise": float("nan")}, "noise 0 or more"),
    ],
)
def test_what_is_no_problem(keys: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Quadratic(np.zeros((2, 2)), lr=0.1, **keys)
