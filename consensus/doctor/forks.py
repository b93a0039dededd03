"""Whether ranks still send what they mean to when they have forked.

Where the network reads a process's memory by itself, a fork may leave it reading pages that the process no longer has. So every
rank swaps models with its neighbours, which makes the library prepare the memory; then forks, so that all pages are shared;
writes other models to the same memory, and swaps again. The child is there until then.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from consensus.doctor.check import Check, State
from consensus.doctor.session import Ballast, session
from consensus.protocol.events import ModelSwapped
from consensus.transport.base import CHUNK_BYTES, Bytes, Transport
from consensus.transport.forks import REMEDY, watch_forks
from consensus.types import Rank

FORKED_BYTES = 2 * CHUNK_BYTES
"""Size of the models."""


class _Marked(Ballast):
    """Models by which one can tell who sent them and when."""

    def __init__(self, own: Rank) -> None:
        super().__init__(FORKED_BYTES)
        self.right = True
        self._own = own
        self.write(0)

    def write(self, number: int) -> None:
        """Write model ``number`` into the memory that is sent."""
        self._number = number
        for chunk in self.chunks:
            chunk[:] = _mark(self._own, number)

    def deliver(self, peer: Rank, index: int, data: Bytes) -> None:
        self.right = self.right and bool((data == _mark(peer, self._number)).all())
        super().deliver(peer, index, data)


def _mark(rank: Rank, number: int) -> int:
    return 1 + (2 * rank + number) % 255


def send_beside_a_child(transport: Transport, neighbours: Sequence[Rank]) -> list[bool]:
    """For every rank, whether its neighbours' models came right though all ranks had forked. Collective.

    Parameters
    ----------
    transport : Transport
        Of the ranks.
    neighbours : sequence of int
        Of this rank; mutual.
    """
    models = _Marked(transport.rank)
    with session(transport, neighbours, models) as inbox:

        def swap(number: int) -> None:
            for peer in neighbours:
                transport.swap(peer, number, number)
            for _ in neighbours:
                inbox.next(lambda event: isinstance(event, ModelSwapped))

        swap(1)
        with _child():
            models.write(1)
            swap(2)
    return transport.gather(models.right)


@contextmanager
def _child() -> Iterator[None]:
    """A forked process for the block, which does nothing but be there."""
    reading, writing = os.pipe()
    with watch_forks().on_purpose(), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # that a process with threads forks is the point
        child = os.fork()
    if not child:
        os.close(writing)
        os.read(reading, 1)
        os._exit(0)
    os.close(reading)
    try:
        yield
    finally:
        os.write(writing, b"-")  # to close it would not do: where ranks are threads, others' children have it open
        os.close(writing)
        os.waitpid(child, 0)


def check_forks(right: Sequence[bool]) -> Check:
    """Judge what :func:`send_beside_a_child` found."""
    wrong = [str(rank) for rank, well in enumerate(right) if not well]
    if not wrong:
        return Check("forks", State.OK, "models arrive as they were sent when ranks have forked")
    found = f"when ranks have forked, models arrive damaged at ranks {', '.join(wrong)}"
    return Check("forks", State.WARN, found, f"let no rank fork: where a script has a DataLoader with workers, {REMEDY}")
