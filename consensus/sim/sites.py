"""What the ranks of a simulated parameter server do with numbers, if there are any."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from consensus.errors import ProtocolError
from consensus.protocol.events import Applied, Event, GradientTaken, ModelTaken
from consensus.types import Rank, Round

Chunks = Sequence[NDArray[np.uint8]]


class Site(Protocol):
    """What a rank has to send, and where what it receives goes: a transport's parcel."""

    def outgoing(self, peer: Rank) -> Chunks:
        """What is sent to ``peer`` now; it stays as it is until released."""

    def release(self, peer: Rank, index: int) -> None:
        """Chunk ``index`` has left for ``peer``."""

    def lend(self, peer: Rank, index: int) -> NDArray[np.uint8]:
        """Where chunk ``index`` of what ``peer`` sends is to be."""

    def deliver(self, peer: Rank, index: int, data: NDArray[np.uint8]) -> None:
        """It is there."""

    def taken(self, peer: Rank) -> Event:
        """All of it is there."""


class WorkerSite(Site, Protocol):
    """A worker's model."""

    def step(self, round: Round) -> float:
        """Compute a gradient; return the batch's loss."""

    def install(self) -> None:
        """Go on from the weights that came last."""


class ServerSite(Site, Protocol):
    """The server's model."""

    def apply(self, workers: Sequence[Rank], factor: float) -> Event:
        """Make an update and return the event that tells of it."""

    def discard(self, peer: Rank) -> None:
        """Forget the gradient kept of ``peer``."""


class RelaySite(ServerSite, Protocol):
    """An edge's: the weights it passes on, and the coded gradients that it combines."""

    def install(self) -> None:
        """Pass on the weights that came last."""


class _Still:
    """No numbers: a simulation of timing alone."""

    def outgoing(self, peer: Rank) -> Chunks:
        return ()

    def release(self, peer: Rank, index: int) -> None:
        """Nothing was sent."""

    def lend(self, peer: Rank, index: int) -> NDArray[np.uint8]:
        raise ProtocolError("a simulation of timing alone moves no numbers")

    def deliver(self, peer: Rank, index: int, data: NDArray[np.uint8]) -> None:
        """Nothing comes."""


class StillWorker(_Still):
    """A worker without a model."""

    def step(self, round: Round) -> float:
        """Compute nothing; the loss is not known."""
        return math.nan

    def install(self) -> None:
        """Do nothing."""

    def taken(self, peer: Rank) -> Event:
        """Weights, so to speak."""
        return ModelTaken(peer)


class StillServer(_Still):
    """A server without a model."""

    def apply(self, workers: Sequence[Rank], factor: float) -> Event:
        """Change nothing."""
        return Applied(0.0, factor)

    def discard(self, peer: Rank) -> None:
        """Do nothing."""

    def taken(self, peer: Rank) -> Event:
        """A gradient, so to speak."""
        return GradientTaken(peer, 0.0)


class StillRelay(StillServer):
    """An edge without numbers.

    Parameters
    ----------
    master : Rank
        Who sends weights.
    """

    def __init__(self, master: Rank) -> None:
        self._master = master

    def install(self) -> None:
        """Pass nothing on."""

    def taken(self, peer: Rank) -> Event:
        """Weights of the master, or a coded gradient, so to speak."""
        return ModelTaken(peer) if peer == self._master else GradientTaken(peer, 0.0)
