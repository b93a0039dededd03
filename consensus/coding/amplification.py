"""How much a code amplifies rounding errors: kappa."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from consensus.coding.arcs import Ring
from consensus.coding.arrays import Floats
from consensus.coding.decoder import minimum_norm
from consensus.coding.patterns import silent_sets

LISTED = 1000
"""Sets of silent nodes of one size that are all gone through; of more, a sample."""
DRAWN = 200
"""Random sets of that sample."""


def silence_weights(matrix: Floats, stragglers: int) -> tuple[Floats, bool]:
    """Decoding weights for sets of up to s silent nodes of one ring.

    Parameters
    ----------
    matrix : ndarray, shape (nodes, items), float64
        Its coefficients.
    stragglers : int
        s.

    Returns
    -------
    weights : ndarray, shape (sets, nodes), float64
        Zero where a node is silent; sets that cannot be the worst are left out.
    complete : bool
        Whether all other sets of up to s silent nodes are among these.
    """
    nodes = len(matrix)
    if len(matrix) == stragglers + 1:
        # All hold all, and weights are those of an average: the most is amplified when the worst of them comes alone.
        return np.diag(1 / matrix[:, 0]), True
    distinct, multiplicity = np.unique(matrix, axis=1, return_counts=True)
    found, complete = [], True
    for silent in range(stragglers + 1):
        sets, all_of_them = silent_sets(nodes, silent, LISTED, DRAWN)
        complete &= all_of_them
        alive = np.ones((len(sets), nodes), dtype=bool)
        np.put_along_axis(alive, sets, False, axis=1)
        came = np.nonzero(alive)[1].reshape(len(sets), nodes - silent)
        weights = np.zeros((len(sets), nodes))
        np.put_along_axis(weights, came, minimum_norm(distinct[came], multiplicity.astype(np.float64)), axis=1)
        found.append(weights)
    return np.concatenate(found), complete


class Amplification:
    """How much a layer's decoding amplifies errors in what its nodes send.

    Parameters
    ----------
    rings : sequence of Ring
        Of the layer.
    matrix : ndarray, shape (nodes, items), float64
        Coefficients b.
    stragglers : int
        s.

    Notes
    -----
    Going through the sets of silent nodes takes up to a second for large rings; it is done when it is first asked for, once.
    """

    def __init__(self, rings: Sequence[Ring], matrix: Floats, stragglers: int) -> None:
        self._rings, self._matrix, self._stragglers = rings, matrix, stragglers

    @cached_property
    def _silences(self) -> list[tuple[Floats, bool]]:
        blocks = [self._matrix[list(ring.nodes), ring.first : ring.first + ring.size] for ring in self._rings]
        return [silence_weights(block, self._stragglers) for block in blocks]

    @property
    def complete(self) -> bool:
        """Whether all sets of up to s silent nodes of every ring were gone through."""
        return all(complete for _, complete in self._silences)

    def worst(self, factors: Floats | None = None) -> Floats:
        r"""The largest :math:`\sum_i |a_i| |b_{ik}| f_{ik}` of each item k over the sets of silent nodes.

        Parameters
        ----------
        factors : ndarray, shape (nodes, items), float64, optional
            f, by how much the nodes' own layers amplify an item's errors already; 1 if not given.

        Returns
        -------
        ndarray, shape (items,), float64
        """
        sizes = np.abs(self._matrix) if factors is None else np.abs(self._matrix) * factors
        worst = np.zeros(self._matrix.shape[1])
        for ring, (weights, _) in zip(self._rings, self._silences, strict=True):
            items = slice(ring.first, ring.first + ring.size)
            worst[items] = (np.abs(weights) @ sizes[list(ring.nodes), items]).max(axis=0)
        return worst
