"""Scaling, splits and the data sets as values."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from consensus.data.dataset import Dataset, Scaling, Split
from consensus.errors import DataError


def split(n: int = 4, channels: int = 2, scaling: Scaling | None = None) -> Split:
    inputs = np.arange(n * channels * 9, dtype=np.uint8).reshape(n, channels, 3, 3)
    return Split(inputs, np.arange(n, dtype=np.int64), scaling or Scaling())


def test_scaling_is_per_channel() -> None:
    chosen = split(scaling=Scaling((1.0, 2.0), (10.0, 20.0)))
    inputs, _ = chosen.batch(np.array([3]))
    expected = (chosen.inputs[3].astype(float) - np.array([1, 2]).reshape(2, 1, 1)) / np.array([10, 20]).reshape(2, 1, 1)
    np.testing.assert_allclose(inputs[0].numpy(), expected, rtol=1e-6)


def test_a_batch_by_indices_keeps_their_order() -> None:
    chosen = split()
    inputs, labels = chosen.batch(np.array([2, 0, 2]))
    assert inputs.dtype == torch.float32
    assert labels.dtype == torch.int64
    assert labels.tolist() == [2, 0, 2]
    np.testing.assert_array_equal(inputs.numpy(), chosen.inputs[[2, 0, 2]].astype(np.float32))


def test_a_batch_by_slice_does_not_share_memory() -> None:
    chosen = Split(np.ones((3, 2), dtype=np.float32), np.zeros(3, dtype=np.int64))
    inputs, labels = chosen.batch(slice(1, 3))
    inputs += 1
    labels += 1
    assert chosen.inputs.max() == 1
    assert chosen.labels.max() == 0


def test_read_only_images_make_writable_batches() -> None:
    images = np.frombuffer(bytes(8), dtype=np.uint8).reshape(2, 1, 2, 2)
    inputs, _ = Split(images, np.zeros(2, dtype=np.int64)).batch(slice(None))
    inputs += 1
    assert images.max() == 0


def test_first_frees_the_rest() -> None:
    chosen = split(4)
    assert len(chosen.first(2)) == 2
    assert chosen.first(2).inputs.base is None
    assert chosen.first(9) is chosen


@pytest.mark.parametrize(
    ("inputs", "labels"),
    [((3, 2), (4,)), ((3,), (3,)), ((3, 2), (3, 1))],
    ids=["counts differ", "no feature axis", "labels with two axes"],
)
def test_ill_shaped_split(inputs: tuple[int, ...], labels: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match=r"expected \(n, ...\) and \(n,\)"):
        Split(np.zeros(inputs), np.zeros(labels, dtype=np.int64))


def test_empty_split() -> None:
    with pytest.raises(DataError, match="without samples"):
        Split(np.zeros((0, 2)), np.zeros(0, dtype=np.int64))


@pytest.mark.parametrize(
    ("mean", "std", "words"), [((1.0,), (1.0, 2.0), "1 means and 2"), ((), (), "0 means"), ((0.0,), (0.0,), "above 0")]
)
def test_bad_scaling(mean: tuple[float, ...], std: tuple[float, ...], words: str) -> None:
    with pytest.raises(DataError, match=words):
        Scaling(mean, std)


def test_dataset_needs_one_shape() -> None:
    with pytest.raises(DataError, match=r"shape \(2, 3, 3\), test samples of \(1, 3, 3\)"):
        Dataset("mine", split(channels=2), split(channels=1), classes=4)


def test_dataset_needs_labels_in_range() -> None:
    with pytest.raises(DataError, match="test labels run from 0 to 3, expected 0 to 1"):
        Dataset("mine", split(2), split(4), classes=2)


def test_dataset_states_its_input_shape() -> None:
    assert Dataset("mine", split(), split(), classes=4).input_shape == (2, 3, 3)
