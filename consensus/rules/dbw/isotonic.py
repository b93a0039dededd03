"""Least squares under the two orders that waiting times obey: along each row, and along the diagonal."""

from __future__ import annotations

from bisect import bisect_left
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

from consensus.errors import ConfigError

_ROUNDING = 1e-12
"""A pull this small, relative to all that pulls, is rounding; taken seriously it would lead into an interval of equal minima."""


class _Pull(NamedTuple):
    """How a run of equal diagonal cells is pulled: up by each of ``up`` that is above them, down by each of ``down`` below."""

    up: NDArray[np.float64]
    up_weights: NDArray[np.float64]
    down: NDArray[np.float64]
    down_weights: NDArray[np.float64]

    def merged(self, other: _Pull) -> _Pull:
        return _Pull(*(np.concatenate(pair) for pair in zip(self, other, strict=True)))

    def excess(self, value: float) -> float:
        """Half the derivative of the squared error by the shared value: nondecreasing, piecewise linear."""
        below = np.maximum(value - self.down, 0.0) @ self.down_weights
        above = np.maximum(self.up - value, 0.0) @ self.up_weights
        return float(below - above)

    def balance(self, floor: float) -> float:
        """The lowest value, not below ``floor``, of least squared error."""
        if not self.up.size:
            return floor
        points = np.unique(np.concatenate((self.up, self.down)))
        tiny = _ROUNDING * float(points[-1] - points[0]) * float(self.up_weights.sum() + self.down_weights.sum())
        right = bisect_left(points, -tiny, key=self.excess)
        if right == 0:
            return float(points[0])
        low, high = float(points[right - 1]), float(points[right])
        at_low, at_high = self.excess(low), self.excess(high)
        return low + (high - low) * min(1.0, at_low / (at_low - at_high))


def diagonal_isotonic(values: NDArray[np.float64], weights: NDArray[np.float64], floor: float = 0.0) -> NDArray[np.float64]:
    r"""Fit x minimising :math:`\sum w_{h,k} (x_{h,k} - y_{h,k})^2` with rows and diagonal nondecreasing.

    The constraints are :math:`x_{h,k} \le x_{h,k+1}` and :math:`x_{k,k} \le x_{k+1,k+1}`. Where the weight is 0 there is nothing
    to fit: such a cell gets the lowest value that the constraints and ``floor`` leave it.

    Parameters
    ----------
    values : ndarray, shape (n, n), float64
        y: row h - 1 and column k - 1 hold the mean observed for (h, k), at least ``floor``; ignored where the weight is 0.
    weights : ndarray, shape (n, n), float64
        w, at least 0; the number of observations behind each mean.
    floor : float
        Lowest value an unobserved cell may get, in the unit of ``values``.

    Returns
    -------
    ndarray, shape (n, n), float64
        x.

    Raises
    ------
    ConfigError
        If the shapes do not fit, a weight is negative or not finite, or an observed value is not finite or below ``floor``.

    Notes
    -----
    Exact, without iterating to a tolerance. With its diagonal cell held at d, the best row is the isotonic regression of its left
    part cut off above d and that of its right part cut off below d; the error that is left is a convex function of d. What
    remains is isotonic regression of these functions along the diagonal, solved by pooling adjacent violators. Dykstra's
    alternating projections onto the rows and the diagonal have the same limit where every cell is observed, but take hundreds of
    rounds for 32 workers, and cannot carry the order across a diagonal cell without a weight. The algorithm is ours, and so is
    the value of empty cells.

    References
    ----------
    Xu, Neglia, Sebastianelli, *Dynamic Backup Workers for Parallel Machine Learning*, arXiv 2004.14696. The paper's body was not
    at hand: the constraints follow from what the times mean.

    Examples
    --------
    >>> y = np.array([[1.0, 2.0, 3.0], [0.0, 0.5, 4.0], [1.0, 0.0, 2.0]])
    >>> diagonal_isotonic(y, np.ones((3, 3)))
    array([[0.75, 2.  , 3.  ],
           [0.  , 0.75, 4.  ],
           [0.5 , 0.5 , 2.  ]])
    >>> w = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    >>> diagonal_isotonic(y, w)
    array([[1., 1., 1.],
           [0., 1., 4.],
           [0., 0., 1.]])
    """
    y, w = _checked(values, weights, floor)
    n = len(y)
    x = np.where(w > 0, y, floor)
    for h in range(n):
        _regress(x[h, :h], w[h, :h])
        _regress(x[h, h + 1 :], w[h, h + 1 :])
    diagonal = _diagonal(x, w, floor)
    for h in range(n):
        np.minimum(x[h, :h], diagonal[h], out=x[h, :h])
        np.maximum(x[h, h + 1 :], diagonal[h], out=x[h, h + 1 :])
        x[h, h] = diagonal[h]
    return np.maximum.accumulate(x, axis=1)


def _checked(
    values: NDArray[np.float64], weights: NDArray[np.float64], floor: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    y, w = np.asarray(values, dtype=np.float64), np.asarray(weights, dtype=np.float64)
    if y.ndim != 2 or y.shape[0] != y.shape[1] or w.shape != y.shape:
        raise ConfigError(f"isotonic fit: values {y.shape} and weights {w.shape}, expected two square arrays of one shape")
    if not (np.isfinite(w) & (w >= 0)).all():
        raise ConfigError("isotonic fit: a weight is negative or not finite; pass the number of observations, 0 for none")
    bad = (w > 0) & ~(np.isfinite(y) & (y >= floor))
    if bad.any():
        h, k = (int(i) for i in np.argwhere(bad)[0])
        raise ConfigError(
            f"isotonic fit: values[{h}, {k}] = {y[h, k]}, expected a finite number, {floor} or more; give the cell weight 0"
        )
    return y, w


def _regress(row: NDArray[np.float64], weights: NDArray[np.float64]) -> None:
    """Make the observed cells of a row nondecreasing, in place."""
    seen = weights > 0
    observed = row[seen]
    if (observed[1:] < observed[:-1]).any():
        row[seen] = isotonic_regression(observed, weights=weights[seen]).x


def _diagonal(x: NDArray[np.float64], w: NDArray[np.float64], floor: float) -> NDArray[np.float64]:
    """The diagonal's values, from rows whose two parts are isotonic each for itself."""
    runs: list[tuple[float, _Pull, int]] = []
    for h in range(len(x)):
        up, down = np.flatnonzero(w[h, : h + 1]), h + np.flatnonzero(w[h, h:])
        pull, length = _Pull(x[h, up], w[h, up], x[h, down], w[h, down]), 1
        value = pull.balance(floor)
        while runs and runs[-1][0] > value:
            _, before, more = runs.pop()
            pull, length = before.merged(pull), length + more
            value = pull.balance(floor)
        runs.append((value, pull, length))
    return np.repeat([value for value, _, _ in runs], [length for _, _, length in runs])
