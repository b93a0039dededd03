"""CIFAR-10's two layouts, written small."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from consensus.data.catalogue import load
from consensus.errors import DataError

ROWS = 4
STEMS = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]


def samples(number: int) -> tuple[NDArray[np.uint8], list[int]]:
    generator = np.random.default_rng(number)
    return generator.integers(0, 256, (ROWS, 3072), dtype=np.uint8), generator.integers(0, 10, ROWS).tolist()


def write_binary(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for number, stem in enumerate(STEMS):
        images, labels = samples(number)
        np.column_stack([labels, images]).astype(np.uint8).tofile(folder / f"{stem}.bin")
    return folder


def write_python(folder: Path, protocol: int = 2) -> Path:
    folder.mkdir(parents=True)
    for number, stem in enumerate(STEMS):
        images, labels = samples(number)
        content = {b"batch_label": b"batch", b"labels": labels, b"data": images, b"filenames": [b"a.png"] * ROWS}
        (folder / stem).write_bytes(pickle.dumps(content, protocol))
    return folder


def assert_whole(data_dir: Path) -> None:
    cifar = load("cifar10", data_dir)
    assert (len(cifar.train), len(cifar.test), cifar.input_shape, cifar.classes) == (5 * ROWS, ROWS, (3, 32, 32), 10)
    images, labels = zip(*map(samples, range(6)), strict=True)
    np.testing.assert_array_equal(cifar.train.inputs, np.concatenate(images[:5]).reshape(-1, 3, 32, 32))
    assert cifar.train.labels.tolist() == [*chain(*labels[:5])]
    np.testing.assert_array_equal(cifar.test.inputs, images[5].reshape(-1, 3, 32, 32))
    assert cifar.test.labels.tolist() == labels[5]


@pytest.mark.parametrize("below", ["cifar-10-batches-bin", "cifar10/cifar-10-batches-bin", "cifar10", "any"])
def test_binary(tmp_path: Path, below: str) -> None:
    folder = write_binary(tmp_path / below)
    assert_whole(folder if below == "any" else tmp_path)


@pytest.mark.parametrize("below", ["cifar-10-batches-py", "cifar10/cifar-10-batches-py", "any"])
def test_python(tmp_path: Path, below: str) -> None:
    folder = write_python(tmp_path / below)
    assert_whole(folder if below == "any" else tmp_path)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_python_in_every_pickle_protocol(tmp_path: Path, protocol: int) -> None:
    write_python(tmp_path / "cifar-10-batches-py", protocol)
    assert_whole(tmp_path)


def test_numpy_of_old_wrote_other_module_names(tmp_path: Path) -> None:
    folder = write_python(tmp_path / "cifar-10-batches-py")
    for stem in STEMS:
        content = (folder / stem).read_bytes()
        assert b"numpy._core.multiarray" in content
        (folder / stem).write_bytes(content.replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    assert_whole(tmp_path)


def test_binary_is_preferred(tmp_path: Path) -> None:
    write_python(tmp_path / "cifar-10-batches-py")
    (tmp_path / "cifar-10-batches-py" / "data_batch_1").write_bytes(b"never opened")
    write_binary(tmp_path / "cifar-10-batches-bin")
    assert_whole(tmp_path)


@pytest.mark.parametrize(("write", "suffix"), [(write_binary, ".bin"), (write_python, "")])
def test_a_missing_batch_is_named(tmp_path: Path, write: Callable[[Path], Path], suffix: str) -> None:
    (write(tmp_path / "batches") / f"data_batch_3{suffix}").unlink()
    with pytest.raises(DataError, match=rf"data_batch_3{suffix} is missing; it holds data_batch_1{suffix}"):
        load("cifar10", tmp_path / "batches")


@pytest.mark.parametrize(("content", "size"), [(b"", 0), (bytes(3072), 3072), (bytes(3073 + 5), 3078)])
def test_truncated_rows(tmp_path: Path, content: bytes, size: int) -> None:
    (write_binary(tmp_path / "cifar-10-batches-bin") / "test_batch.bin").write_bytes(content)
    with pytest.raises(DataError, match=f"test_batch.bin: {size} bytes, expected a positive multiple of 3073"):
        load("cifar10", tmp_path)


def test_binary_label_out_of_range(tmp_path: Path) -> None:
    content = bytearray(2 * 3073)
    content[3073] = 10
    (write_binary(tmp_path / "cifar-10-batches-bin") / "data_batch_2.bin").write_bytes(content)
    with pytest.raises(DataError, match="data_batch_2.bin: label 10 at position 1, expected 0 to 9"):
        load("cifar10", tmp_path)


GOOD = {b"data": np.zeros((2, 3072), dtype=np.uint8), b"labels": [0, 1]}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([1, 2], "a pickled list, expected a dict"),
        ({**GOOD, b"data": [0]}, "'data' is a list"),
        ({b"labels": [0, 1]}, "'data' is a NoneType"),
        ({**GOOD, b"data": np.zeros((2, 3071), dtype=np.uint8)}, r"'data' is of shape \(2, 3071\)"),
        ({**GOOD, b"labels": [0, 1, 2]}, "2 images but 3 labels"),
        ({**GOOD, b"labels": [0, -1]}, "label -1 at position 1, expected 0 to 9"),
        ({**GOOD, b"labels": [0, 2**70]}, "position 1, expected 0 to 9"),
        ({**GOOD, b"labels": [0, "1"]}, "'labels' is not a list of integers"),
        ({**GOOD, b"data": np.zeros((2, 3072))}, "an array of dtype b?'f8'"),
        ({**GOOD, b"data": np.array([[os.getcwd]], dtype=object)}, "an array of dtype b?'O8'|refused"),
    ],
)
def test_wrong_content(tmp_path: Path, content: object, words: str) -> None:
    (write_python(tmp_path / "cifar-10-batches-py") / "data_batch_1").write_bytes(pickle.dumps(content, protocol=2))
    with pytest.raises(DataError, match=f"data_batch_1: .*({words})"):
        load("cifar10", tmp_path)


@pytest.mark.parametrize("keep", [0, 1, 100, -1])
def test_truncated_pickle(tmp_path: Path, keep: int) -> None:
    path = write_python(tmp_path / "cifar-10-batches-py") / "test_batch"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match="test_batch: damaged, truncated or not a pickle"):
        load("cifar10", tmp_path)
