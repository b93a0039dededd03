"""The fit under two orders, against the max-min formula by enumeration and against Dykstra's alternating projections."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

from consensus.errors import ConfigError
from consensus.rules.dbw import diagonal_isotonic

Numbers = NDArray[np.float64]
Cell = tuple[int, int]


def before(a: Cell, b: Cell) -> bool:
    """Whether the constraints together say x[a] <= x[b]: along one row, or to a diagonal, down it, and off it."""
    if a[0] == b[0]:
        return a[1] <= b[1]
    return a[1] <= a[0] < b[0] <= b[1]


def enumerated(y: Numbers, w: Numbers, floor: float) -> Numbers:
    """The fit by definition: the max over upper sets of the min over lower sets of the mean over what they share."""
    cells: list[Cell] = [(int(h), int(k)) for h, k in np.argwhere(w > 0)]
    sets = [frozenset(s) for size in range(len(cells) + 1) for s in combinations(cells, size)]
    uppers = [s for s in sets if all(b in s for a in s for b in cells if before(a, b))]
    lowers = [frozenset(cells) - s for s in uppers]

    def mean(shared: frozenset[Cell]) -> float:
        weight = sum(w[c] for c in shared)
        return float(sum(w[c] * y[c] for c in shared) / weight)

    fitted = {c: max(min(mean(u & low) for low in lowers if c in low) for u in uppers if c in u) for c in cells}
    x = np.empty_like(y)
    for c in np.ndindex(*y.shape):
        x[c] = fitted[c] if c in fitted else max([floor, *(fitted[a] for a in cells if before(a, c))])
    return x


def dykstra(y: Numbers, w: Numbers) -> Numbers:
    """Projections onto the rows' order and the diagonal's in turn, each with the correction it left the time before."""
    n = len(y)
    x, at_rows, at_diagonal = y.copy(), np.zeros_like(y), np.zeros(n)
    for _ in range(5000):
        shifted = x + at_rows
        rows = np.stack([isotonic_regression(shifted[h], weights=w[h]).x for h in range(n)])
        at_rows = shifted - rows
        wanted = rows.diagonal() + at_diagonal
        diagonal = isotonic_regression(wanted, weights=w.diagonal()).x
        at_diagonal = wanted - diagonal
        moved = float(np.abs(diagonal - rows.diagonal()).max())
        x = rows
        np.fill_diagonal(x, diagonal)
        if moved < 1e-10:
            return x
    raise AssertionError(f"no convergence, the last round moved {moved}")


@st.composite
def tables(draw: st.DrawFn) -> tuple[Numbers, Numbers]:
    """Values and weights with at most 7 observed cells."""
    n = draw(st.integers(1, 5))
    place = st.integers(0, n - 1)
    observed = draw(st.dictionaries(st.tuples(place, place), st.tuples(st.integers(0, 9), st.integers(1, 4)), max_size=7))
    y, w = np.full((n, n), np.nan), np.zeros((n, n))
    for cell, (value, weight) in observed.items():
        y[cell], w[cell] = value, weight
    return y, w


@given(tables(), st.sampled_from([0.0, -1.0]))
@settings(max_examples=150, deadline=None)
def test_it_is_the_least_squares_fit_and_empty_cells_are_lowest(table: tuple[Numbers, Numbers], floor: float) -> None:
    np.testing.assert_allclose(diagonal_isotonic(*table, floor=floor), enumerated(*table, floor), atol=1e-9)


@pytest.mark.parametrize("spread", [0.03, 0.3, 3.0])
def test_it_is_the_limit_of_dykstra(spread: float) -> None:
    rng = np.random.default_rng(7)
    n = 8
    times = np.cumsum(1.0 / np.arange(n, 0, -1)) * np.linspace(2.0, 1.0, n)[:, None]
    y = np.abs(times + spread * rng.standard_normal((n, n)))
    w = rng.integers(1, 50, (n, n)).astype(float)
    np.testing.assert_allclose(diagonal_isotonic(y, w), dykstra(y, w), atol=1e-7)


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.1, 0.5, 1.0]))
@settings(max_examples=30, deadline=None)
def test_many_workers_few_or_many_cells(seed: int, observed: float) -> None:
    rng = np.random.default_rng(seed)
    n = 24
    y = rng.exponential(size=(n, n))
    w = rng.integers(1, 50, (n, n)) * (rng.random((n, n)) < observed)
    x = diagonal_isotonic(y, w.astype(float))
    assert (np.diff(x, axis=1) >= 0).all()
    assert (np.diff(x.diagonal()) >= 0).all()
    # Of the best point in a cone: the error is orthogonal to it, and no step into the cone (here to any point of it) goes down.
    error = w * (y - x)
    assert float((error * x).sum()) == pytest.approx(0.0, abs=1e-8 * float((w * y * y).sum()))
    for _ in range(20):
        into = np.sort(rng.exponential(size=(n, n)) * rng.choice([0.01, 1.0, 100.0], (n, 1)), axis=1)
        np.fill_diagonal(into, np.maximum.accumulate(into.diagonal()))
        into = np.maximum.accumulate(into, axis=1)
        np.fill_diagonal(into, np.maximum.accumulate(into.diagonal()))
        if (np.diff(into, axis=1) >= 0).all():
            assert float((error * into).sum()) <= 1e-8 * float((w * y * y).sum())


def test_what_fits_already_stays() -> None:
    y = np.array([[1.0, 2.0, 3.0], [0.5, 1.5, 9.0], [1.0, 1.0, 2.0]])
    np.testing.assert_array_equal(diagonal_isotonic(y, np.full((3, 3), 5.0)), y)


@pytest.mark.parametrize(
    ("y", "w", "word"),
    [
        (np.zeros((2, 3)), np.zeros((2, 3)), r"values \(2, 3\)"),
        (np.zeros((2, 2)), np.zeros((3, 3)), r"weights \(3, 3\)"),
        (np.zeros((1, 1)), np.full((1, 1), -1.0), "a weight is negative"),
        (np.full((1, 1), np.nan), np.ones((1, 1)), r"values\[0, 0\] = nan"),
        (np.full((1, 1), -2.0), np.ones((1, 1)), r"-2.0, expected a finite number, 0.0 or more"),
    ],
)
def test_what_cannot_be_fitted_is_refused(y: Numbers, w: Numbers, word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        diagonal_isotonic(y, w)
