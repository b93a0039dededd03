"""Ranks that average their gradients over all of them at every step: the all-reduce baseline on a virtual clock."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Protocol

from consensus.errors import ConfigError
from consensus.sim.kernel import Kernel
from consensus.sim.network import Stop
from consensus.sim.worker import next_step
from consensus.timing import Link, Stream
from consensus.types import Rank, Round, Seconds


def ring_allreduce(link: Link, size: int, nbytes: int) -> Seconds:
    """How long a ring all-reduce of ``nbytes`` bytes takes.

    Every rank sends a ``size``-th of them to the next one, 2 (size - 1) times; each time the slowest link of the ring decides.

    Examples
    --------
    >>> ring_allreduce(Link(latency=0.5, bandwidth=1000.0), size=4, nbytes=2000)
    6.0
    """
    if size == 1:
        return 0.0
    part = math.ceil(nbytes / size)
    return 2 * (size - 1) * max(link.duration(rank, (rank + 1) % size, part) for rank in range(size))


class LockstepPlant(Protocol):
    """The models of ranks that step together."""

    def step_together(self, round: Round) -> None:
        """Average all gradients of ``round``, and step."""


class Lockstep:
    """n ranks in step: each round lasts as long as its slowest step, and an all-reduce.

    Parameters
    ----------
    streams : sequence of Stream
        How long each rank's local steps take.
    link : Link
        See :func:`ring_allreduce`.
    stop : callable
        Asked of each rank after each round; if it is true of one, all leave.
    plant : LockstepPlant, optional
        The models.
    model_bytes : int
        Size of the gradient, bytes.
    on_round : callable, optional
        Told (rank, seconds of its local step, seconds since then).
    kernel : Kernel, optional
        The clock, if others schedule on it too.

    Attributes
    ----------
    ended_at : list of float
        When each rank left, seconds; NaN before.

    Raises
    ------
    ConfigError
        If the size is negative; while it runs, if a step takes no finite time from 0 on.

    Examples
    --------
    >>> from consensus.timing import Replay
    >>> model = Replay(((1.0, 5.0), (3.0, 1.0)))
    >>> ranks = Lockstep([model.stream(rank, 0) for rank in (0, 1)], Link(0.25, 1e9), stop=lambda rank, round: round == 2)
    >>> ranks.run()
    >>> ranks.ended_at
    [9.0, 9.0]
    """

    def __init__(
        self,
        streams: Sequence[Stream],
        link: Link,
        *,
        stop: Stop,
        plant: LockstepPlant | None = None,
        model_bytes: int = 0,
        on_round: Callable[[Rank, Seconds, Seconds], None] | None = None,
        kernel: Kernel | None = None,
    ) -> None:
        if model_bytes < 0:
            raise ConfigError(f"model_bytes = {model_bytes}: expected 0 bytes or more")
        self.kernel = kernel if kernel is not None else Kernel()
        self.size = len(streams)
        self.ended_at = [math.nan] * self.size
        self._streams, self._stop, self._plant, self._on_round = streams, stop, plant, on_round
        self._transfer = ring_allreduce(link, self.size, model_bytes)
        self._sent = 0 if self.size == 1 else 2 * (self.size - 1) * math.ceil(model_bytes / self.size)
        self._round = 0
        self._steps: list[Seconds] = []
        self.kernel.at(self.kernel.now, self._begin, None)

    def run(self, until: Seconds = math.inf) -> None:
        """Run to the end, or to a time."""
        self.kernel.run(until)

    def bytes_sent(self, rank: Rank) -> int:
        """Parts of gradients that ``rank`` has sent so far, bytes."""
        return self._round * self._sent

    def _begin(self, _: object) -> None:
        self._steps = [next_step(stream, rank, self._round + 1) for rank, stream in enumerate(self._streams)]
        self.kernel.at(self.kernel.now + max(self._steps) + self._transfer, self._end, max(self._steps))

    def _end(self, longest: Seconds) -> None:
        self._round += 1
        if self._plant is not None:
            self._plant.step_together(self._round)
        if self._on_round is not None:
            for rank, step in enumerate(self._steps):
                self._on_round(rank, step, longest - step + self._transfer)
        leaving = [self._stop(rank, self._round) for rank in range(self.size)]
        if any(leaving):
            self.ended_at = [self.kernel.now] * self.size
        else:
            self._begin(None)
