"""Where a rank's processor time goes, by samples: timers around every call would cost more than the calls."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Callable, Iterator
from types import FrameType

WAITING, TRANSPORT, ENGINE, MIXING, LOOP = "waiting", "transport", "engine", "mixing", "loop"

_PARTS = (
    ("consensus/transport/idle.py", WAITING),
    ("consensus/transport/", TRANSPORT),
    ("consensus/protocol/", ENGINE),
    ("consensus/rules/", ENGINE),
    ("consensus/flat.py", MIXING),
    ("consensus/region.py", MIXING),
    ("consensus/buffers.py", MIXING),
)
"""Whose code it is, by path; the innermost frame that is listed decides, and :data:`LOOP` has the rest."""

INTERVAL = 1e-3
"""Processor seconds between two samples."""


def account(files: Iterator[str]) -> str:
    """To whom a sample belongs.

    Parameters
    ----------
    files
        The files of the stack's frames, innermost first.

    Examples
    --------
    >>> account(iter(["/x/torch/_ops.py", "/x/consensus/region.py", "/x/consensus/transport/mpi.py"]))
    'mixing'
    """
    for file in files:
        for part, name in _PARTS:
            if part in file:
                return name
    return LOOP


class Sampler:
    """Counts samples of this process while a charged function runs.

    Attributes
    ----------
    counts : Counter
        Samples by account.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._charging = False
        signal.signal(signal.SIGPROF, self._sample)
        signal.setitimer(signal.ITIMER_PROF, INTERVAL, INTERVAL)

    def charge(self, function: Callable[[], object]) -> Callable[[], None]:
        """Return ``function``, sampled while it runs."""

        def charged() -> None:
            self._charging = True
            function()
            self._charging = False

        return charged

    def shares(self) -> dict[str, float]:
        """Stop, and return the part of the samples that each account has."""
        signal.setitimer(signal.ITIMER_PROF, 0)
        total = max(1, self.counts.total())
        return {name: self.counts[name] / total for name in (ENGINE, TRANSPORT, MIXING, LOOP, WAITING)}

    def _sample(self, number: int, frame: FrameType | None) -> None:
        if self._charging:
            self.counts[account(_files(frame))] += 1


def _files(frame: FrameType | None) -> Iterator[str]:
    while frame is not None:
        yield frame.f_code.co_filename
        frame = frame.f_back
