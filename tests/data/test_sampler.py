"""The walk through a share: whole epochs, fresh orders, exact resumption."""

from __future__ import annotations

import json
from itertools import chain, islice
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from consensus.data.sampler import Sampler
from consensus.errors import ConfigError, DataError

SHARE = np.array([3, 1, 4, 15, 9, 2, 6])


def drawn(sampler: Sampler, batches: int) -> list[list[int]]:
    return [batch.tolist() for batch in islice(sampler, batches)]


def test_an_epoch_is_the_share_in_some_order() -> None:
    batches = drawn(Sampler(SHARE, 3, seed=0, rank=0), 6)
    assert [len(batch) for batch in batches] == [3, 3, 1, 3, 3, 1]
    first, second = [*chain(*batches[:3])], [*chain(*batches[3:])]
    assert sorted(first) == sorted(second) == sorted(SHARE.tolist())
    assert first != second


def test_batches_are_int64() -> None:
    assert next(Sampler(SHARE.astype(np.int32), 3, seed=0, rank=0)).dtype == np.int64


def test_drop_last() -> None:
    sampler = Sampler(SHARE, 3, seed=0, rank=0, drop_last=True)
    assert [len(batch) for batch in drawn(sampler, 5)] == [3] * 5
    assert (sampler.epoch, sampler.position, sampler.samples_drawn) == (2, 3, 15)


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("batch_size", [7, 8, 100])
def test_a_large_batch_is_the_whole_share(batch_size: int, drop_last: bool) -> None:
    batches = drawn(Sampler(SHARE, batch_size, seed=0, rank=0, drop_last=drop_last), 3)
    assert [sorted(batch) for batch in batches] == [sorted(SHARE.tolist())] * 3


@pytest.mark.parametrize("other", [{"rank": 1}, {"seed": 1}])
def test_ranks_and_seeds_shuffle_independently(other: dict[str, int]) -> None:
    reference = {"seed": 0, "rank": 0}
    assert drawn(Sampler(np.arange(50), 50, **reference), 1) != drawn(Sampler(np.arange(50), 50, **{**reference, **other}), 1)


def test_seed_and_rank_are_not_interchangeable() -> None:
    assert drawn(Sampler(np.arange(50), 50, seed=1, rank=2), 1) != drawn(Sampler(np.arange(50), 50, seed=2, rank=1), 1)


def test_the_order_never_changes() -> None:
    """A run saved by one release, on one machine, resumes on another."""
    assert next(Sampler(np.arange(10), 10, seed=7, rank=3)).tolist() == [5, 0, 2, 1, 7, 3, 6, 4, 8, 9]


@given(st.integers(1, 30), st.integers(1, 12), st.booleans(), st.integers(0, 40))
def test_resuming_anywhere_goes_on_as_if_never_stopped(size: int, batch_size: int, drop_last: bool, before: int) -> None:
    def fresh() -> Sampler:
        return Sampler(np.arange(size) * 10, batch_size, seed=5, rank=1, drop_last=drop_last)

    original = fresh()
    count = sum(len(batch) for batch in drawn(original, before))
    assert original.samples_drawn == count
    resumed = fresh()
    drawn(resumed, 3)
    resumed.load_state_dict(json.loads(json.dumps(original.state_dict())))
    assert resumed.samples_drawn == count
    assert drawn(resumed, 20) == drawn(original, 20)
    assert resumed.state_dict() == original.state_dict()


def test_the_state_is_integers() -> None:
    assert {type(value) for value in Sampler(SHARE, 3, seed=0, rank=0).state_dict().values()} == {int}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"seed": 9}, "saved with seed = 9, but this one has 0"),
        ({"rank": 9}, "saved with rank = 9"),
        ({"batch_size": 9}, "saved with batch_size = 9"),
        ({"share_size": 9}, "saved with share_size = 9, but this one has 7"),
        ({"epoch": -1}, "at epoch -1"),
        ({"position": 8}, "position 8; expected epoch >= 0 and position 0 to 7"),
    ],
)
def test_a_state_of_something_else(change: dict[str, int], words: str) -> None:
    sampler = Sampler(SHARE, 3, seed=0, rank=0)
    with pytest.raises(ConfigError, match=words):
        sampler.load_state_dict({**sampler.state_dict(), **change})


def test_a_state_that_lacks_something() -> None:
    with pytest.raises(ConfigError, match="rank 0 lacks .*position"):
        Sampler(SHARE, 3, seed=0, rank=0).load_state_dict({"epoch": 1})


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"batch_size": 0}, ConfigError, "batch size is 0"),
        ({"indices": SHARE[:0]}, DataError, "rank 2 has no samples"),
        ({"seed": -1}, ConfigError, "seed is -1"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        Sampler(**{"indices": SHARE, "batch_size": 3, "seed": 0, "rank": 2, **arguments})
