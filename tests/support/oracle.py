"""What a run must have come to, by the whole-network reference in NumPy, given only its traces and its run file.

The run is logistic regression by plain SGD, with batches so large that each is the rank's whole share: then a rank's gradient is
a function of its model alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from consensus import trace
from consensus.config import RunConfig
from consensus.data.partition import partition
from consensus.run.prepare import build_model, load_data
from consensus.sim import reference
from consensus.topology.weights import metropolis
from tests.experiments import small, summary_of

Numbers = NDArray[np.float64]


def whole_shares(out: Path, stop: str, **changes: Any) -> RunConfig:
    """A run that the oracle understands."""
    data = {"limit": 120, "batch": 1000}
    optimizer = {"name": "sgd", "lr": 0.3}
    return small(out, stop, **{"data": data, "optimizer": optimizer, "model": {"name": "logistic"}, **changes})


@dataclass
class Outcome:
    """Of the averaged model on the test samples, and of the ranks."""

    loss: float
    accuracy: float
    distance: float

    @classmethod
    def of(cls, folder: Path) -> Outcome:
        """What a run's summary says."""
        summary = summary_of(folder)
        return cls(summary["final"]["loss"], summary["final"]["accuracy"], summary["consensus_distance"])

    def agrees(self, other: Outcome) -> bool:
        """Up to float32's rounding."""
        close = np.allclose((self.loss, self.distance), (other.loss, other.distance), rtol=2e-5, atol=1e-6)
        return bool(close) and abs(self.accuracy - other.accuracy) < 0.01


class Oracle:
    """Logistic regression on the shares of a run's ranks."""

    def __init__(self, config: RunConfig, size: int) -> None:
        self.config, self.size = config, size
        data = load_data(config)
        shares = partition(data.train.labels, size, config.data.partition.build(), config.run.seed)
        self._shares = [_flat(data.train.batch(share)) for share in shares]
        self._test = _flat(data.test.batch(slice(None)))
        self._classes = data.classes
        parameters = [p.detach().numpy().astype(np.float64).ravel() for p in build_model(config, data).parameters()]
        self.start = np.tile(np.concatenate(parameters), (size, 1))
        self.graph = config.topology.build(size, config.run.seed)

    def gradient(self, models: Numbers) -> Numbers:
        """Each rank's at its own model."""
        return np.array([self._gradient(model, *share) for model, share in zip(models, self._shares, strict=True)])

    def lockstep(self, rounds: int, order: str = "adapt-combine") -> Outcome:
        """After so many rounds in which everybody exchanges with all neighbours."""
        P = metropolis(self.graph).toarray()
        lr = self.config.optimizer.lr
        return self._outcome(reference.run(self.start, [P] * rounds, self.gradient, lr, order))

    def traced(self, folder: Path) -> Outcome:
        """After the exchanges that the traces of a run tell of."""
        histories: Any = [trace.read(folder / f"trace-{rank}.jsonl").rounds for rank in range(self.size)]
        static = self.config.exchange.weights == "static"
        degrees = [self.graph.degree[rank] for rank in range(self.size)] if static else None
        return self._outcome(reference.replay(self.start, histories, degrees, self.gradient, self.config.optimizer.lr))

    def _logits(self, model: Numbers, inputs: Numbers) -> Numbers:
        weight = model[: -self._classes].reshape(self._classes, -1)
        return np.asarray(inputs @ weight.T + model[-self._classes :])

    def _gradient(self, model: Numbers, inputs: Numbers, labels: NDArray[np.int64]) -> Numbers:
        shares = np.exp(_log_softmax(self._logits(model, inputs)))
        shares[np.arange(len(labels)), labels] -= 1
        shares /= len(labels)
        return np.concatenate([(shares.T @ inputs).ravel(), shares.sum(axis=0)])

    def _outcome(self, models: Numbers) -> Outcome:
        mean = models.mean(axis=0)
        inputs, labels = self._test
        logits = _log_softmax(self._logits(mean, inputs))
        loss = -logits[np.arange(len(labels)), labels].mean()
        accuracy = (logits.argmax(axis=1) == labels).mean()
        return Outcome(float(loss), float(accuracy), float(np.sqrt(np.square(models - mean).sum(axis=1).mean())))


def _flat(batch: Any) -> tuple[Numbers, NDArray[np.int64]]:
    inputs, labels = (tensor.numpy() for tensor in batch)
    return inputs.reshape(len(inputs), -1).astype(np.float64), labels


def _log_softmax(logits: Numbers) -> Numbers:
    shifted = logits - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))
