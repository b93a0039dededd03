"""Which nodes are silent: all sets of them where they are few, telling ones and random ones where they are many."""

from __future__ import annotations

from itertools import combinations
from math import comb

import numpy as np

from consensus.coding.arrays import Indices


def silent_sets(nodes: int, silent: int, at_most: int, drawn: int, seed: int = 0) -> tuple[Indices, bool]:
    """Sets of silent nodes.

    Parameters
    ----------
    nodes : int
        q.
    silent : int
        Nodes in a set, 0 to q.
    at_most : int
        All sets are listed if they are no more than that. Otherwise those of consecutive nodes are, as neighbours' coefficients
        are the most alike and their loss the hardest to make up for, and random ones.
    drawn : int
        How many random ones.
    seed : int
        Of the random ones.

    Returns
    -------
    sets : ndarray, shape (number of sets, silent), int
    complete : bool
        Whether they are all.

    Examples
    --------
    >>> silent_sets(3, silent=2, at_most=10, drawn=5)[0].tolist()
    [[0, 1], [0, 2], [1, 2]]
    >>> sets, complete = silent_sets(40, silent=16, at_most=1000, drawn=5)
    >>> sets.shape, complete
    ((45, 16), False)
    """
    number = comb(nodes, silent)
    if number <= at_most:
        return np.array(list(combinations(range(nodes), silent)), dtype=np.intp).reshape(number, silent), True
    consecutive = (np.arange(nodes)[:, np.newaxis] + np.arange(silent)) % nodes
    random = np.random.default_rng(seed)
    return np.concatenate([consecutive, [random.permutation(nodes)[:silent] for _ in range(drawn)]]), False
