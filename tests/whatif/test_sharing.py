"""What swaps share is found out from their times."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
from recorded_runs import rings

from consensus.sim.kernel import Kernel
from consensus.whatif.server import Server
from consensus.whatif.sharing import Sharing, fit
from consensus.whatif.swaps import Swaps, match

RANKS = 6
EDGES = list(combinations(range(RANKS), 2))


def swaps_under(sharing: Sharing, spread: float, bursts: int = 150) -> tuple[Swaps, np.ndarray]:
    """Bursts of swaps on a complete graph, about 1 s of work each, and the true works."""
    generator = np.random.default_rng(1)
    kernel, rows, works = Kernel(), [], []
    server = Server(kernel, EDGES, RANKS, sharing)

    def begin(argument: tuple[int, float]) -> None:
        place, work = argument
        began = kernel.now
        works.append(work)
        server.start(EDGES[place], work, lambda number: rows.append((number, place, began, kernel.now)), len(works) - 1)

    for burst in range(bursts):
        for place in range(len(EDGES)):
            when = 100.0 * burst + 6.0 * generator.random()
            kernel.at(when, begin, (place, math.exp(spread * generator.standard_normal())))
    kernel.run()
    rows.sort()
    places = [place for _, place, _, _ in rows]
    began, ended = (np.array([row[k] for row in rows]) for k in (2, 3))
    return Swaps(np.array(EDGES)[places], began, began, ended, np.zeros(RANKS)), np.array(works)


@pytest.mark.parametrize(
    "sharing",
    [Sharing(), Sharing(per_rank=1.0), Sharing(overall=2.0), Sharing(per_rank=1.0, overall=2.0), Sharing(per_rank=2.0)],
)
@pytest.mark.parametrize("spread", [0.05, 0.5])
def test_limits_and_works_are_found(sharing: Sharing, spread: float) -> None:
    swaps, true = swaps_under(sharing, spread)
    found, works = fit(swaps)
    assert found == sharing
    assert works == pytest.approx(true, rel=1e-6)


def test_swaps_of_one_length_do_not_disturb_each_other() -> None:
    found, works = fit(match(rings(rounds=20)))
    assert found.unlimited
    assert works == pytest.approx(np.full(4 * 19, 0.002))


def test_swaps_that_take_no_time() -> None:
    found, works = fit(match(rings(rounds=20, transfer=lambda edge, k: 0.0)))
    assert found.unlimited
    assert not works.any()


def test_slowdown() -> None:
    sharing = Sharing(per_rank=1.0, overall=2.0)
    assert sharing.slowdown([1, 2, 5, 3], [1, 2, 1, 3]).tolist() == [1.0, 2.0, 2.5, 3.0]
