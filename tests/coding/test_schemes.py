"""The schemes beside the hierarchical code."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from consensus.coding import SCHEMES, FlatCode, GradientCode, GreedyCode, construct
from consensus.errors import CodingError, ConfigError


def sent(code: GradientCode, gradients: np.ndarray) -> dict[tuple[int, int], np.ndarray]:
    return {
        (edge, worker): code.encode(edge, worker, gradients[list(code.assignment(edge, worker))])
        for edge, workers in enumerate(code.workers_per_edge)
        for worker in range(workers)
        if code.assignment(edge, worker)
    }


def decoded(code: GradientCode, vectors: dict[tuple[int, int], np.ndarray]) -> np.ndarray:
    if code.direct:
        return code.decode_master({code.node(*place): vector for place, vector in vectors.items()})
    edges = sorted({edge for edge, _ in vectors})
    return code.decode_master({e: code.decode_edge(e, {j: v for (i, j), v in vectors.items() if i == e}) for e in edges})


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_scheme_sums_all_parts_when_all_come(scheme: str) -> None:
    code = construct(scheme, (3, 4, 5), 24, 1, 1)
    gradients = np.random.default_rng(0).standard_normal((24, 4))
    np.testing.assert_allclose(decoded(code, sent(code, gradients)), gradients.sum(axis=0), atol=1e-10)
    assert code.kappa >= 1 - 1e-12


@pytest.mark.parametrize(("scheme", "losses"), [("worker", (0, 1)), ("edge", (1, 0)), ("hgc", (1, 1)), ("flat", (1, 1))])
def test_each_scheme_survives_what_it_is_for(scheme: str, losses: tuple[int, int]) -> None:
    code = construct(scheme, (2, 3, 3), 8, 1, 1)
    gradients = np.random.default_rng(0).standard_normal((8, 2))
    vectors = sent(code, gradients)
    for gone in combinations(range(3), losses[0]):
        for first in range(2):
            kept = {(i, j): v for (i, j), v in vectors.items() if i not in gone and not (losses[1] and j == (first + i) % 2)}
            np.testing.assert_allclose(decoded(code, kept), gradients.sum(axis=0), atol=1e-11)


@pytest.mark.parametrize(("scheme", "lost"), [("uncoded", (0, 0)), ("worker", None), ("edge", (0, 0))])
def test_and_no_more_than_that(scheme: str, lost: tuple[int, int] | None) -> None:
    code = construct(scheme, (3, 3, 3), 9, 1, 1)
    vectors = sent(code, np.ones((9, 2)))
    kept = {place: vector for place, vector in vectors.items() if (place[0] != 0 if lost is None else place != lost)}
    with pytest.raises(CodingError, match="master: 2 of 3" if lost is None else "edge 0: 2 of 3"):
        decoded(code, kept)


def test_the_flat_code_costs_more() -> None:
    flat = FlatCode((10,) * 4, 40, 1, 2)
    assert (flat.load / flat.parts, flat.master.needed, flat.stragglers) == (0.425, 24, 16)
    assert flat.direct
    assert (flat.node(0, 3), flat.node(2, 3)) == (3, 23)
    with pytest.raises(CodingError, match="call decode_master"):
        flat.decode_edge(0, {})


@pytest.mark.parametrize("workers", [(2, 3, 4), (3, 3, 3), (5,)])
def test_flat_workers_hold_what_their_number_says(workers: tuple[int, ...]) -> None:
    flat = FlatCode(workers, 18, 0, 1)
    assert [flat.node(i, j) for i, m in enumerate(workers) for j in range(m)] == list(range(sum(workers)))
    held = [flat.assignment(i, j) for i, m in enumerate(workers) for j in range(m)]
    assert held == [flat.master.held(node) for node in range(sum(workers))]
    assert max(map(len, held)) == flat.load


def test_greedy_is_right_for_equal_gradients_and_biased_for_others() -> None:
    code = GreedyCode((2, 3, 3), 16, 1, 1)
    same = sent(code, np.ones((16, 2)))
    kept = [(0, 0), (1, 0), (1, 2)]
    np.testing.assert_allclose(decoded(code, {place: same[place] for place in kept}), np.full(2, 16.0))
    gradients = np.arange(32.0).reshape(16, 2)
    vectors = sent(code, gradients)
    biased = decoded(code, {place: vectors[place] for place in kept})
    assert np.abs(biased - gradients.sum(axis=0)).max() > 1
    assert code.edge_weights(1, [0, 2]).residual >= 1
    assert code.edge_weights(1, [0, 1, 2]).residual == 0


def test_greedy_waits_for_its_number_of_nodes() -> None:
    code = GreedyCode((2, 3, 3), 16, 1, 1)
    assert (code.master.needed, code.edges[1].needed) == (2, 2)
    assert code.edges[1].sufficient([0, 2])
    assert not code.edges[1].sufficient([2])
    with pytest.raises(CodingError, match="edge 1: 1 of 3 workers came"):
        code.edge_weights(1, [2])
    assert code.edge_weights(1, [2], approximate=True).nodes == (2,)
    with pytest.raises(CodingError, match="master: 0 of 3 edges came"):
        code.master_weights([], approximate=True)


def test_greedy_with_fewer_parts_than_workers_waits_for_one_at_least() -> None:
    code = GreedyCode((3, 3), 2, 1, 2)
    assert (code.master.needed, [edge.needed for edge in code.edges]) == (1, [1, 1])
    assert np.isfinite(code.kappa)


def test_an_unknown_scheme_is_refused() -> None:
    with pytest.raises(ConfigError, match="did you mean 'greedy'"):
        construct("gredy", (2, 2), 4, 1, 1)
    with pytest.raises(ConfigError, match="edge_stragglers = 2"):
        construct("flat", (2, 2), 4, 2, 1)
    with pytest.raises(ConfigError, match="edge_stragglers = 2"):
        construct("greedy", (2, 2), 4, 2, 1)
