"""The model at a parameter server: the gradients that are here, the update, and the versions that are on their way to workers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.optim import Optimizer

from consensus.bundle import share
from consensus.flat import FlatModel
from consensus.gradient import Gradient
from consensus.group_options import GroupOptions
from consensus.keeping import Arrivals, Versions
from consensus.protocol.events import Applied, Event, GradientTaken
from consensus.region import ACCUMULATED_IN
from consensus.transport.base import Bytes
from consensus.types import Rank


class ServedModel:
    """The parcel of the serving rank's transport, and the arithmetic of an update.

    A gradient is kept whole from its arrival until it is applied or discarded; so are the versions of the weights that are still
    on their way to somebody, one at least. Memory is reused.

    Parameters
    ----------
    flat : FlatModel
        The model.
    optimizer : Optimizer
        Makes the updates, each with the mean of the options that its gradients' workers had; its own are looked at by nobody.
    servers, server : int
        Of how many servers this is the ``server``-th, from 0. It takes and gives its share of the chunks; what the optimizer
        makes of the rest of the model, without gradients, is nobody's.
    """

    def __init__(self, flat: FlatModel, optimizer: Optimizer, servers: int = 1, server: int = 0) -> None:
        self._flat, self._optimizer = flat, optimizer
        self._options = GroupOptions(optimizer)
        self.chunks: Sequence[Bytes] = flat.chunks
        self._share = share(len(self.chunks), servers, server)
        # Apart from the versions': what is not of this server's share is never written there, and stays 0.
        self._kept = Arrivals(partial(Gradient, flat, self._options.width))
        self._versions = Versions(flat)
        self._gradients = self._bind_gradients()

    def _bind_gradients(self) -> list[Tensor]:
        flat = self._flat
        devices = {region: parameter.device for parameter, region, _ in flat.places}
        gradients = [
            torch.zeros(numel, dtype=dtype, device=devices.get(region, torch.device("cpu")))
            for region, (dtype, numel) in enumerate(flat.layout)
        ]
        self._views = []
        for parameter, region, start in flat.places:
            view = gradients[region][start : start + parameter.numel()].view(parameter.shape)
            self._views.append((parameter, view))
        return gradients

    # -- the transport's parcel -----------------------------------------------------------------------------------------

    def begin(self) -> None:
        """A server makes no steps of its own."""

    def resume(self) -> None:
        """The model that it has now is the one to give; nothing has been given yet."""
        self._versions.take(self._flat)

    def incoming(self, peer: Rank) -> int:
        """How many chunks of a gradient come here; its header is the last."""
        return len(self._share) + 1

    def outgoing(self, peer: Rank) -> Sequence[Bytes]:
        """The present version, which stays as it is until it has left for ``peer``."""
        return self._versions.leave(peer).chunks[self._share.start : self._share.stop]

    def release(self, peer: Rank, index: int) -> None:
        """Take note that a chunk has left."""
        if index == len(self._share) - 1:
            self._versions.left(peer)

    def lend(self, peer: Rank, index: int) -> Bytes:
        """Return memory for chunk ``index`` of ``peer``'s gradient."""
        gradient = self._kept.lend(peer)
        return gradient.chunks[self._share[index]] if index < len(self._share) else gradient.header

    def deliver(self, peer: Rank, index: int, data: Bytes) -> None:
        """Nothing to do: it is where it belongs."""

    # -- what the engine commands ---------------------------------------------------------------------------------------

    def taken(self, peer: Rank) -> Event:
        """A gradient of ``peer`` is here; of learning rates that are no numbers as little good can come as of it."""
        gradient = self._kept.came(peer)
        sound = np.isfinite(self._options.rates(gradient.options)).all()
        return GradientTaken(peer, gradient.square() if sound else math.nan)

    def show(self, other: ServedModel) -> None:
        """Copy this server's share of the model into the model of another, where it is nobody's."""
        for index in self._share:
            other.chunks[index][:] = self.chunks[index]

    def discard(self, peer: Rank) -> None:
        """Forget the gradient kept of ``peer``, or what there is of it."""
        self._kept.forget(peer)

    def forget(self, peer: Rank) -> None:
        """Give up what was on its way to ``peer``, which is dead, or from it; a gradient that has come whole stays."""
        self._versions.left(peer)
        self._kept.lose(peer)

    @torch.no_grad()
    def apply(self, workers: Sequence[Rank], factor: float) -> Event:
        """Make an update with the mean gradient of ``workers``, its step ``factor`` times as long as theirs would be."""
        slots = self._kept.use(workers)
        square = 0.0
        for region, gradient in enumerate(self._gradients):
            mean = _mean([slot.bodies[region] for slot in slots])
            square += float(torch.linalg.vector_norm(mean)) ** 2
            gradient[: len(mean)] = mean.to(gradient.device)
        present = np.any([slot.present for slot in slots], axis=0)
        for (parameter, view), wanted in zip(self._views, present, strict=True):
            parameter.grad = view if wanted else None
        options = _mean_options([slot.options for slot in slots])
        with self._options.replaced(options, factor) as step, torch.enable_grad():
            self._optimizer.step()
        tails = [[part[len(body) :] for part, body in zip(slot.parts, slot.bodies, strict=True)] for slot in slots]
        self._flat.pool_rows([1.0 / len(slots)] * len(slots), tails)
        self._versions.take(self._flat)
        return Applied(square, step)


def _mean_options(rows: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """The mean; of equal numbers exactly that number, which a sum divided by three is not."""
    table = np.stack(rows)
    mean: NDArray[np.float64] = np.where((table == table[0]).all(axis=0), table[0], table.mean(axis=0))
    return mean


def _mean(bodies: Sequence[Tensor]) -> Tensor:
    """The mean, in a dtype that is wide enough to sum up in."""
    total = bodies[0].to(ACCUMULATED_IN[bodies[0].dtype], copy=True)
    for body in bodies[1:]:
        total += body
    return total.div_(len(bodies))
