"""The 8 x 8 handwritten digits that come with scikit-learn: 1797 samples, no download."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from consensus.data.dataset import Dataset, Scaling, Split
from consensus.data.shuffle import Stream, permutation

_CLASSES = 10
_TEST_SIZE = 360
# The split is part of the data set's definition here: results of different runs are comparable only if all are tested on
# the same samples.
_SPLIT_SEED = 0
# Pixels run from 0 to 16; mean and deviation of the whole set, rounded.
_SCALING = Scaling((4.884,), (6.017,))


def _test_indices(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """A stratified choice: each class's share of the test set is its share of the whole, by largest remainders."""
    counts = np.bincount(labels, minlength=_CLASSES)
    quotas = counts * _TEST_SIZE / len(labels)
    sizes = np.floor(quotas).astype(int)
    sizes[np.argsort(sizes - quotas, kind="stable")[: _TEST_SIZE - sizes.sum()]] += 1
    chosen = []
    for label, size in enumerate(sizes):
        members = np.flatnonzero(labels == label)
        chosen.append(members[permutation(len(members), _SPLIT_SEED, Stream.SPLIT, label)[:size]])
    return np.sort(np.concatenate(chosen))


def load_digits(data_dir: Path | None = None) -> Dataset:
    """Scikit-learn's digits, split into 1437 training and 360 test samples, stratified by class.

    scikit-learn ships the 1797 samples of the UCI set's test part. The split is fixed and does not depend on a run's
    seed. Training samples keep their order.

    Parameters
    ----------
    data_dir
        Not used: the samples come with scikit-learn.

    Returns
    -------
    Dataset
        Inputs uint8 of shape (n, 1, 8, 8), values 0 to 16.
    """
    from sklearn import datasets  # costs over a second, and other data sets do without

    bunch = datasets.load_digits()
    images = bunch.images.astype(np.uint8)[:, np.newaxis]
    labels = bunch.target.astype(np.int64)
    test = _test_indices(labels)
    train = np.setdiff1d(np.arange(len(labels)), test)
    return Dataset("digits", Split(images[train], labels[train], _SCALING), Split(images[test], labels[test], _SCALING), _CLASSES)
