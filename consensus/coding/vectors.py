"""Sums of vectors with weights: the one thing that workers, edges and the master do to gradients."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from consensus.coding.arrays import Floats, Vector
from consensus.errors import CodingError


def weighted_sum(weights: Floats, vectors: Sequence[Vector] | Vector, where: str) -> Vector:
    """The sum of vectors, each times its weight.

    Parameters
    ----------
    weights : ndarray, shape (count,), float64
        Cast to the vectors' dtype.
    vectors : ndarray, shape (count, size), or sequence of ndarray, shape (size,)
        All of one floating dtype.
    where : str
        Whose vectors they are, for messages.

    Returns
    -------
    ndarray, shape (size,)
        Of the vectors' dtype.

    Raises
    ------
    CodingError
        If there is no vector, their number is not that of the weights, or they differ in length or dtype or are not floating.
    """
    if len(vectors) != len(weights):
        raise CodingError(f"{where}: {len(vectors)} vectors came for {len(weights)} weights; pass one for each")
    if not len(weights):
        raise CodingError(f"{where}: there is nothing to sum; a node that holds no part takes no part")
    first = vectors[0]
    for index, vector in enumerate(vectors):
        if vector.ndim != 1 or vector.shape != first.shape or vector.dtype != first.dtype:
            raise CodingError(
                f"{where}: vector {index} has shape {vector.shape} and dtype {vector.dtype}, vector 0 {first.shape} and "
                f"{first.dtype}; pass flat vectors of one length and dtype"
            )
    if not np.issubdtype(first.dtype, np.floating):
        raise CodingError(f"{where}: vectors are of dtype {first.dtype}; gradients are floating-point, like float32")
    cast = weights.astype(first.dtype)
    if isinstance(vectors, np.ndarray):
        return np.asarray(cast @ vectors)
    total: Vector = cast[0] * first
    scratch = np.empty_like(total)
    for weight, vector in zip(cast[1:], vectors[1:], strict=True):
        np.multiply(vector, weight, out=scratch)
        total += scratch
    return total
