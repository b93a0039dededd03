"""The Metropolis-Hastings weight of one edge; apart, because the protocol (standard library only) uses it too."""

from __future__ import annotations


def edge_weight(degree_i: int, degree_j: int) -> float:
    """Return P_ij = 1 / (1 + max(d_i, d_j)), the weight each end gives the other.

    Symmetric, and with the remainder 1 - sum_j P_ij on the diagonal the matrix is doubly stochastic with a positive diagonal, for
    the whole graph and, with the same weights, for every symmetric subset of its edges.

    Parameters
    ----------
    degree_i, degree_j : int
        Degrees of the two ends in the base graph, or their numbers of exchanges in a round.

    References
    ----------
    Xiao, Boyd, Lall, "A scheme for robust distributed sensor fusion based on average consensus", IPSN 2005 (eq. 11).

    Examples
    --------
    >>> edge_weight(2, 3)
    0.25
    """
    return 1.0 / (1 + max(degree_i, degree_j))
