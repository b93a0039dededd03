"""The model at the three kinds of rank of a system with coded gradients: what each receives, sends and computes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

import torch
from torch.optim import Optimizer

from consensus.bundle import Landing
from consensus.coding.layer import Layer
from consensus.coding.layout import MASTER
from consensus.errors import NonFiniteLoss
from consensus.flat import FlatModel
from consensus.keeping import Arrivals, Versions
from consensus.payload import CodedVector, Payload
from consensus.protocol.events import Applied, Event, GradientTaken, ModelTaken
from consensus.transport.base import Bytes
from consensus.types import Rank


class OnUpdate(Protocol):
    """Told of each update."""

    def __call__(self, loss: float, samples: int, residual: float) -> None:
        """Mean loss of its samples, their number, and how far from exact the gradient was, 0 to rounding."""


class _Gathering:
    """The parcel of a rank that gathers coded gradients and gives weights.

    Parameters
    ----------
    flat : FlatModel
        The model.
    payload : Payload
        Of coded gradients.
    layer : Layer
        Of the code, whose nodes send to this rank.
    first : int
        The rank of the layer's node 0.
    approximate : bool
        Whether a sum that is not exact will do.
    """

    def __init__(self, flat: FlatModel, payload: Payload, layer: Layer, first: Rank, approximate: bool) -> None:
        self._flat, self._payload = flat, payload
        self._layer, self._first, self._approximate = layer, first, approximate
        self.chunks: Sequence[Bytes] = flat.chunks
        self._kept = Arrivals(partial(CodedVector, payload))
        self._versions = Versions(flat)
        self._sum = CodedVector(payload)
        self.residual = 0.0
        """Of the last combination."""

    def begin(self) -> None:
        """This rank makes no steps of its own."""

    def resume(self) -> None:
        """The model that it has now is the one to give; nothing has been given yet."""
        self._versions.take(self._flat)

    def incoming(self, peer: Rank) -> int:
        """How many chunks a coded gradient has."""
        return len(self._sum.chunks)

    def lend(self, peer: Rank, index: int) -> Bytes:
        """Return memory for chunk ``index`` of ``peer``'s coded gradient."""
        return self._kept.lend(peer).chunks[index]

    def deliver(self, peer: Rank, index: int, data: Bytes) -> None:
        """Nothing to do: it is where it belongs."""

    def outgoing(self, peer: Rank) -> Sequence[Bytes]:
        """The present weights, which stay as they are until they have left for ``peer``."""
        return self._versions.leave(peer).chunks

    def release(self, peer: Rank, index: int) -> None:
        """Take note that a chunk of the weights has left."""
        if index == len(self.chunks) - 1:
            self._versions.left(peer)

    def taken(self, peer: Rank) -> Event:
        """A coded gradient of ``peer`` is here; its sender has made sure that it is finite."""
        self._kept.came(peer)
        return GradientTaken(peer, 0.0)

    def discard(self, peer: Rank) -> None:
        """Forget the coded gradient kept of ``peer``, or what there is of it."""
        self._kept.forget(peer)

    def forget(self, peer: Rank) -> None:
        """Give up what was on its way to ``peer``, which is dead, or from it; what has come whole stays."""
        self._versions.left(peer)
        self._kept.lose(peer)

    def _combine(self, senders: Sequence[Rank]) -> None:
        combination = self._layer.combine([rank - self._first for rank in senders], approximate=self._approximate)
        vectors = dict(zip(senders, self._kept.use(senders), strict=True))
        self._sum.combine(combination.weights.tolist(), [vectors[node + self._first] for node in combination.nodes])
        self.residual = combination.residual


class RelayModel(_Gathering):
    """An edge's: it passes weights on as they came, and sends one combination of what its workers sent."""

    def __init__(self, flat: FlatModel, payload: Payload, layer: Layer, first: Rank, approximate: bool) -> None:
        super().__init__(flat, payload, layer, first, approximate)
        self._coming = self._versions.blank()
        self._here = self._versions.blank()

    def incoming(self, peer: Rank) -> int:
        """Of the master weights come, of workers coded gradients."""
        return len(self.chunks) if peer == MASTER else super().incoming(peer)

    def lend(self, peer: Rank, index: int) -> Bytes:
        """Return memory for what comes."""
        return self._coming.chunks[index] if peer == MASTER else super().lend(peer, index)

    def outgoing(self, peer: Rank) -> Sequence[Bytes]:
        """To the master goes the combination, to workers the weights."""
        return self._sum.chunks if peer == MASTER else super().outgoing(peer)

    def release(self, peer: Rank, index: int) -> None:
        """Take note that a chunk has left; the engine combines nothing before the last combination has."""
        if peer != MASTER:
            super().release(peer, index)

    def taken(self, peer: Rank) -> Event:
        """Weights are here, or a coded gradient."""
        if peer != MASTER:
            return super().taken(peer)
        self._coming, self._here = self._here, self._coming
        return ModelTaken(peer)

    def install(self) -> None:
        """Pass on the weights that came last."""
        self._versions.replace(self._here)
        self._here = self._versions.blank()

    def apply(self, senders: Sequence[Rank], factor: float) -> Event:
        """Combine what these workers sent."""
        self._combine(senders)
        return Applied(0.0, factor)


class MasterModel(_Gathering):
    """The master's: it decodes the gradient of all parts, and its optimizer makes the update.

    Parameters
    ----------
    flat, payload, layer, first, approximate
        As of :class:`_Gathering`.
    optimizer : Optimizer
        Makes the updates.
    """

    def __init__(
        self, flat: FlatModel, payload: Payload, layer: Layer, first: Rank, approximate: bool, optimizer: Optimizer
    ) -> None:
        super().__init__(flat, payload, layer, first, approximate)
        self._optimizer = optimizer
        self.on_update: OnUpdate = lambda loss, samples, residual: None
        self.worst_residual = 0.0
        """Of all updates so far."""

    @torch.no_grad()
    def apply(self, senders: Sequence[Rank], factor: float) -> Event:
        """Make an update with the gradient that these nodes' vectors decode to, the mean over its samples."""
        self._combine(senders)
        total = self._sum
        loss, count = total.sums.tolist()
        samples = round(count)
        # A node that is left out where an approximation will do takes its samples along.
        mean = total.numbers.to(self._payload.summed_in) / max(count, 1.0)
        self._payload.spread(mean)
        step = float(self._optimizer.param_groups[0]["lr"])
        with torch.enable_grad():
            self._optimizer.step()
        self._versions.take(self._flat)
        self.worst_residual = max(self.worst_residual, self.residual)
        self.on_update(loss / max(count, 1.0), samples, self.residual)
        return Applied(float(torch.linalg.vector_norm(mean)) ** 2, step)


class CodedWorkerModel:
    """A worker's: the gradients of its parts, each times its coefficient, on the way out, and weights on their way in.

    Parameters
    ----------
    flat : FlatModel
        The model.
    payload : Payload
        Of coded gradients.
    """

    def __init__(self, flat: FlatModel, payload: Payload) -> None:
        self._flat, self._payload = flat, payload
        self.chunks: Sequence[Bytes] = flat.chunks
        self._vector = CodedVector(payload)
        self._landing = Landing(flat)

    def begin(self) -> None:
        """Nothing to do: the vector is made already."""

    def incoming(self, peer: Rank) -> int:
        """How many chunks weights have."""
        return len(self.chunks)

    def lend(self, peer: Rank, index: int) -> Bytes:
        """Return memory for chunk ``index`` of the newest weights."""
        return self._landing.coming.chunks[index]

    def deliver(self, peer: Rank, index: int, data: Bytes) -> None:
        """Nothing to do: it is where it belongs."""

    def outgoing(self, peer: Rank) -> Sequence[Bytes]:
        """The coded gradient."""
        return self._vector.chunks

    def release(self, peer: Rank, index: int) -> None:
        """Nothing to do: the engine starts no second push before this one has left."""

    def taken(self, peer: Rank) -> Event:
        """New weights are here."""
        self._landing.arrived()
        return ModelTaken(peer)

    def install(self) -> None:
        """Make the weights that came last the model."""
        self._flat.restore(self._landing.here.bytes)

    def encode(self, loss: float, samples: float, told: Callable[[], str]) -> None:
        """Take the gradients in the model's parameters as the coded gradient; losses and samples are coded already.

        Raises
        ------
        NonFiniteLoss
            If a number is not finite; ``told`` says of what.
        """
        vector = self._vector
        self._payload.collect(vector.numbers)
        vector.sums[:] = loss, samples
        # A NaN or an infinity is in the sum as well. That may also overflow; a sum of squares in float64 cannot, but is dear.
        suspicious = not torch.isfinite(vector.numbers.sum())
        if suspicious and not torch.isfinite(torch.linalg.vector_norm(vector.numbers, dtype=torch.float64)):
            raise NonFiniteLoss(f"{told()} is not finite; lower the learning rate, or look at the data")
