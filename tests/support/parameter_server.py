"""A parameter server and its workers, as little of them as their times need; no code of the package.

The server makes a new version as soon as it has k gradients of the current one. What a worker does when that happens is the
protocol: under ``wait`` it finishes what it is at and then takes the newest version; under ``interrupt`` it starts anew at once.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

Protocol = Literal["wait", "interrupt"]


class Arrival(NamedTuple):
    """The ``place``-th gradient of ``version``, ``duration`` after ``previous`` gradients had made that version."""

    now: float
    worker: int
    version: int
    previous: int
    place: int
    duration: float
    late: bool


@dataclass
class _Version:
    number: int
    previous: int
    k: int
    since: float
    gradients: int = 0


@dataclass
class Server:
    """n workers whose round trips are drawn one by one, and the k of each version chosen from the one before.

    ``made`` grows by (version, previous, time) at each update.
    """

    workers: int
    protocol: Protocol
    choose: Callable[[int], int]
    draw: Callable[[], float]
    made: list[tuple[int, int, float]] = field(default_factory=list)
    _running: list[tuple[float, int, int]] = field(default_factory=list)
    _at: dict[int, _Version] = field(default_factory=dict)
    _order: int = 0

    def arrivals(self, updates: int) -> Iterator[Arrival]:
        """Every gradient that comes until so many updates have been made; the workers all start together, as after k = n."""
        now, current = 0.0, self._version(0, self.workers, 0.0)
        idle = set(range(self.workers))
        while current.number < updates:
            for worker in sorted(idle):
                self._start(worker, current, now)
            idle.clear()
            while current.gradients < current.k:
                now, order, worker = heapq.heappop(self._running)
                version = self._at.pop(order)
                version.gradients += 1
                late = version is not current
                yield Arrival(now, worker, version.number, version.previous, version.gradients, now - version.since, late)
                if late:
                    self._start(worker, current, now)
                else:
                    idle.add(worker)
            current = self._version(current.number + 1, current.k, now)
            if self.protocol == "interrupt":
                idle = set(range(self.workers))
                self._running.clear()
                self._at.clear()

    def _version(self, number: int, previous: int, now: float) -> _Version:
        self.made.append((number, previous, now))
        return _Version(number, previous, self.choose(previous), now)

    def _start(self, worker: int, version: _Version, now: float) -> None:
        self._order += 1
        self._at[self._order] = version
        heapq.heappush(self._running, (now + self.draw(), self._order, worker))
