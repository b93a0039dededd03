"""A request to end from outside: noted, not obeyed on the spot, so that the round is finished and the results are kept."""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any, Self

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
"""Ctrl-C; what batch systems send before the time limit; and what can be sent to ranks through every launcher."""

INSISTENCE = 2.0
"""A Ctrl-C so many seconds after the first signal is no longer a launcher's copy of it, but a user's second one."""


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
        if threading.current_thread() is threading.main_thread():
            self._former = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if not self.requested:
            self.requested, self._since = True, now
        elif number == signal.SIGINT and now - self._since > INSISTENCE:
            raise KeyboardInterrupt
