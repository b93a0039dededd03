r"""The whole network in one NumPy array: the oracle that the simulator, the loopback ranks and the MPI ranks are tested against.

Row i of X, shape (n, d), is rank i's model; G(X) has rank i's gradient, at its own model, in row i; P is the averaging matrix.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from consensus.errors import ProtocolError
from consensus.protocol.rounds import RoundRecord
from consensus.topology.metropolis import edge_weight
from consensus.types import Rank, Round

Models: TypeAlias = NDArray[np.float64]
"""All models, shape (n, d)."""

Gradient: TypeAlias = Callable[[Models], Models]
"""All gradients at all models, (n, d) -> (n, d)."""

Step: TypeAlias = Callable[[Models, NDArray[Any], Gradient, float], Models]


def adapt_combine(X: Models, P: NDArray[Any], gradient: Gradient, eta: float) -> Models:
    """X <- P (X - eta G(X)): average after the step.

    Parameters
    ----------
    X : ndarray, shape (n, d)
    P : ndarray, shape (n, n)
        Symmetric, rows sum to one.
    gradient : callable
    eta : float
        Learning rate.

    Returns
    -------
    ndarray, shape (n, d)
    """
    return np.asarray(P @ (X - eta * gradient(X)))


def combine_adapt(X: Models, P: NDArray[Any], gradient: Gradient, eta: float) -> Models:
    """X <- P X - eta G(P X): average before it, so the gradient is taken at the averaged models.

    Not D-PSGD's P X - eta G(X), whose gradient is taken before the averaging. Parameters as in :func:`adapt_combine`.
    """
    averaged = P @ X
    return np.asarray(averaged - eta * gradient(averaged))


STEPS: Mapping[str, Step] = MappingProxyType({"adapt-combine": adapt_combine, "combine-adapt": combine_adapt})
"""One round of the network, by the name of its order."""


def run(X: Models, matrices: Iterable[NDArray[Any]], gradient: Gradient, eta: float, order: str = "adapt-combine") -> Models:
    """Return the models after one round for each matrix.

    Examples
    --------
    Two ranks with minima at 0 and 4, which average each time, end in the middle up to what their last step pulls them apart:

    >>> P, minima = np.full((2, 2), 0.5), np.array([[0.0], [4.0]])
    >>> run(minima, [P] * 50, lambda X: X - minima, eta=0.5).ravel().tolist()
    [2.0, 2.0]
    >>> run(minima, [P] * 50, lambda X: X - minima, eta=0.5, order="combine-adapt").ravel().tolist()
    [1.0, 3.0]
    """
    for P in matrices:
        X = STEPS[order](X, P, gradient, eta)
    return X


def replay(
    X: Models, histories: Sequence[Sequence[RoundRecord]], degrees: Sequence[int] | None, gradient: Gradient, eta: float
) -> Models:
    """Return what adapt-combine ranks end with that exchanged as ``histories`` say, each at its own pace.

    Round a of rank i starts from its model after round a - 1, and takes from round b of rank j what j had before it averaged
    in b; hence no clock is needed. Weights are computed here, not read from the records.

    Parameters
    ----------
    X : ndarray, shape (n, d)
        Before the first round.
    histories : sequence of sequences of RoundRecord
        Each rank's rounds, from round 1.
    degrees : sequence of int, or None
        Degrees in the base graph, for static Metropolis weights; None for active ones, on the exchanges of the round.
    gradient, eta
        As in :func:`adapt_combine`.

    Raises
    ------
    ProtocolError
        If a record names a round that no history leads to.
    """
    n = len(X)
    after: list[list[Models]] = [[row] for row in X]
    before: dict[tuple[Rank, Round], Models] = {}

    def offered(rank: Rank, round: Round) -> Models:
        if (rank, round) not in before:
            own = after[rank][round - 1]
            before[rank, round] = own - eta * gradient(np.tile(own, (n, 1)))[rank]
        return before[rank, round]

    def size(rank: Rank, round: Round) -> int:
        return len(histories[rank][round - 1].exchanges) if degrees is None else degrees[rank]

    def ready(rank: Rank) -> bool:
        rounds = histories[rank]
        return len(after[rank]) <= len(rounds) and all(
            len(after[peer]) >= partner for peer, partner, *_ in rounds[len(after[rank]) - 1].exchanges
        )

    while runnable := [rank for rank in range(n) if ready(rank)]:
        for rank in runnable:
            round = len(after[rank])
            record = histories[rank][round - 1]
            mixed = own = offered(rank, round)
            for peer, partner, *_ in record.exchanges:
                mixed = mixed + edge_weight(size(rank, round), size(peer, partner)) * (offered(peer, partner) - own)
            after[rank].append(mixed)
    stuck = [rank for rank in range(n) if len(after[rank]) <= len(histories[rank])]
    if stuck:
        raise ProtocolError(f"the records of ranks {stuck} wait for rounds of which others have no record; pass whole histories")
    return np.array([rounds[-1] for rounds in after])
