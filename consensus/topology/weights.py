"""Averaging weights: symmetric doubly stochastic matrices on the edges of a graph.

Doubly stochastic, because then x <- P x leaves the mean of all models as it is; symmetric, because both ends of an edge must
find the same weight without asking each other; with a positive diagonal, because then the eigenvalue -1 is excluded.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Set
from typing import TYPE_CHECKING, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from consensus.errors import TopologyError

if TYPE_CHECKING:
    import networkx as nx

    from consensus.types import Edge, Rank

Weights: TypeAlias = "sparse.csr_array[np.float64, tuple[int, int]]"
"""A matrix P of averaging weights, shape (n, n); x <- P x is one round."""


def metropolis(graph: nx.Graph[int]) -> Weights:
    """Metropolis-Hastings weights on static degrees, P_ij = 1 / (1 + max(d_i, d_j)), the remainder on the diagonal.

    Parameters
    ----------
    graph
        On nodes 0 .. n-1.

    Returns
    -------
    scipy.sparse.csr_array
        Shape (n, n), float64, symmetric, doubly stochastic, with a positive diagonal.

    Notes
    -----
    The literature also has 1 / max(d_i, d_j), with which P_ii may be 0. With the 1 every rank keeps at least 1 / (1 + d_i) of its
    own model. The weight of one edge, for code without SciPy, is :func:`consensus.topology.metropolis.edge_weight`.

    References
    ----------
    L. Xiao, S. Boyd and S.-J. Kim, "Distributed average consensus with least-mean-square deviation", Journal of Parallel and
    Distributed Computing 67 (2007): the weights named after Metropolis.

    Examples
    --------
    >>> from consensus.topology import build
    >>> metropolis(build("path", 3)).toarray().round(3).tolist()
    [[0.667, 0.333, 0.0], [0.333, 0.333, 0.333], [0.0, 0.333, 0.667]]
    """
    return metropolis_round(graph.edges(), graph.number_of_nodes())


def metropolis_round(exchanges: Iterable[Edge] | Mapping[Rank, Collection[Rank]], n: int) -> Weights:
    """Metropolis weights on the exchanges of one round, P_ij = 1 / (1 + max(p_i, p_j)), p_i = number of exchanges of i.

    Parameters
    ----------
    exchanges
        Pairs of ranks in either order, or each rank's partners; ranks without exchanges may be left out.
    n
        Number of ranks.

    Returns
    -------
    scipy.sparse.csr_array
        Shape (n, n), float64, symmetric, doubly stochastic, with a positive diagonal; a rank without exchanges has P_ii = 1.

    Raises
    ------
    TopologyError
        If a rank is not in 0 .. n-1, exchanges with itself, or counts a partner that does not count it.

    Examples
    --------
    >>> metropolis_round([(0, 1)], 3).toarray().tolist()
    [[0.5, 0.5, 0.0], [0.5, 0.5, 0.0], [0.0, 0.0, 1.0]]
    """
    pairs = _pairs(exchanges, n)
    degrees = np.bincount(pairs.ravel(), minlength=n)
    return _symmetric(pairs, 1.0 / (1 + degrees[pairs].max(axis=1, initial=0)), n)


def max_degree(graph: nx.Graph[int]) -> Weights:
    """Equal weights 1 / (1 + max degree) on every edge, the remainder on the diagonal.

    The variant 1 / (max degree) leaves no own share to a rank of the largest degree, and oscillates on bipartite regular
    graphs; this one has a positive diagonal.

    Parameters
    ----------
    graph
        On nodes 0 .. n-1.

    Returns
    -------
    scipy.sparse.csr_array
        Shape (n, n), float64, symmetric, doubly stochastic, with a positive diagonal.
    """
    n = graph.number_of_nodes()
    pairs = _pairs(graph.edges(), n)
    largest = int(np.bincount(pairs.ravel(), minlength=n).max())
    return _symmetric(pairs, np.full(len(pairs), 1.0 / (1 + largest)), n)


def lazy(P: Weights) -> Weights:
    """(I + P) / 2: every eigenvalue becomes non-negative, at the price of about half the spectral gap.

    Parameters
    ----------
    P
        Shape (n, n), symmetric and doubly stochastic.

    Returns
    -------
    scipy.sparse.csr_array
        Shape (n, n), float64, of the same kind, with a diagonal of at least 1/2.
    """
    return sparse.csr_array(0.5 * P + sparse.diags_array(np.full(P.shape[0], 0.5)))


def _pairs(exchanges: Iterable[Edge] | Mapping[Rank, Collection[Rank]], n: int) -> NDArray[np.intp]:
    # The edge view of a networkx graph is a set of pairs, and also a mapping (from pairs to attributes): the set is meant.
    if isinstance(exchanges, Mapping) and not isinstance(exchanges, Set):
        directed = {(i, j) for i, partners in exchanges.items() for j in partners}
        for i, j in sorted(directed):
            if (j, i) not in directed:
                raise TopologyError(
                    f"rank {i} counts an exchange with rank {j}, but rank {j} none with rank {i}; exchanges are symmetric"
                )
        pairs: Iterable[Edge] = directed
    else:
        pairs = cast("Iterable[Edge]", exchanges)
    unique = sorted({(min(pair), max(pair)) for pair in pairs})
    for i, j in unique:
        if i == j or i < 0 or j >= n:
            raise TopologyError(f"an exchange joins two different ranks of 0 .. {n - 1}, got ({i}, {j})")
    return np.array(unique, dtype=np.intp).reshape(-1, 2)


def _symmetric(pairs: NDArray[np.intp], weights: NDArray[np.float64], n: int) -> Weights:
    i, j = pairs.T
    off = sparse.csr_array((np.tile(weights, 2), (np.concatenate([i, j]), np.concatenate([j, i]))), shape=(n, n))
    return sparse.csr_array(off + sparse.diags_array(1.0 - off.sum(axis=1)))
