"""Two layers of code: load, coverage, and the exact sum whatever is lost."""

from __future__ import annotations

from collections import Counter
from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consensus.coding import GradientCode, HierarchicalCode
from consensus.errors import CodingError, ConfigError

SMALL = [
    ((2, 2), 4, 1, 1),
    ((3, 4, 5), 24, 1, 2),
    ((2, 3, 4), 12, 1, 1),
    ((3, 3, 3), 7, 2, 2),
    ((3, 3, 12), 60, 1, 2),
    ((4, 4, 4, 4), 16, 1, 1),
    ((2, 3, 3, 2), 10, 3, 1),
    ((3, 5, 4), 11, 0, 2),
    ((2, 4), 9, 1, 0),
    ((3, 2), 5, 0, 0),
    ((5,), 10, 0, 3),
    ((1, 1, 1), 3, 1, 0),
    ((4, 6, 5), 1, 1, 2),
    ((3, 3, 4, 3), 2, 2, 1),
]
"""Unequal and equal m_i, saturated, s_e = 0, s_w = 0, m_i = s_w + 1, n = s_e + 1, K not divisible, K below n."""


def gradients_of(code: GradientCode, size: int = 3) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((code.parts, size))


def sent_by(code: GradientCode, edge: int, worker: int, gradients: np.ndarray) -> np.ndarray:
    return code.encode(edge, worker, gradients[list(code.assignment(edge, worker))])


@pytest.mark.parametrize("kind", ["auto", "trig"])
@pytest.mark.parametrize("system", SMALL)
def test_every_pattern_decodes(system: tuple[tuple[int, ...], int, int, int], kind: str) -> None:
    workers, _, s_e, s_w = system
    code = HierarchicalCode(*system, kind=kind)
    gradients = gradients_of(code)
    total = gradients.sum(axis=0)
    # What an edge sends does not depend on who is silent there: each of its patterns is gone through once, then the master's.
    upward = {}
    for edge, m in enumerate(workers):
        layer = code.edges[edge]
        vectors = {worker: sent_by(code, edge, worker, gradients) for worker in layer.participants}
        own = code.master.matrix[edge] @ gradients
        for silent in (lost for count in range(s_w + 1) for lost in combinations(range(m), count)):
            received = {worker: vector for worker, vector in vectors.items() if worker not in silent}
            if layer.participants:
                upward[edge] = code.decode_edge(edge, received)
                np.testing.assert_allclose(upward[edge], own, atol=1e-12, rtol=0)
    for silent in (lost for count in range(s_e + 1) for lost in combinations(range(len(workers)), count)):
        received = {edge: vector for edge, vector in upward.items() if edge not in silent}
        np.testing.assert_allclose(code.decode_master(received), total, atol=1e-12, rtol=0)


def test_ten_edges_of_twenty_workers() -> None:
    code = HierarchicalCode((20,) * 10, 200, 2, 3)
    gradients = gradients_of(code)
    vectors = {(i, j): sent_by(code, i, j, gradients) for i, j in product(range(10), range(20))}
    random = np.random.default_rng(2)
    for trial in range(40):
        consecutive = trial < 20
        edges = {trial % 10, (trial + 1) % 10} if consecutive else set(random.choice(10, 2, replace=False).tolist())
        upward = {}
        for edge in set(range(10)) - edges:
            drawn = random.choice(20, 3, replace=False).tolist()
            silent = {(trial + step) % 20 for step in range(3)} if consecutive else set(drawn)
            upward[edge] = code.decode_edge(edge, {j: vectors[edge, j] for j in range(20) if j not in silent})
        np.testing.assert_allclose(code.decode_master(upward), gradients.sum(axis=0), atol=1e-12, rtol=1e-12)


@st.composite
def systems(draw: st.DrawFn) -> tuple[list[int], int, int, int]:
    workers = draw(st.lists(st.integers(1, 7), min_size=1, max_size=5))
    return workers, draw(st.integers(1, 40)), draw(st.integers(0, len(workers) - 1)), draw(st.integers(0, min(workers) - 1))


@given(systems())
@settings(max_examples=60, deadline=None)
def test_each_part_is_at_enough_workers_of_enough_edges(system: tuple[list[int], int, int, int]) -> None:
    workers, parts, s_e, s_w = system
    code = HierarchicalCode(*system, kind="gaussian")
    at_edges = Counter[int]()
    for edge, m in enumerate(workers):
        at_workers = Counter(part for worker in range(m) for part in code.assignment(edge, worker))
        assert set(at_workers.values()) <= {s_w + 1}
        at_edges.update(at_workers.keys())
    assert at_edges == Counter(dict.fromkeys(range(parts), s_e + 1))
    held = [len(code.assignment(edge, worker)) for edge, m in enumerate(workers) for worker in range(m)]
    assert max(held) == code.load
    assert code.load >= parts * (s_e + 1) * (s_w + 1) / sum(workers)


@given(systems(), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_any_losses_that_are_tolerated_leave_the_sum(system: tuple[list[int], int, int, int], random) -> None:  # type: ignore[no-untyped-def]
    workers, _, s_e, s_w = system
    code = HierarchicalCode(*system)
    gradients = gradients_of(code, size=2)
    lost = random.sample(range(len(workers)), s_e)
    upward = {}
    for edge, m in enumerate(workers):
        if edge not in lost and edge in code.master.participants:
            silent = random.sample(range(m), s_w)
            alive = [worker for worker in code.edges[edge].participants if worker not in silent]
            upward[edge] = code.decode_edge(edge, {worker: sent_by(code, edge, worker, gradients) for worker in alive})
    np.testing.assert_allclose(code.decode_master(upward), gradients.sum(axis=0), atol=1e-13 * code.kappa * code.parts)


def test_the_saturated_system_needs_more_than_the_bound() -> None:
    code = HierarchicalCode((3, 3, 12), 60, 1, 2)
    assert code.load == 30
    assert [code.master.matrix[edge].astype(bool).sum() for edge in range(3)] == [30, 30, 60]


def test_the_load_of_the_paper_s_setting() -> None:
    code = HierarchicalCode((10,) * 4, 40, 1, 2)
    assert code.load / code.parts == 0.15
    assert code.master.needed == 3


def test_kappa_is_the_worst_over_both_layers_together() -> None:
    code = HierarchicalCode((3, 4, 3), 12, 1, 1, kind="trig")
    worst = 0.0
    for edges in combinations(range(3), 2):
        for silent in product(*(range(-1, code.workers_per_edge[edge]) for edge in edges)):
            upper = code.master_weights(edges)
            through = np.zeros(code.parts)
            for weight, edge, lost in zip(upper.weights, edges, silent, strict=True):
                lower = code.edge_weights(edge, set(range(code.workers_per_edge[edge])) - {lost})
                for factor, worker in zip(lower.weights, lower.nodes, strict=True):
                    sizes = abs(weight * factor * code.coefficients(edge, worker))
                    np.add.at(through, list(code.assignment(edge, worker)), sizes)
            worst = max(worst, through.max())
    assert code.kappa_exact
    assert code.kappa <= code.master.kappa * max(layer.kappa for layer in code.edges) * (1 + 1e-9)
    assert code.kappa == pytest.approx(worst, rel=1e-6)


def test_float32_comes_and_goes_as_float32_within_kappa_roundings() -> None:
    code = HierarchicalCode((3, 4, 5), 24, 1, 2)
    gradients = np.random.default_rng(0).standard_normal((24, 500))
    rounded = gradients.astype(np.float32)
    upward = {
        edge: code.decode_edge(edge, {j: sent_by(code, edge, j, rounded) for j in range(2, code.workers_per_edge[edge])})
        for edge in (0, 2)
    }
    decoded = code.decode_master(upward)
    assert decoded.dtype == np.float32
    error = np.abs(decoded - gradients.sum(axis=0))
    assert (error <= 10 * 2.0**-24 * code.kappa * np.abs(gradients).sum(axis=0)).all()


def test_a_list_of_gradients_encodes_like_an_array() -> None:
    code = HierarchicalCode((3, 4, 5), 24, 1, 2)
    gradients = gradients_of(code)
    for worker in range(4):
        parts = code.assignment(1, worker)
        from_list = code.encode(1, worker, [gradients[part] for part in parts])
        np.testing.assert_allclose(from_list, sent_by(code, 1, worker, gradients), atol=1e-12)


def test_one_loss_too_many_names_the_layer() -> None:
    code = HierarchicalCode((3, 4, 5), 24, 1, 1)
    vector = np.zeros(2)
    with pytest.raises(CodingError, match="edge 1: 2 of 4 workers came"):
        code.decode_edge(1, {0: vector, 1: vector})
    with pytest.raises(CodingError, match="master: 1 of 3 edges came"):
        code.decode_master({0: vector})
    assert code.master_weights([0], approximate=True).residual > 0.1
    assert code.decode_master({0: vector}, approximate=True).shape == (2,)


@pytest.mark.parametrize(
    ("system", "words"),
    [
        (((3, 3), 6, 2, 0), "edge_stragglers = 2"),
        (((3, 2), 6, 0, 2), "worker_stragglers = 2"),
        (((3, 2), 0, 0, 0), "parts = 0"),
        (((3, 0), 6, 0, 0), r"workers_per_edge\[1\] = 0"),
        (((), 6, 0, 0), "empty"),
    ],
)
def test_impossible_systems_are_refused(system: tuple[tuple[int, ...], int, int, int], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        HierarchicalCode(*system)


def test_bad_gradients_and_bad_indices_are_refused() -> None:
    code = HierarchicalCode((3, 4), 12, 1, 1)
    held = len(code.assignment(0, 0))
    with pytest.raises(CodingError, match=f"worker 0 of edge 0: {held + 1} gradients came, expected {held}"):
        code.encode(0, 0, np.zeros((held + 1, 5)))
    with pytest.raises(CodingError, match=r"worker 0 of edge 0: vector 1 has shape \(4,\)"):
        code.encode(0, 0, [np.zeros(4 if index == 1 else 5) for index in range(held)])
    with pytest.raises(CodingError, match="edge 0: vector 1"):
        code.decode_edge(0, {0: np.zeros(3), 1: np.zeros(4), 2: np.zeros(3)})
    with pytest.raises(ConfigError, match="edge = 2: expected 0 to 1"):
        code.assignment(2, 0)
    with pytest.raises(ConfigError, match="edge = -1"):
        code.edge_weights(-1, [0])
    with pytest.raises(ConfigError, match="edge 0 has workers 0 to 2"):
        code.coefficients(0, 3)


def test_a_payload_too_coarse_for_the_code_is_refused() -> None:
    code = HierarchicalCode((5, 5, 5), 15, 1, 3)
    code.check_dtype("float32")
    with pytest.raises(ConfigError, match="payload bfloat16"):
        code.check_dtype("bfloat16")
    code.check_dtype("bfloat16", allow=True)
    with pytest.raises(ValueError, match="read-only"):
        code.coefficients(0, 0)[0] = 1.0


def test_all_ranks_make_the_same_code() -> None:
    first, second = (HierarchicalCode((5, 6, 7), 20, 1, 2, seed=3) for _ in range(2))
    np.testing.assert_array_equal(first.master.matrix, second.master.matrix)
    np.testing.assert_array_equal(first.coefficients(2, 6), second.coefficients(2, 6))
