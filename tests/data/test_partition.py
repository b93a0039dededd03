"""Every sample to exactly one rank, whatever the scheme."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from consensus.data.partition import ByClass, Dirichlet, Iid, Scheme, partition
from consensus.errors import ConfigError, DataError

BALANCED = np.arange(1000) % 10


@st.composite
def cases(draw: st.DrawFn) -> tuple[NDArray[np.int64], int, Scheme, int]:
    labels = np.array(draw(st.lists(st.integers(0, 5), min_size=1, max_size=120)))
    ranks = draw(st.integers(1, 12))
    scheme = draw(
        st.one_of(
            st.just(Iid()),
            st.builds(ByClass, st.one_of(st.none(), st.integers(1, 6))),
            st.builds(Dirichlet, st.floats(1e-12, 1e6)),
        )
    )
    return labels, ranks, scheme, draw(st.integers(0, 2**70))


@given(cases())
def test_shares_are_a_disjoint_cover_or_it_is_said_why_not(case: tuple[NDArray[np.int64], int, Scheme, int]) -> None:
    labels, ranks, scheme, seed = case
    try:
        shares = partition(labels, ranks, scheme, seed)
    except ConfigError as error:
        assert "rank" in str(error) or "classes" in str(error)  # noqa: PT017 - either outcome is right
        return
    assert len(shares) == ranks
    assert all(share.dtype == np.int64 and len(share) and (np.diff(share) > 0).all() for share in shares)
    assert sorted(np.concatenate(shares).tolist()) == list(range(len(labels)))
    again = partition(labels, ranks, scheme, seed)
    assert all(np.array_equal(one, other) for one, other in zip(shares, again, strict=True))


@given(st.integers(1, 200), st.integers(1, 20), st.integers(0, 9))
def test_iid_and_sorted_sizes_differ_by_one_at_most(n: int, ranks: int, seed: int) -> None:
    labels = np.arange(n) % 7
    for scheme in (Iid(), ByClass()):
        if ranks <= n:
            sizes = [len(share) for share in partition(labels, ranks, scheme, seed)]
            assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("scheme", [Iid(), ByClass(), ByClass(2), Dirichlet(1.0)], ids=str)
def test_seeds_matter(scheme: Scheme) -> None:
    one, other = partition(BALANCED, 8, scheme, seed=1), partition(BALANCED, 8, scheme, seed=2)
    assert any(not np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_iid_shares_look_alike() -> None:
    for share in partition(BALANCED, 4, Iid(), seed=0):
        assert np.unique(BALANCED[share]).size == 10


@pytest.mark.parametrize(("ranks", "k"), [(5, 2), (8, 2), (8, 3), (10, 1), (3, 4), (2, 10)])
def test_by_class_gives_exactly_k_classes(ranks: int, k: int) -> None:
    shares = partition(BALANCED, ranks, ByClass(k), seed=3)
    assert [np.unique(BALANCED[share]).size for share in shares] == [k] * ranks


def test_by_class_without_k_sorts() -> None:
    shares = partition(BALANCED, 5, ByClass(), seed=0)
    assert [np.unique(BALANCED[share]).tolist() for share in shares] == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]]


def concentration(alpha: float) -> float:
    """Mean over ranks of the largest class's share in a rank, 0.1 when all are even."""
    shares = partition(BALANCED, 8, Dirichlet(alpha), seed=0)
    return float(np.mean([np.bincount(BALANCED[share]).max() / len(share) for share in shares]))


def test_small_alpha_is_uneven_and_large_alpha_even() -> None:
    assert concentration(0.1) > 0.5 > concentration(1.0) > concentration(1000.0)
    assert concentration(1000.0) < 0.15


def test_dirichlet_redraws_until_all_have_data() -> None:
    # One draw leaves one of the eight ranks empty more often than not.
    assert all(min(map(len, partition(BALANCED, 8, Dirichlet(0.05), seed))) > 0 for seed in range(10))


def test_a_rank_without_data_is_named() -> None:
    with pytest.raises(
        DataError, match=r"Dirichlet\(alpha=0.0001\) leaves ranks? .*sizes by rank: .*; take a larger alpha or fewer ranks"
    ):
        partition(np.zeros(100, dtype=int), 8, Dirichlet(0.0001), seed=0)


def test_by_class_with_too_few_samples_of_a_class() -> None:
    with pytest.raises(DataError, match=r"ByClass\(classes_per_rank=1\) leaves rank \d without samples"):
        partition(np.array([0, 0, 0, 0, 0, 1]), 4, ByClass(1), seed=0)


def test_more_ranks_than_samples() -> None:
    with pytest.raises(DataError, match="3 samples cannot be dealt to 4 ranks: rank 3 and above get none"):
        partition(np.zeros(3, dtype=int), 4, Iid(), seed=0)


@pytest.mark.parametrize(
    ("ranks", "k", "words"),
    [
        (
            2,
            3,
            "cannot hold all 10 classes; expected classes_per_rank of at least 5, or at least 4 ranks",
        ),
        (8, 11, "classes_per_rank is 11, but the data has 10 classes"),
    ],
)
def test_by_class_that_does_not_fit(ranks: int, k: int, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        partition(BALANCED, ranks, ByClass(k), seed=0)


@pytest.mark.parametrize("alpha", [0.0, -1.0, float("nan"), float("inf")])
def test_alpha_out_of_range(alpha: float) -> None:
    with pytest.raises(ConfigError, match="alpha is .*, expected a finite number above 0"):
        Dirichlet(alpha)


def test_other_numbers_out_of_range() -> None:
    with pytest.raises(ConfigError, match="classes_per_rank is 0"):
        ByClass(0)
    with pytest.raises(ConfigError, match="over 0 ranks"):
        partition(BALANCED, 0, Iid(), seed=0)
    with pytest.raises(ConfigError, match="seed is -1"):
        partition(BALANCED, 2, Iid(), seed=-1)
