"""How fast averaging makes models alike, measured on noise."""

from __future__ import annotations

import math

import numpy as np

from consensus.sim.kernel import Kernel
from consensus.sim.plant import Rows
from consensus.types import Rank, Round, Seconds

DIMENSION = 64
"""Of the models: the mean square over so many coordinates is within some 18 % of its expectation at any time, and much closer
over a run."""


class Noise(Rows):
    r"""Models that every step pushes at random, by 1 in the mean square; a plant that keeps account of their distance.

    D is the squared consensus distance, mean_i ||x_i - mean||^2. A step puts (1 - 1/n) / n into it in expectation, averaging
    takes it out again, and what it holds in between is how long a difference lives (Little's law):

    .. math:: \text{contraction} = \frac{\text{put in} - D(T)}{\int_0^T D \, dt}

    is the rate at which differences are forgotten, per second. Where D decays as exp(-c t) it is c. It is finite where one round
    of averaging makes all models equal, for differences live until then.

    Parameters
    ----------
    size : int
        Number of ranks.
    seed : int
        Of the noise, and of the moments at which D is looked at.
    """

    def __init__(self, size: int, seed: int) -> None:
        super().__init__(np.zeros((size, DIMENSION)))
        self._noise = np.random.default_rng((seed, 1))
        self._moments = np.random.default_rng((seed, 2))
        self._steps = self._looks = 0
        self._sum = 0.0

    def step(self, rank: Rank, round: Round) -> None:
        """Push a model."""
        self.models[rank] += self._noise.standard_normal(DIMENSION) / math.sqrt(DIMENSION)
        self._steps += 1

    def watch(self, kernel: Kernel, every: Seconds) -> None:
        """Look at D at random moments, ``every`` seconds apart in the mean.

        Random, since ranks in step would be seen at the same place of a round again and again.
        """
        kernel.at(kernel.now + self._moments.exponential(every), self._look, (kernel, every))

    def _look(self, argument: tuple[Kernel, Seconds]) -> None:
        kernel, every = argument
        self._looks += 1
        self._sum += self.square()
        if kernel.pending > 1:  # this look is one
            self.watch(kernel, every)

    def square(self) -> float:
        """The squared consensus distance now."""
        return float(np.square(self.models - self.models.mean(axis=0)).sum() / len(self.models))

    @property
    def held(self) -> float:
        """The squared consensus distance, mean over time."""
        return self._sum / self._looks if self._looks else 0.0

    def contraction(self, seconds: Seconds) -> float:
        """The rate at which differences are forgotten, per second; infinite if none was ever seen."""
        size = len(self.models)
        put_in = self._steps * (1 - 1 / size) / size
        held = self.held * seconds
        return max(0.0, put_in - self.square()) / held if held > 0 else math.inf
