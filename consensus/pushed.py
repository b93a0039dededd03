"""The model at a worker of a parameter server: its gradient on the way out, and weights on their way in while it computes."""

from __future__ import annotations

from collections.abc import Sequence

from torch.optim import Optimizer

from consensus.bundle import Landing, share
from consensus.flat import FlatModel
from consensus.gradient import Gradient
from consensus.group_options import GroupOptions
from consensus.protocol.events import Event, ModelTaken
from consensus.transport.base import Bytes
from consensus.types import Rank


class PushedModel:
    """The parcel of a worker's transport.

    Weights arrive in memory of their own, for the model is in use; two sets of it, because newer ones may begin to arrive before
    those that are here have been installed.

    Parameters
    ----------
    flat : FlatModel
        The model.
    optimizer : Optimizer
        The worker's; a gradient takes the numbers in its groups along.
    servers : int
        How many there are; ranks 0 to ``servers`` - 1 have a share of the chunks each.
    """

    def __init__(self, flat: FlatModel, optimizer: Optimizer, servers: int = 1) -> None:
        self._flat, self._options = flat, GroupOptions(optimizer)
        self._shares = [share(len(flat.chunks), servers, server) for server in range(servers)]
        self._came = 0
        self.chunks: Sequence[Bytes] = flat.chunks
        self._gradient, self._landing = Gradient(flat, self._options.width), Landing(flat)

    def begin(self) -> None:
        """See that the model is still what is sent; the gradient is taken when it is given away."""
        self._flat.check_views()

    def incoming(self, peer: Rank) -> int:
        """How many chunks of the weights a server has."""
        return len(self._shares[peer])

    def outgoing(self, peer: Rank) -> Sequence[Bytes]:
        """The gradient, as it was in the parameters' ``grad`` when the first server was to get it."""
        if peer == 0:
            self._gradient.take(self._flat, self._options.read())
        return self._gradient.pieces(self._shares[peer])

    def release(self, peer: Rank, index: int) -> None:
        """Nothing to do: the engine starts no second push before this one has left."""

    def lend(self, peer: Rank, index: int) -> Bytes:
        """Return memory for chunk ``index`` of the newest weights."""
        return self._landing.coming.chunks[self._shares[peer][index]]

    def deliver(self, peer: Rank, index: int, data: Bytes) -> None:
        """Nothing to do: it is where it belongs."""

    def taken(self, peer: Rank) -> Event:
        """A server's share of new weights is here; when all are, they replace those that were and have not been installed."""
        self._came += 1
        if self._came == len(self._shares):
            self._came = 0
            self._landing.arrived()
        return ModelTaken(peer)

    def install(self) -> None:
        """Make the weights that came last the model."""
        self._flat.restore(self._landing.here.bytes)
