"""The simplest training problem: every worker has a parabola of its own, and their mean has a known minimum."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from consensus.errors import ConfigError
from consensus.sim.plant import Rows
from consensus.types import Rank, Round


class Quadratic(Rows):
    r"""Workers that descend F_i(x) = a_i / 2 ||x - c_i||^2 with noisy gradients; a plant.

    .. math:: F(x) = \frac1n \sum_i F_i(x), \qquad x^* = \sum_i a_i c_i / \sum_i a_i

    Parameters
    ----------
    centres : ndarray, shape (n, d)
        The c_i; how far they are apart is how unlike the workers' data are.
    curvatures : ndarray, shape (n,), optional
        The a_i, above 0; all 1 by default.
    lr : float
        Learning rate.
    noise : float
        Standard deviation of the gradient's noise, per coordinate.
    seed : int
        Of the noise; each worker has a stream of its own, so that what one draws does not depend on the others' pace.
    start : ndarray, shape (n, d) or (d,), optional
        Models before the first step; 0 by default.

    Raises
    ------
    ConfigError
        If shapes do not fit, a curvature is not above 0, or the noise is negative.

    Examples
    --------
    >>> plant = Quadratic(np.array([[0.0], [4.0]]), lr=0.5)
    >>> plant.step(0, 1); plant.step(1, 1)
    >>> plant.models.ravel().tolist(), plant.optimum.tolist(), plant.excess()
    ([0.0, 2.0], [2.0], 0.5)
    >>> plant.exchange(0, 1, 0.5); plant.mix(0, [(1, 0.5)]); plant.mix(1, [(0, 0.5)])
    >>> plant.models.ravel().tolist(), plant.consensus_distance()
    ([1.0, 1.0], 0.0)
    """

    def __init__(
        self,
        centres: NDArray[Any],
        *,
        lr: float,
        curvatures: NDArray[Any] | None = None,
        noise: float = 0.0,
        seed: int = 0,
        start: NDArray[Any] | None = None,
    ) -> None:
        centres = np.array(centres, np.float64)
        curvatures = np.ones(len(centres)) if curvatures is None else np.array(curvatures, np.float64)
        if centres.ndim != 2 or curvatures.shape != centres.shape[:1]:
            raise ConfigError(f"centres of shape {centres.shape}, curvatures of {curvatures.shape}; expected (n, d) and (n,)")
        if not (curvatures > 0).all() or not noise >= 0:
            raise ConfigError(
                f"curvatures from {curvatures.min()} on, noise {noise}; expected curvatures above 0, noise 0 or more"
            )
        super().__init__(np.zeros_like(centres) if start is None else np.array(np.broadcast_to(start, centres.shape), np.float64))
        self.centres, self.curvatures, self.lr, self.noise = centres, curvatures, lr, noise
        self.steps = 0
        seeds = np.random.SeedSequence(seed).spawn(len(centres)) if noise else []
        self._generators = [np.random.Generator(np.random.Philox(child)) for child in seeds]
        self._curvature = float(curvatures.mean())
        self.optimum: NDArray[np.float64] = curvatures @ centres / curvatures.sum()
        spread = np.square(centres - self.optimum).sum(axis=1)
        self.minimum = 0.5 * float((curvatures * spread).mean())

    @classmethod
    def draw(
        cls,
        workers: int,
        dimension: int,
        *,
        heterogeneity: float,
        lr: float,
        noise: float = 0.0,
        condition: float = 1.0,
        seed: int = 0,
    ) -> Quadratic:
        """Draw a problem.

        Parameters
        ----------
        workers, dimension : int
        heterogeneity : float
            Standard deviation of the centres around the mean problem's, per coordinate.
        lr, noise : float
            As above.
        condition : float
            Largest over smallest curvature, at least 1; their logarithms are uniform and the larger is 1.
        seed : int
            Of the centres, the curvatures and the noise. The models start at distance 1 from the mean centre.

        Returns
        -------
        Quadratic
        """
        generator = np.random.default_rng(seed)
        centres = heterogeneity * generator.standard_normal((workers, dimension))
        curvatures = np.exp(-math.log(condition) * generator.random(workers))
        return cls(centres, lr=lr, curvatures=curvatures, noise=noise, seed=seed, start=np.full(dimension, dimension**-0.5))

    def step(self, rank: Rank, round: Round) -> None:
        """See :meth:`consensus.sim.plant.Plant.step`."""
        self.steps += 1
        model = self.models[rank]
        gradient = model - self.centres[rank]
        gradient *= self.curvatures[rank]
        if self.noise:
            gradient += self.noise * self._generators[rank].standard_normal(len(model))
        model -= self.lr * gradient

    def gradient(self, models: NDArray[Any]) -> NDArray[np.float64]:
        """All workers' gradients at their rows of ``models``, shape (n, d), without noise."""
        return np.asarray(self.curvatures[:, None] * (models - self.centres))

    def mean(self) -> NDArray[np.float64]:
        """The mean of all models, shape (d,)."""
        return np.asarray(self.models.mean(axis=0))

    def excess(self) -> float:
        """F at the mean model, above the minimum of F."""
        return 0.5 * self._curvature * self.distance() ** 2

    def loss(self) -> float:
        """F at the mean model."""
        return self.minimum + self.excess()

    def distance(self) -> float:
        """From the mean model to the minimum of F."""
        return float(np.linalg.norm(self.mean() - self.optimum))

    def consensus_distance(self) -> float:
        """Root mean square distance of the models from their mean: sqrt(mean_i ||x_i - mean||^2)."""
        return float(np.sqrt(np.square(self.models - self.mean()).sum(axis=1).mean()))
