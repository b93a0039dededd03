"""What the workers' models are, as the simulated network sees them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from consensus.types import Rank, Round

Weights: TypeAlias = Sequence[tuple[Rank, float]]
"""(peer, weight) of each exchange of a round."""


class Plant(Protocol):
    """All workers' models, and what is done to them."""

    def step(self, rank: Rank, round: Round) -> None:
        """Take ``rank``'s local step of its ``round``; called when the step ends."""

    def exchange(self, i: Rank, j: Rank, weight: float | None) -> None:
        """Exchange the models of ``i`` and ``j``: once for both, when they have moved; neither changes until it is mixed.

        ``weight`` is P_ij, or None if it is known only when the ends mix.
        """

    def mix(self, rank: Rank, weights: Weights) -> None:
        """Average ``rank``'s model with those that it has exchanged with since it last did, at least one."""


class Still:
    """No models: a simulation of timing alone."""

    def step(self, rank: Rank, round: Round) -> None:
        """Do nothing."""

    def exchange(self, i: Rank, j: Rank, weight: float | None) -> None:
        """Do nothing."""

    def mix(self, rank: Rank, weights: Weights) -> None:
        """Do nothing."""


class Rows:
    """All workers' models as the rows of one array.

    An exchange adds w (x_j - x_i) to what i is to gain, and takes the same numbers off what j is: the sum of all models changes
    by rounding alone, whatever happens when. With weights that are not known yet the difference is kept for both ends.

    Parameters
    ----------
    models : ndarray, shape (n, d)
        Row i is worker i's model; changed in place.
    """

    def __init__(self, models: NDArray[Any]) -> None:
        self.models = models
        self._gains = np.zeros_like(models)
        self._kept: dict[tuple[Rank, Rank], NDArray[Any]] = {}

    def exchange(self, i: Rank, j: Rank, weight: float | None) -> None:
        """See :meth:`Plant.exchange`."""
        difference = self.models[j] - self.models[i]
        if weight is None:
            self._kept[i, j] = difference
            self._kept[j, i] = -difference
            return
        difference *= weight
        self._gains[i] += difference
        self._gains[j] -= difference

    def mix(self, rank: Rank, weights: Weights) -> None:
        """See :meth:`Plant.mix`."""
        gain = self._gains[rank]
        for peer, weight in weights:
            kept = self._kept.pop((rank, peer), None)
            if kept is not None:
                kept *= weight
                gain += kept
        self.models[rank] += gain
        gain[:] = 0.0
