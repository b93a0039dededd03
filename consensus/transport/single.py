"""A world of one rank: no peers, no MPI, the machine's own clock."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from consensus.errors import ProtocolError
from consensus.protocol.events import Event
from consensus.protocol.messages import Message
from consensus.transport.base import Bytes, Parcel
from consensus.types import Rank, Round, Seconds


class SingleTransport:
    """The transport of a rank that is alone: nothing ever arrives, and whatever is collective is the identity.

    Examples
    --------
    >>> alone = SingleTransport()
    >>> alone.size, alone.gather("x"), alone.poll()
    (1, ['x'], [])
    """

    rank: Rank = 0
    size: int = 1
    members: Sequence[Rank] = (0,)
    bytes_sent: int = 0

    def now(self) -> Seconds:
        """Seconds on the machine's monotonic clock."""
        return time.monotonic()

    def sleep(self, duration: Seconds) -> None:
        """Sleep."""
        time.sleep(duration)

    def pace(self, round: Round, elapsed: Seconds) -> Seconds:
        """Leave the step as it was."""
        return 0.0

    def connect(self, neighbours: Sequence[Rank], parcel: Parcel) -> None:
        """Do nothing, for no neighbours.

        Raises
        ------
        ProtocolError
            If there are neighbours.
        """
        if neighbours:
            raise ProtocolError(
                f"rank 0 is alone and cannot have the neighbours {list(neighbours)}; start more ranks or use a graph of one node"
            )

    def send(self, peer: Rank, message: Message) -> None:
        """Refuse: there is nobody to send to."""
        raise ProtocolError(f"rank 0 is alone and cannot send {message} to rank {peer}")

    def swap(self, peer: Rank, round: Round, peer_round: Round) -> None:
        """Refuse: there is nobody to swap with."""
        raise ProtocolError(f"rank 0 is alone and cannot swap models with rank {peer}")

    def give(self, peer: Rank) -> None:
        """Refuse: there is nobody to give to."""
        raise ProtocolError(f"rank 0 is alone and cannot give a model to rank {peer}")

    def take(self, peer: Rank) -> None:
        """Refuse: there is nobody to take from."""
        raise ProtocolError(f"rank 0 is alone and cannot take a model from rank {peer}")

    def poll(self) -> list[Event]:
        """Nothing."""
        return []

    def wait(self, until: Seconds | None) -> list[Event]:
        """Let the clock reach ``until``.

        Raises
        ------
        ProtocolError
            If ``until`` is None: this wait could not end.
        """
        if until is None:
            raise ProtocolError("rank 0 is alone and waits without a deadline for events that nobody can cause")
        time.sleep(max(0.0, until - self.now()))
        return []

    def disconnect(self) -> None:
        """Do nothing."""

    def broadcast(self, buffer: Bytes, root: Rank = 0) -> None:
        """Leave ``buffer`` as it is."""

    def sum(self, buffer: NDArray[Any]) -> None:
        """Leave ``buffer`` as it is."""

    def gather(self, item: Any) -> list[Any]:
        """Return ``[item]``."""
        return [item]
