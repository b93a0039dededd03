"""The data sets that have a name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from os import PathLike
from pathlib import Path
from types import MappingProxyType

from consensus.data.cifar10 import load_cifar10
from consensus.data.dataset import Dataset
from consensus.data.digits import load_digits
from consensus.data.mnist import load_mnist
from consensus.errors import ConfigError
from consensus.names import lookup

DATASETS: Mapping[str, Callable[[Path | None], Dataset]] = MappingProxyType(
    {"digits": load_digits, "mnist": load_mnist, "cifar10": load_cifar10},
)
"""Loader of each data set by its name; a loader takes the data folder or None."""


def load(name: str, data_dir: str | PathLike[str] | None = None, limit: int | None = None) -> Dataset:
    """Read a data set.

    Parameters
    ----------
    name
        ``"digits"``, ``"mnist"`` or ``"cifar10"``.
    data_dir
        Where the files are; ``digits`` needs none.
    limit
        Keep the first ``limit`` training samples and the first ``limit`` test samples, for a quick trial.

    Returns
    -------
    Dataset

    Raises
    ------
    ConfigError
        If there is no such data set, or the limit is below 1.
    DataError
        If its files are missing or damaged.

    Examples
    --------
    >>> digits = load("digits")
    >>> len(digits.train), len(digits.test), digits.input_shape, digits.classes
    (1437, 360, (1, 8, 8), 10)
    """
    loader = lookup("data set", name, DATASETS)
    if limit is not None and limit < 1:
        raise ConfigError(f"limit is {limit} samples, expected at least 1")
    dataset = loader(Path(data_dir).expanduser() if data_dir is not None else None)
    if limit is None:
        return dataset
    return replace(dataset, train=dataset.train.first(limit), test=dataset.test.first(limit))
