"""Recorded steps, to be had again."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
from made_runs import MIX
from recorded_runs import rings

from consensus.report.columns import columns
from consensus.timing import Constant
from consensus.whatif.steps import Steps, fit


def steps(rounds: int = 30) -> Steps:
    # Every rank is slow in rounds 10 to 12, rank 2 in round 20.
    def compute(rank: int, k: int) -> float:
        return 0.1 if 10 <= k <= 12 or (rank, k) == (2, 20) else 0.01

    return fit([columns(trace) for trace in rings(rounds=rounds, compute=compute)], np.zeros(4))


def take(stream: object, count: int) -> list[float]:
    return list(islice(iter(stream), count))  # type: ignore[call-overload]


def test_a_step_is_what_lies_between_a_close_and_the_next_opening() -> None:
    found = steps()
    assert [len(own) for own in found.durations] == [29] * 4
    assert found.durations[2][18] == pytest.approx(0.1 + MIX)
    assert found.first == pytest.approx((0.01,) * 4)
    assert found.overhead == pytest.approx(MIX)


def test_every_step_comes_back_in_order_from_a_moment_that_all_share() -> None:
    found = steps()
    beginnings = set()
    for seed in range(5):
        streams = [take(stream, 30) for stream in found.streams(4, seed)]
        assert [own[0] for own in streams] == pytest.approx([0.01] * 4)
        slow = [{k for k, step in enumerate(own[1:]) if step > 0.1} for own in streams]
        assert [len(places) for places in slow] == [3, 3, 4, 3]
        # What was slow at one moment is slow at one moment again.
        assert slow[0] == slow[1] == slow[3]
        assert slow[0] < slow[2]
        beginnings.add(min(slow[0]))
        assert take(found.streams(4, seed)[1], 59)[30:] == streams[1][1:]
    assert len(beginnings) > 1


def test_fewer_ranks() -> None:
    assert len(steps().streams(3, 1)) == 3


def test_a_model_gets_the_overhead_of_the_run() -> None:
    streams = steps().modelled(Constant(0.05), 6, 1)
    assert len(streams) == 6
    assert take(streams[5], 3) == pytest.approx([0.01, 0.05 + MIX, 0.05 + MIX])
