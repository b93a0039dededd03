"""How a rank of a real training comes to die: for the kill matrix and the stress test."""

from __future__ import annotations

import signal
from typing import NamedTuple

from consensus.driver import Driver
from consensus.neighbours import NeighbourHandle
from consensus.protocol.neighbour import NeighbourEngine
from consensus.protocol.rounds import RoundRecord
from tests.support.dying import doom

ANY = "any"
"""A moment that a clock chooses, not the protocol: it may be in the middle of anything, also after the training."""


class Fate(NamedTuple):
    """When a rank dies.

    Attributes
    ----------
    moment : str
        One of :data:`tests.support.dying.MOMENTS`, or :data:`ANY`.
    round : int
        The first in which it may be.
    seconds : float
        For :data:`ANY`: how long after that round's beginning.
    patience : int
        Otherwise: for how many rounds to wait for such a moment, see :func:`tests.support.dying.doom`.
    """

    moment: str
    round: int
    seconds: float = 0.0
    patience: int = 10


def meet(fate: Fate) -> None:
    """Make this process kill itself when it trains among neighbours."""
    opened = NeighbourHandle._open

    def _open(self: NeighbourHandle) -> Driver[NeighbourEngine]:
        driver = opened(self)
        if fate.moment == ANY:
            wind_up(driver, fate)
        else:
            doom(driver, fate.moment, fate.round, fate.patience)
        return driver

    NeighbourHandle._open = _open  # type: ignore[method-assign]


def wind_up(driver: Driver[NeighbourEngine], fate: Fate) -> None:
    """Let the system's alarm end this process; nothing handles that signal."""
    exchange = driver.exchange

    def fatal_exchange() -> RoundRecord:
        if driver.engine.round + 1 == fate.round:
            signal.setitimer(signal.ITIMER_REAL, max(fate.seconds, 1e-6))
        return exchange()

    driver.exchange = fatal_exchange  # type: ignore[method-assign]
