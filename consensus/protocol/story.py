"""The last things that happened to an engine, kept for errors and stall reports."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TypeAlias

from consensus.protocol.commands import Command
from consensus.protocol.events import Event
from consensus.types import Rank, Seconds

Recorder: TypeAlias = Callable[[Seconds, Event, list[Command]], None]
"""Takes down what an engine was told, when, and what it made of it."""


class Story:
    """A bounded log of (time, event).

    Parameters
    ----------
    length : int
        How many events are kept; older ones are dropped.

    Examples
    --------
    >>> from consensus.protocol.events import StepDone
    >>> story = Story(length=2)
    >>> for second in range(3):
    ...     story.record(float(second), StepDone())
    >>> print(story.tell(now=3.0))
       2.000 s ago  StepDone()
       1.000 s ago  StepDone()
    """

    def __init__(self, length: int = 64) -> None:
        self._log: deque[tuple[Seconds, Event]] = deque(maxlen=length)
        self.record_pair = self._log.append

    def record(self, now: Seconds, event: Event) -> None:
        """Add one event that happened at ``now``."""
        self.record_pair((now, event))

    @property
    def latest(self) -> Seconds:
        """The time of the last event, 0 if there is none."""
        return self._log[-1][0] if self._log else 0.0

    def about(self, peer: Rank, last: int = 3) -> list[tuple[Seconds, Event]]:
        """Return the ``last`` kept events that concern ``peer``, oldest first."""
        return [entry for entry in self._log if getattr(entry[1], "peer", None) == peer][-last:]

    def tell_about(self, peer: Rank, now: Seconds) -> list[str]:
        """Return the last events that concern ``peer`` as indented lines, oldest first."""
        return ["    " + line for line in self.tell(now, self.about(peer)).splitlines()]

    def tell(self, now: Seconds, entries: list[tuple[Seconds, Event]] | None = None) -> str:
        """Return the log (or some ``entries`` of it) as text, a line an event, oldest first."""
        return "\n".join(f"{now - when:8.3f} s ago  {event!r}" for when, event in (self._log if entries is None else entries))
