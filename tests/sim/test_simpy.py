"""The simulator against an independent implementation of the same network in SimPy."""

from __future__ import annotations

import pytest

from benchmarks import simulator
from consensus.timing import ShiftedExponential

pytest.importorskip("simpy", reason="SimPy is not installed; it comes with the dependency group bench")


@pytest.mark.parametrize("bare", [False, True])
@pytest.mark.parametrize("b", [0, 1, 3])
def test_both_come_to_the_same_end(b: int, bare: bool) -> None:
    from benchmarks.simpy_network import SimpyNetwork

    workers, rounds, model = 16, 30, ShiftedExponential(0.01, 0.01)
    histories: list[list[int]] = [[] for _ in range(workers)]
    ours = simulator.network(
        workers,
        "static_backup",
        simulator.EXPONENTIAL,
        rounds,
        seed=5,
        b=b,
        on_round=lambda rank, record, compute: histories[rank].append(len(record.exchanges)),
    )
    ours.run()
    theirs = SimpyNetwork(
        simulator.graph(workers),
        [iter(model.stream(rank, 5)) for rank in range(workers)],
        rounds=rounds,
        b=b,
        control=simulator.LINK.duration(0, 1, ours.control_bytes),
        model=simulator.LINK.duration(0, 1, ours.model_bytes),
        bare=bare,
    )
    theirs.run()
    assert theirs.ended == max(ours.ended_at)
    assert [worker.finished for worker in theirs.workers] == ours.ended_at
    assert 2 * theirs.swaps == sum(map(sum, histories))
    sent = sum(ours.bytes_sent(rank) for rank in range(workers))
    assert sent == theirs.messages * ours.control_bytes + 2 * theirs.swaps * ours.model_bytes
