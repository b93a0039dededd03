"""Exchanges from both ends' traces, on one clock."""

from __future__ import annotations

import numpy as np
import pytest
from recorded_runs import rings

from consensus.whatif.swaps import match

AHEAD = [0.005, -0.001, -0.007, 0.003]


def test_times_of_a_swap() -> None:
    swaps = match(rings(rounds=5, compute=lambda rank, k: 0.02 if rank == 1 else 0.01))
    assert len(swaps) == 4 * 4  # four edges, the first round left out
    on_edge = (swaps.ends == (0, 1)).all(axis=1)
    assert swaps.agreed[on_edge] == pytest.approx(swaps.opened[on_edge])
    assert swaps.done - swaps.agreed == pytest.approx(np.full(16, 0.002))
    assert (np.diff(swaps.agreed) >= 0).all()


def test_clocks_are_set_right() -> None:
    right, wrong = match(rings(rounds=6)), match(rings(AHEAD, rounds=6))
    assert wrong.offsets == pytest.approx(AHEAD)
    assert wrong.agreed == pytest.approx(right.agreed)
    assert right.offsets == pytest.approx(np.zeros(4), abs=1e-12)


def test_what_one_end_alone_tells_is_left_out() -> None:
    traces = rings(rounds=6)
    traces[2].rounds.pop()
    assert len(match(traces)) == 4 * 5 - 2


def test_ranks_that_never_met() -> None:
    swaps = match(rings(rounds=6, unused=lambda k: [(0, 1), (0, 3), (1, 2), (2, 3)]))
    assert len(swaps) == 0
    assert swaps.offsets.tolist() == [0.0] * 4
