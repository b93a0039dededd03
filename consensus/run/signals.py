"""A request to end from outside: noted, not obeyed on the spot, so that the round is finished and the results are kept."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Mapping
from types import FrameType, TracebackType
from typing import Any, Self

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
"""Ctrl-C; what batch systems send before the time limit; a terminal that was closed; and what can be sent to ranks through every
launcher."""

INSISTENCE = 2.0
"""A Ctrl-C so many seconds after the first signal is no longer a launcher's copy of it, but a user's second one."""


def take_over(handler: Callable[[int, FrameType | None], None]) -> dict[int, Any]:
    """Have ``handler`` called at :data:`SIGNALS`, in the main thread; elsewhere there are none to be had.

    A SIGHUP that is ignored stays so: that is what ``nohup`` does to a program that is to outlive its terminal.

    Returns
    -------
    dict
        The former handlers, for :func:`give_back`.
    """
    if threading.current_thread() is not threading.main_thread():
        return {}
    kept = {signal.SIGHUP} if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else set()
    return {number: signal.signal(number, handler) for number in SIGNALS if number not in kept}


def give_back(former: Mapping[int, Any]) -> None:
    """Put back what :func:`take_over` has returned."""
    for number, handler in former.items():
        signal.signal(number, handler)


class Interruption:
    """Notes the signals of :data:`SIGNALS` while it is entered; afterwards the former handlers are back.

    A second Ctrl-C, later than :data:`INSISTENCE`, raises KeyboardInterrupt. Threads other than the main one get no signals;
    entered there, nothing is ever noted.

    Attributes
    ----------
    requested : bool
        Whether a signal has come.
    """

    def __init__(self) -> None:
        self.requested = False
        self._since = 0.0
        self._former: dict[int, Any] = {}

    def __enter__(self) -> Self:
        self._former = take_over(self._note)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        give_back(self._former)

    def _note(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if not self.requested:
            self.requested, self._since = True, now
        elif number == signal.SIGINT and now - self._since > INSISTENCE:
            raise KeyboardInterrupt
