"""The virtual clock: order, zero delays, limits."""

from __future__ import annotations

import math

import pytest

from consensus.errors import ConfigError
from consensus.sim.kernel import Kernel


def test_events_happen_in_order_of_time_and_then_of_scheduling() -> None:
    kernel, seen = Kernel(), []
    for when, word in ((2.0, "c"), (1.0, "a"), (2.0, "d"), (1.0, "b")):
        kernel.at(when, seen.append, word)
    kernel.run()
    assert (seen, kernel.now, kernel.events, kernel.pending) == (list("abcd"), 2.0, 4, 0)


def test_what_happens_now_comes_after_what_was_to_happen_now_anyway() -> None:
    kernel, seen = Kernel(), []

    def first(depth: int) -> None:
        seen.append(depth)
        if depth < 3:
            kernel.at(kernel.now, first, depth + 1)

    kernel.at(1.0, first, 0)
    kernel.at(1.0, seen.append, "second")
    kernel.run()
    assert seen == [0, "second", 1, 2, 3]
    assert kernel.now == 1.0


def test_until_and_stop_leave_the_rest() -> None:
    kernel, seen = Kernel(), []
    for when in (1.0, 2.0, 3.0, 4.0):
        kernel.at(when, seen.append, when)
    kernel.run(until=2.0)
    assert (seen, kernel.now, kernel.pending) == ([1.0, 2.0], 2.0, 2)
    kernel.run(stop=lambda: len(seen) == 3)
    assert (seen, kernel.pending) == ([1.0, 2.0, 3.0], 1)
    kernel.run()
    assert seen[-1] == 4.0


@pytest.mark.parametrize("when", [-1.0, math.nan, math.inf, 0.5])
def test_no_event_in_the_past_or_never(when: float) -> None:
    kernel = Kernel()
    kernel.at(1.0, id, None)
    kernel.run()
    with pytest.raises(ConfigError, match="expected a finite time from now"):
        kernel.at(when, id, None)
