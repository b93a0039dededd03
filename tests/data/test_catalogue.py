"""Loading by name, and scikit-learn's digits."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from consensus.data.catalogue import load
from consensus.errors import ConfigError, DataError


def test_digits_are_stratified_and_complete() -> None:
    digits = load("digits")
    train, test = np.bincount(digits.train.labels), np.bincount(digits.test.labels)
    assert (len(digits.train), len(digits.test)) == (1437, 360)
    np.testing.assert_allclose(test / (train + test), 360 / 1797, atol=0.005)
    assert digits.train.inputs.dtype == np.uint8
    # A sample that sat in both halves would leave another out, and the pixels' sum would differ.
    from sklearn.datasets import load_digits

    assert digits.train.inputs.sum(dtype=int) + digits.test.inputs.sum(dtype=int) == int(load_digits().data.sum())


def test_the_digits_split_never_changes() -> None:
    digits = load("digits")
    assert digits.test.labels[:20].tolist() == [2, 4, 2, 3, 6, 5, 0, 4, 1, 2, 7, 2, 6, 2, 1, 4, 1, 9, 1, 1]
    assert int(digits.test.inputs[:20].sum()) == 6147


def test_digits_are_normalised() -> None:
    inputs, _ = load("digits").train.batch(slice(None))
    assert abs(float(inputs.mean())) < 0.01
    assert abs(float(inputs.std()) - 1) < 0.01


def test_limit_keeps_the_first_samples() -> None:
    whole, part = load("digits"), load("digits", limit=100)
    assert (len(part.train), len(part.test)) == (100, 100)
    np.testing.assert_array_equal(part.train.labels, whole.train.labels[:100])


def test_limit_below_one() -> None:
    with pytest.raises(ConfigError, match="limit is 0 samples, expected at least 1"):
        load("digits", limit=0)


def test_unknown_name() -> None:
    with pytest.raises(ConfigError, match="unknown data set 'minst'; did you mean 'mnist'"):
        load("minst")


@pytest.mark.parametrize(("name", "official"), [("mnist", "MNIST database"), ("cifar10", "CIFAR-10 data set")])
def test_no_folder_named(name: str, official: str) -> None:
    with pytest.raises(DataError, match=f"no data folder given; pass --data-dir DIR .*{official}"):
        load(name)


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_folder_does_not_exist(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere does not exist; pass --data-dir"):
        load(name, tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_folder_is_a_file(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="file is not a folder"):
        load(name, tmp_path / "file")


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_folder_is_empty(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"not? .*found in .*; it is empty; expected the "):
        load(name, tmp_path)


def test_data_without_batches_needs_no_torch() -> None:
    modules = ["consensus.data.catalogue", "consensus.data.partition", "consensus.data.sampler"]
    script = f"import {', '.join(modules)}, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], timeout=60, cwd=Path(__file__).parents[2]).returncode == 0
