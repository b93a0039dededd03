"""How fast repeated averaging with fixed weights agrees: spectral gap and mixing time."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, sparse
from scipy.sparse import linalg as sparse_linalg

from consensus.errors import TopologyError
from consensus.topology.weights import Weights

DENSE = 256
"""Up to this many ranks all eigenvalues are computed densely; beyond, only the one that matters, by Lanczos."""


def spectral_gap(P: Weights | NDArray[np.float64]) -> float:
    """1 - max(|lambda_2|, |lambda_n|): one minus the second largest modulus of an eigenvalue of ``P``.

    One round of averaging shrinks the distance to consensus at least by the factor 1 - gap, and along the slowest direction
    by exactly that.

    Parameters
    ----------
    P
        Shape (n, n), symmetric and doubly stochastic.

    Returns
    -------
    float
        Between 0 (some ranks never agree) and 1 (all agree at once; by convention also n = 1).

    Raises
    ------
    TopologyError
        If ``P`` is not square, symmetric, with rows that sum to 1.

    Examples
    --------
    >>> from consensus.topology import build
    >>> from consensus.topology.weights import metropolis
    >>> round(spectral_gap(metropolis(build("hypercube", 16))), 6)  # 2 / (1 + dimension)
    0.4
    """
    matrix: Weights = sparse.csr_array(np.atleast_2d(P)) if isinstance(P, np.ndarray) else P
    _check(matrix)
    n = matrix.shape[0]
    if n == 1:
        return 1.0
    # Taking the mean away moves the eigenvalue 1 of the all-ones vector to 0 and leaves the others where they are, so that
    # the largest modulus left is the second largest of P, also if 1 is a multiple eigenvalue.
    if n <= DENSE:
        modulus = float(np.abs(linalg.eigvalsh(matrix.toarray() - 1.0 / n)).max())
    else:
        modulus = _largest_modulus_without_mean(matrix)
    gap = 1.0 - modulus
    return gap if gap > 4 * n * np.finfo(np.float64).eps else 0.0


def mixing_time(P: Weights | NDArray[np.float64], epsilon: float = 0.01) -> float:
    """Rounds of averaging after which every disagreement has shrunk to ``epsilon`` of what it was.

    The smallest k with ||P^k - (1/n) 1 1^T||_2 <= epsilon; for symmetric P that is ceil(ln epsilon / ln(1 - gap)). Probability
    texts measure the total variation distance instead, which differs by at most a factor of order ln(n); the 2-norm is the
    one in which the consensus distance of models is measured.

    Parameters
    ----------
    P
        Shape (n, n), symmetric and doubly stochastic.
    epsilon
        Remaining fraction of the disagreement, between 0 and 1, both excluded; 0.01 is a hundredfold reduction.

    Returns
    -------
    float
        A whole number of rounds; 0 for a single rank, `math.inf` if the gap is 0.

    Raises
    ------
    TopologyError
        If ``P`` is not as `spectral_gap` wants it, or ``epsilon`` out of range.

    References
    ----------
    L. Xiao and S. Boyd, "Fast linear iterations for distributed averaging", Systems & Control Letters 53 (2004): the
    convergence time 1 / ln(1 / (1 - gap)), here times ln(1 / epsilon).

    Examples
    --------
    >>> from consensus.topology import build
    >>> from consensus.topology.weights import metropolis
    >>> mixing_time(metropolis(build("ring", 16)))
    89.0
    """
    if not 0 < epsilon < 1:
        raise TopologyError(f"mixing_time: epsilon must lie strictly between 0 and 1, got {epsilon}")
    gap = spectral_gap(P)
    if P.shape[0] == 1:
        return 0.0
    if gap == 0.0:
        return math.inf
    if gap >= 1.0:
        return 1.0
    # A whole number but for rounding (epsilon a power of 1 - gap) must not count one round more.
    return max(1.0, float(math.ceil(math.log(epsilon) / math.log1p(-gap) - 1e-9)))


def _check(matrix: Weights) -> None:
    rows, columns = matrix.shape
    if rows != columns or rows == 0:
        raise TopologyError(f"expected a square matrix of weights, got shape {rows} x {columns}")
    if abs(matrix - matrix.T).max() > 1e-12:
        raise TopologyError(
            "expected symmetric weights, got P_ij != P_ji; the spectral gap of one-sided weights says nothing about the mean"
        )
    if abs(matrix.sum(axis=1) - 1).max() > 1e-9:
        raise TopologyError("expected rows that sum to 1; build weights with consensus.topology.weights.metropolis(graph)")


def _largest_modulus_without_mean(matrix: Weights) -> float:
    n = matrix.shape[0]

    def apply(x: NDArray[np.float64]) -> NDArray[Any]:
        return np.asarray(matrix @ x - x.mean())

    operator = sparse_linalg.LinearOperator((n, n), matvec=apply, dtype=np.float64)
    start = np.random.default_rng(0).standard_normal(n)
    values = sparse_linalg.eigsh(operator, k=1, which="LM", v0=start, return_eigenvectors=False)
    return float(abs(values[0]))
