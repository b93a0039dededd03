"""One-layer codes: every pattern decodes, no wrong sum is ever silent."""

from __future__ import annotations

from itertools import chain, combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consensus.coding.arcs import even_counts
from consensus.coding.decoder import REMEMBERED
from consensus.coding.layer_code import LayerCode
from consensus.errors import CodingError, ConfigError


def subsets(nodes: int, least: int):  # type: ignore[no-untyped-def]
    return chain.from_iterable(combinations(range(nodes), size) for size in range(least, nodes + 1))


@pytest.mark.parametrize("kind", ["auto", "trig", "gaussian"])
@pytest.mark.parametrize(
    ("items", "nodes", "stragglers"),
    [
        (1, 1, 0), (7, 4, 0), (6, 4, 1), (5, 5, 1), (20, 5, 2), (5, 5, 3), (4, 5, 4), (7, 7, 3), (20, 7, 2), (2, 6, 1),
        (13, 8, 5), (30, 9, 5),
    ],
)
def test_every_pattern_decodes(kind: str, items: int, nodes: int, stragglers: int) -> None:
    code = LayerCode(even_counts(items, nodes, stragglers), stragglers, kind=kind)
    for alive in subsets(nodes, nodes - stragglers):
        assert code.sufficient(alive)
        combination = code.combine(alive)
        weights = np.zeros(nodes)
        weights[list(combination.nodes)] = combination.weights
        tolerance = 1e-12 * max(1.0, code.kappa / 100)
        assert np.abs(weights @ code.matrix - 1).max() < tolerance
        assert combination.residual < tolerance


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_enough_is_told_from_too_few(data: st.DataObject) -> None:
    nodes = data.draw(st.integers(1, 9))
    stragglers = data.draw(st.integers(0, nodes - 1))
    items = data.draw(st.integers(1, 30))
    code = LayerCode(even_counts(items, nodes, stragglers), stragglers)
    alive = data.draw(st.sets(st.integers(0, nodes - 1)))
    came = [node for node in sorted(alive) if node in code.participants]
    rank = np.linalg.matrix_rank(code.matrix[came]) if came else 0
    reachable = came and np.linalg.matrix_rank(np.vstack([code.matrix[came], np.ones(items)])) == rank
    assert code.sufficient(alive) == bool(reachable)
    if len(came) >= code.needed:
        assert code.sufficient(alive)


@pytest.mark.parametrize(("nodes", "stragglers"), [(4, 1), (9, 2), (6, 5), (20, 3)])
def test_repetition_amplifies_nothing(nodes: int, stragglers: int) -> None:
    code = LayerCode(even_counts(41, nodes, stragglers), stragglers)
    assert set(code.kinds) == {"ones"}
    assert code.kappa == pytest.approx(1)


@pytest.mark.parametrize(
    ("nodes", "stragglers", "kind"), [(7, 2, "auto"), (5, 3, "trig"), (6, 1, "gaussian"), (4, 3, "gaussian")]
)
def test_amplification_is_the_maximum_over_all_patterns(nodes: int, stragglers: int, kind: str) -> None:
    code = LayerCode(even_counts(14, nodes, stragglers), stragglers, kind=kind)
    factors = np.random.default_rng(0).uniform(1, 5, code.matrix.shape)
    plain, weighted = np.zeros(14), np.zeros(14)
    for alive in subsets(nodes, nodes - stragglers):
        combination = code.combine(alive)
        came = list(combination.nodes)
        sizes = np.abs(combination.weights)[:, np.newaxis] * np.abs(code.matrix[came])
        plain = np.maximum(plain, sizes.sum(axis=0))
        weighted = np.maximum(weighted, (sizes * factors[came]).sum(axis=0))
    assert code.kappa_exact
    assert code.kappa == pytest.approx(plain.max())
    np.testing.assert_allclose(code.worst(), plain)
    np.testing.assert_allclose(code.worst(factors), weighted)


def test_trigonometric_coefficients_are_better_than_gaussian_ones() -> None:
    counts = even_counts(13, 13, 6)
    trig, gaussian = (LayerCode(counts, 6, kind=kind) for kind in ("trig", "gaussian"))
    assert not trig.kappa_exact
    assert trig.kappa < gaussian.kappa


def test_odd_nodes_and_odd_stragglers_have_a_code() -> None:
    assert LayerCode(even_counts(3, 3, 1), 1).kappa < 4
    assert LayerCode(even_counts(5, 5, 3), 3).kappa < 10


def test_consecutive_and_random_losses_of_large_layers_decode() -> None:
    code = LayerCode(even_counts(60, 20, 5), 5)
    random = np.random.default_rng(1)
    silent = [{(start + step) % 20 for step in range(5)} for start in range(20)]
    silent += [set(random.choice(20, 5, replace=False).tolist()) for _ in range(200)]
    for lost in silent:
        assert code.combine(set(range(20)) - lost).residual < 1e-12


def test_one_loss_too_many_names_the_layer() -> None:
    code = LayerCode(even_counts(4, 4, 1), 1, name="edge 2", child="worker")
    with pytest.raises(CodingError, match=r"edge 2: 2 of 4 workers came \(0, 1\), 3 are needed, as 1 may be silent"):
        code.combine([0, 1])
    with pytest.raises(CodingError, match="edge 2: 0 of 4 workers came, 3 are needed"):
        code.combine([], approximate=True)


def test_an_approximation_is_the_least_squares_one_and_says_so() -> None:
    code = LayerCode(even_counts(10, 5, 2), 2, kind="trig")
    combination = code.combine([1, 4], approximate=True)
    rows = code.matrix[[1, 4]]
    expected = np.linalg.lstsq(rows.T, np.ones(10), rcond=None)[0]
    np.testing.assert_allclose(combination.weights, expected, atol=1e-12)
    assert combination.residual == pytest.approx(np.abs(expected @ rows - 1).max())
    assert combination.residual > 0.01


def test_fewer_than_needed_are_enough_where_each_part_came() -> None:
    code = LayerCode([2, 2, 2, 2], stragglers=1)
    assert code.needed == 3
    assert code.sufficient([0, 2])
    assert not code.sufficient([0, 1])


def test_nodes_that_hold_nothing_take_no_part() -> None:
    code = LayerCode([0, 1, 0, 1, 0], stragglers=1)
    assert (code.participants, code.needed, code.items) == ((1, 3), 1, 1)
    assert code.combine([0, 2, 3]).nodes == (3,)
    with pytest.raises(CodingError, match="0 of 2 nodes came"):
        code.combine([0, 2, 4])


def test_a_layer_that_holds_nothing_needs_nobody() -> None:
    code = LayerCode([0, 0], stragglers=1, name="edge 3")
    assert (code.needed, code.items, code.sufficient([])) == (0, 0, True)
    assert code.combine([]).nodes == ()


def test_weights_are_remembered_up_to_a_bound() -> None:
    code = LayerCode(even_counts(12, 12, 5), 5)
    first = code.combine(range(12)).weights
    assert code.combine(range(12)).weights is first
    assert not first.flags.writeable
    for alive in list(subsets(12, 7))[: REMEMBERED + 1]:
        code.combine(alive)
    again = code.combine(range(12)).weights
    assert again is not first
    np.testing.assert_array_equal(again, first)


@pytest.mark.parametrize("alive", [[0, 1, 7], [-1, 0, 1]])
def test_a_stranger_is_refused(alive: list[int]) -> None:
    with pytest.raises(CodingError, match="its nodes are 0 to 3"):
        LayerCode([2, 2, 2, 2], 1).combine(alive)


@pytest.mark.parametrize(
    ("counts", "stragglers", "kind", "words"),
    [
        ([2, 2, 1], 1, "auto", "multiple of 2"),
        ([4, 1, 1], 1, "auto", "no count above 3"),
        ([1, -1], 0, "auto", r"counts\[1\] = -1"),
        ([1, 1], -1, "auto", "stragglers = -1"),
        ([2, 2, 2], 1, "ones", "do not fall into 2 sets"),
        ([2, 2, 2], 1, "trigg", "did you mean 'trig'"),
        ([2, 2, 2], 1, "automatic", "did you mean 'auto'|known: auto"),
    ],
)
def test_impossible_codes_are_refused(counts: list[int], stragglers: int, kind: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        LayerCode(counts, stragglers, kind=kind)
