"""Decoding a layer: weights with which the vectors that came sum to the sum of all items, and how far they are from it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

import numpy as np

from consensus.coding.arrays import Floats

TOLERANCE = 1e-9
"""Largest residual at which a set of nodes counts as decodable.

Rounding leaves about 1e-16 times the amplification, and :mod:`consensus.coding.precision` refuses amplifications above a million
even for float64; what cannot be decoded lacks an item altogether or is off by an amount of the coefficients' own size.
"""

REMEMBERED = 1024
"""Sets of nodes whose weights a decoder keeps, those used last: a few hundred bytes each."""


def minimum_norm(rows: Floats, multiplicity: Floats) -> Floats:
    """The weights of least norm among those that come nearest, in least squares, to summing each item to one.

    Parameters
    ----------
    rows : ndarray, shape (..., alive, distinct), float64
        Coefficients of the nodes that came; columns that are equal given once.
    multiplicity : ndarray, shape (distinct,), float64
        How often each column occurs, which matters if the weights cannot be exact.

    Returns
    -------
    ndarray, shape (..., alive), float64
    """
    root = np.sqrt(multiplicity)
    scaled = np.swapaxes(rows * root, -1, -2)
    return np.asarray(np.linalg.pinv(scaled, rcond=np.finfo(np.float64).eps * max(scaled.shape[-2:])) @ root)


class Decoder:
    """Minimum-norm decoding of one layer, by the set of nodes that came.

    Parameters
    ----------
    matrix : ndarray, shape (nodes, items), float64
        Coefficients.

    Notes
    -----
    The last :data:`REMEMBERED` sets asked for are remembered with their weights.
    """

    def __init__(self, matrix: Floats) -> None:
        self._distinct, multiplicity = np.unique(matrix, axis=1, return_counts=True)
        self._multiplicity = multiplicity.astype(np.float64)
        self._held = self._distinct != 0
        self._known: OrderedDict[frozenset[int], tuple[tuple[int, ...], Floats, float]] = OrderedDict()

    def solve(self, alive: Iterable[int]) -> tuple[tuple[int, ...], Floats, float]:
        """The weights of the nodes that came.

        Parameters
        ----------
        alive : iterable of int
            Rows of the matrix, each at most once.

        Returns
        -------
        nodes : tuple of int
            ``alive``, rising.
        weights : ndarray, shape (len(nodes),), float64
            Read-only, as it is shared.
        residual : float
            The largest distance from one of an item's sum of coefficients: 1 if an item is missing.
        """
        key = frozenset(alive)
        if key in self._known:
            self._known.move_to_end(key)
            return self._known[key]
        nodes = tuple(sorted(key))
        rows = self._distinct[list(nodes)]
        weights = minimum_norm(rows, self._multiplicity)
        weights.flags.writeable = False
        residual = float(np.abs(weights @ rows - 1).max(initial=0.0))
        self._known[key] = nodes, weights, residual
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
        return self._known[key]

    def exact(self, alive: Iterable[int]) -> bool:
        """Whether every item can be had back from these nodes."""
        nodes = list(alive)
        # Cheap and mostly enough while a layer waits for its first nodes.
        return bool(self._held[nodes].any(axis=0).all()) and self.solve(nodes)[2] <= TOLERANCE
