"""The virtual clock: what happens when, in one well-defined order."""

from __future__ import annotations

import math
from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any, TypeAlias

from consensus.errors import ConfigError
from consensus.types import Seconds

Callback: TypeAlias = Callable[[Any], object]


class Kernel:
    """A discrete-event kernel.

    Events happen in order of time, and at one time in the order in which they were scheduled; so a simulation is a function of
    its input. The heap holds *instants*, each with the list of what happens at it: networks of equal delays put many events at
    one time, which then cost a list's append. What is scheduled for the present instant (a zero delay) goes to the end of the
    list that is being worked through, and never sees the heap.

    Attributes
    ----------
    now : float
        The clock, seconds.
    events : int
        How many events have happened. An event that stands for several (a broadcast) may add the others.

    Examples
    --------
    >>> kernel, seen = Kernel(), []
    >>> kernel.at(2.0, seen.append, "later")
    >>> kernel.at(1.0, lambda word: kernel.at(kernel.now, seen.append, word), "at once")
    >>> kernel.run()
    >>> seen, kernel.now, kernel.events
    (['at once', 'later'], 2.0, 3)
    """

    __slots__ = ("_agenda", "_instants", "events", "now")

    def __init__(self) -> None:
        self.now: Seconds = 0.0
        self.events = 0
        self._instants: list[Seconds] = []
        self._agenda: dict[Seconds, list[tuple[Callback, Any]]] = {}

    def at(self, when: Seconds, callback: Callback, argument: Any) -> None:
        """Let ``callback(argument)`` happen.

        Parameters
        ----------
        when : float
            Time on the clock, not before now, seconds.
        callback : callable
        argument : object

        Raises
        ------
        ConfigError
            If ``when`` has passed, or is not a finite number.
        """
        entries = self._agenda.get(when)
        if entries is not None:
            entries.append((callback, argument))
            return
        if not self.now <= when < math.inf:
            raise ConfigError(f"an event at {when} s, expected a finite time from now ({self.now} s) on; check the time models")
        self._agenda[when] = [(callback, argument)]
        heappush(self._instants, when)

    @property
    def pending(self) -> int:
        """How many events are scheduled."""
        return sum(map(len, self._agenda.values()))

    def run(self, until: Seconds = math.inf, stop: Callable[[], bool] | None = None) -> None:
        """Let events happen until there are none.

        Parameters
        ----------
        until : float
            Leave those after this time alone, seconds; the clock stops at the last event before.
        stop : callable, optional
            Asked after each instant: whether to return.
        """
        instants, agenda = self._instants, self._agenda
        while instants and instants[0] <= until:
            self.now = now = heappop(instants)
            entries = agenda[now]
            for callback, argument in entries:  # the list may grow meanwhile
                callback(argument)
            del agenda[now]
            self.events += len(entries)
            if stop is not None and stop():
                return
