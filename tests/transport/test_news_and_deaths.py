"""What Open MPI does where a message and a death meet in the receive from anybody, played by a stand-in for it."""

from __future__ import annotations

from typing import Any

import numpy as np

from consensus.protocol.events import Control, PeerLost
from consensus.protocol.messages import Leave, encode
from consensus.transport.mpi import _Connection

ANYBODY = -1


class Raised(Exception):
    """A death that the library reports."""


class Status:
    source = ANYBODY


class Receive:
    """A persistent receive; the looks at it go by ``script``, of which the last is repeated."""

    def __init__(self, buffer: bytearray) -> None:
        self._buffer = buffer
        self.script: list[tuple[int, bytes, bool]] = [(ANYBODY, b"", False)]
        self.starts = 0

    def Start(self) -> None:
        self.starts += 1

    def Test(self, status: Status) -> bool:
        source, message, raises = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        status.source = source
        self._buffer[: len(message)] = message
        if raises:
            raise Raised
        return source != ANYBODY or self._idle

    @property
    def _idle(self) -> bool:
        return self.starts == 1 and len(self.script) == 1


class Library:
    """Four ranks, of which this is the first, and none a neighbour."""

    ANY_SOURCE, REQUEST_NULL = ANYBODY, None
    Status = Status

    def __init__(self) -> None:
        self.Request = self
        self.receives: list[Receive] = []

    def Get_size(self) -> int:
        return 4

    def Get_rank(self) -> int:
        return 0

    def Testsome(self, requests: list[Any]) -> list[int]:
        return []

    def Recv_init(self, buffer: bytearray, source: int, tag: int) -> Receive:
        self.receives.append(Receive(buffer))
        return self.receives[-1]


class Failures:
    """Reports that rank 2 has died, whenever it is asked."""

    caught = (Raised,)

    def __init__(self) -> None:
        self.dead: set[int] = set()

    def fallen(self, error: Raised) -> list[int]:
        self.dead.add(2)
        return [2]

    def keep(self, requests: list[Any]) -> None:
        """Nothing is under way."""

    def heed_ends(self) -> None:
        """No rank ends with an error."""


class Parcel:
    chunks = (np.zeros(1, np.uint8),)


def test_the_sender_of_news_that_come_with_a_death_is_known() -> None:
    """The look that raises has completed the receive; the next one finds it idle, and names nobody."""
    library, failures = Library(), Failures()
    link = _Connection(library, library, failures, 0, [], Parcel())  # type: ignore[arg-type]
    (news,) = library.receives
    news.script = [(3, encode(Leave(3)), True), (ANYBODY, b"", False)]
    assert link.poll() == [PeerLost(2)]
    assert link.poll() == [Control(3, Leave(3))]
    assert news.starts == 2
    assert failures.dead == {2}
    assert link.leaving() == [1]
