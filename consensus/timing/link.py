"""How long a message takes: the usual latency and bandwidth line, with slow links."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from consensus.timing.checks import FACTOR, Bandwidth, Duration, ParameterError, settle
from consensus.types import Edge, Rank, Seconds


@dataclass(frozen=True)
class Link:
    """Transfer time of a message between two ranks: (latency + bytes / bandwidth) * factor of the link.

    Links do not contend: each transfer is timed as if it were alone on its link.

    Parameters
    ----------
    latency : float
        Seconds before the first byte.
    bandwidth : float
        Bytes per second; ``inf`` for transfers that cost only the latency.
    slow : mapping of (int, int) to float
        Factors, 1 or more, of the links that are slower than the others; undirected, either order of the ranks.

    Examples
    --------
    >>> link = Link(latency=1e-3, bandwidth=1e6, slow={(2, 0): 10.0})
    >>> link.duration(0, 1, 1000), link.duration(0, 2, 1000)
    (0.002, 0.02)
    """

    latency: Duration
    bandwidth: Bandwidth
    slow: Mapping[Edge, float] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        problems = settle(self)
        problems += [
            f"slow[{i}, {j}] = {value!r}: expected {FACTOR.wording}" for (i, j), value in self.slow.items() if value not in FACTOR
        ]
        if problems:
            raise ParameterError(type(self).__name__, problems)
        object.__setattr__(self, "slow", {(min(edge), max(edge)): float(value) for edge, value in self.slow.items()})

    def duration(self, i: Rank, j: Rank, nbytes: int) -> Seconds:
        """Seconds from the start of a send of ``nbytes`` bytes from ``i`` until ``j`` has all of it."""
        return (self.latency + nbytes / self.bandwidth) * self.slow.get((min(i, j), max(i, j)), 1.0)
