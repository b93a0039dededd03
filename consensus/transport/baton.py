"""Threads that take turns on a virtual clock: at most one runs, and which one is next is decided by time and order alone."""

from __future__ import annotations

import heapq
import math
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

from consensus.errors import ProtocolError
from consensus.types import Rank, Seconds

_T = TypeVar("_T")

FUTILE = 10_000
"""How many deadlines in a row may pass with nothing else to come before the run counts as hung."""


class _Abandoned(BaseException):
    """Unwinds a thread after the run has failed in another; not an Exception, so that a rank's own handlers let it pass."""


class Baton:
    """The virtual clock, the calendar of what is to happen, and the baton that only the running thread holds.

    A thread gives the baton away by :meth:`pause` or :meth:`sleep` and itself carries out what is next on the calendar until that
    is the turn of some thread; if it is its own turn again, no thread is switched.

    Parameters
    ----------
    size
        Number of threads.
    """

    def __init__(self, size: int) -> None:
        self.now: Seconds = 0.0
        self._calendar: list[tuple[Seconds, int, bool, Callable[[], None]]] = []
        self._order = self._alarms = self._futile = 0
        self._turns = [threading.Semaphore(0) for _ in range(size)]
        self._turn: Rank | None = None
        self._until = [math.inf] * size
        self._alarm = [math.inf] * size
        self._doing = ["starting"] * size
        self._since = [0.0] * size
        self._paused = [True] * size
        self._pauses = [0] * size
        self._live = set(range(size))
        self._failure: BaseException | None = None
        self._story: str | None = None

    def at(self, when: Seconds, action: Callable[[], None]) -> None:
        """Put ``action`` on the calendar for time ``when``; those of the same time happen in the order of these calls."""
        self._futile = 0
        self._enter(when, False, action)

    def _enter(self, when: Seconds, alarm: bool, action: Callable[[], None]) -> None:
        self._order += 1
        self._alarms += alarm
        heapq.heappush(self._calendar, (when, self._order, alarm, action))

    def wake(self, rank: Rank) -> None:
        """Let ``rank`` run at this time, if it is paused then."""
        self.at(self.now, partial(self._resume, rank, self._pauses[rank]))

    def sleep(self, rank: Rank, duration: Seconds, doing: str) -> None:
        """Pause the running thread of ``rank`` for ``duration``; nothing wakes it before."""
        self.at(self.now + duration, partial(self._resume, rank, self._pauses[rank]))
        self.pause(rank, doing)

    def pause(self, rank: Rank, doing: str, until: Seconds = math.inf) -> None:
        """Give the baton away; returns at a :meth:`wake`, or at time ``until``.

        Parameters
        ----------
        rank
            Whose thread is calling.
        doing
            What it does in the meantime, for the report of a deadlock.
        until
            The latest time to return at.

        Raises
        ------
        ProtocolError
            In every thread, if none will ever run again.
        """
        self._check()
        self._doing[rank], self._since[rank] = doing, self.now
        self._until[rank], self._paused[rank] = until, True
        self._set_alarm(rank)
        successor = self._advance()
        if successor != rank:
            self._turns[successor].release()
            self._turns[rank].acquire()
            self._check()

    def _check(self) -> None:
        if self._story is not None:
            raise ProtocolError(self._story)
        if self._failure is not None:
            raise _Abandoned

    def _set_alarm(self, rank: Rank) -> None:
        # Most waits end long before their deadline: one alarm a rank, moved on when it rings, keeps the calendar short.
        when = self._until[rank]
        if when < self._alarm[rank]:
            self._alarm[rank] = when
            self._enter(when, True, partial(self._ring, rank, when))

    def _ring(self, rank: Rank, when: Seconds) -> None:
        if self._alarm[rank] == when:
            self._alarm[rank] = math.inf
        if self._paused[rank] and self._until[rank] <= when:
            self._futile = self._futile + 1 if len(self._calendar) == self._alarms else 0
            self._resume(rank, self._pauses[rank])
        elif self._paused[rank]:
            self._set_alarm(rank)

    def _resume(self, rank: Rank, pause: int) -> None:
        # Two messages of one instant wake a rank twice; the second call must not cut short what it does by then.
        if self._paused[rank] and self._pauses[rank] == pause:
            self._paused[rank] = False
            self._pauses[rank] += 1
            self._turn = rank

    def _advance(self) -> Rank:
        self._turn = None
        while self._turn is None:
            if not self._calendar or self._futile > FUTILE:
                self._story = self._tell()
                raise ProtocolError(self._story)
            self.now, _, alarm, action = heapq.heappop(self._calendar)
            self._alarms -= alarm
            action()
        return self._turn

    def _tell(self) -> str:
        lines = [
            f"rank {rank}: " + (f"{doing} since {since:.6f} s" if rank in self._live else "finished")
            for rank, (doing, since) in enumerate(zip(self._doing, self._since, strict=True))
        ]
        return f"deadlock at {self.now:.6f} s of virtual time: nothing is under way and no rank can go on\n  " + "\n  ".join(
            lines
        )

    def run(self, bodies: Sequence[Callable[[], _T]]) -> list[_T]:
        """Run one thread per body, the first one first, until all have returned.

        Parameters
        ----------
        bodies
            What each thread does, by rank.

        Returns
        -------
        list
            What they returned.

        Raises
        ------
        BaseException
            The first exception of any thread, with a note of its rank; all other threads are unwound.
        """
        results: list[Any] = [None] * len(bodies)

        def live(rank: Rank) -> None:
            self._turns[rank].acquire()
            try:
                self._check()
                self._doing[rank] = "running"
                results[rank] = bodies[rank]()
            except BaseException as error:
                self._fail(rank, error)
            self._leave(rank)

        threads = [threading.Thread(target=live, args=(rank,), name=f"rank {rank}", daemon=True) for rank in self._live]
        for thread in threads:
            thread.start()
        for rank in sorted(self._live):
            self.wake(rank)
        if threads:
            self._turns[self._advance()].release()
        for thread in threads:
            thread.join()
        if self._failure is not None:
            raise self._failure
        return results

    def _fail(self, rank: Rank, error: BaseException) -> None:
        if self._failure is None:
            error.add_note(f"on rank {rank} of {len(self._turns)}, at {self.now:.6f} s of virtual time")
            self._failure = error

    def _leave(self, rank: Rank) -> None:
        """Hand the baton over for good; after a failure, to any thread that is to be unwound."""
        self._live.discard(rank)
        if not self._live:
            return
        try:
            successor = min(self._live) if self._failure is not None else self._advance()
        except BaseException as error:
            self._fail(rank, error)
            successor = min(self._live)
        self._turns[successor].release()
