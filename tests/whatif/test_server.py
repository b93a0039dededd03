"""Jobs that share, and networks whose swaps are such jobs."""

from __future__ import annotations

from itertools import repeat

import pytest

from consensus.rules import build
from consensus.sim.kernel import Kernel
from consensus.timing import Constant, Link
from consensus.whatif.server import Server, SharedNetwork
from consensus.whatif.sharing import Sharing


def ends(sharing: Sharing, jobs: list[tuple[float, tuple[int, int], float]]) -> dict[tuple[int, int], float]:
    kernel, found = Kernel(), {}
    server = Server(kernel, sorted(edge for _, edge, _ in jobs), 5, sharing)
    for when, edge, work in jobs:
        kernel.at(when, lambda job: server.start(*job, lambda e: found.__setitem__(e, kernel.now), job[0]), (edge, work))
    kernel.run()
    return found


def test_jobs_of_one_rank_take_turns() -> None:
    found = ends(Sharing(per_rank=1.0), [(0.0, (0, 1), 1.0), (0.5, (0, 2), 1.0), (0.5, (3, 4), 1.0)])
    # The first runs alone for 0.5 s, then at half speed; the last one has ranks of its own.
    assert found == pytest.approx({(0, 1): 1.5, (0, 2): 2.0, (3, 4): 1.5})


def test_jobs_of_all_ranks_take_turns() -> None:
    found = ends(Sharing(overall=1.0), [(0.0, (0, 1), 1.0), (0.0, (2, 3), 2.0)])
    assert found == pytest.approx({(0, 1): 2.0, (2, 3): 3.0})


def test_jobs_without_work_are_over_at_once() -> None:
    assert ends(Sharing(overall=1.0), [(1.0, (0, 1), 0.0), (1.0, (2, 3), 0.0)]) == {(0, 1): 1.0, (2, 3): 1.0}


@pytest.mark.parametrize(("sharing", "swapping"), [(Sharing(), 2.0), (Sharing(per_rank=1.0), 4.0), (Sharing(overall=1.0), 6.0)])
def test_a_round_of_a_ring(sharing: Sharing, swapping: float) -> None:
    triangle = {0: (1, 2), 1: (0, 2), 2: (0, 1)}
    streams = [Constant(10.0).stream(rank, 0) for rank in triangle]
    works = {edge: repeat(2.0) for edge in ((0, 1), (0, 2), (1, 2))}
    closed = []
    network = SharedNetwork(
        triangle,
        build("full"),
        streams,
        Link(0.0, 1.0 / 0.5),
        stop=lambda rank, round: round == 3,
        control_bytes=1,
        on_round=lambda rank, record, step: closed.append(record.closed_at - record.opened_at),
        works=works,
        sharing=sharing,
    )
    network.run()
    # All open together: their Readys cross, then their Engages do.
    assert closed == pytest.approx([1.0 + swapping] * 9)
