"""MNIST's files: what is read, where they are found, and what is said about damaged ones."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from consensus.data.catalogue import load
from consensus.data.idx import read_idx
from consensus.errors import DataError

TRAIN_IMAGES, TRAIN_LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


def idx(array: NDArray[np.uint8]) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def write(folder: Path, suffix: str = "", dot: bool = False, train: int = 12, test: int = 5) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for prefix, n in (("train", train), ("t10k", test)):
        images = (np.arange(n * 784) % 251).astype(np.uint8).reshape(n, 28, 28)
        for name, array in (
            (f"{prefix}-images-idx3-ubyte", images),
            (f"{prefix}-labels-idx1-ubyte", np.arange(n, dtype=np.uint8) % 10),
        ):
            content = idx(array)
            path = folder / (name.replace("-idx", ".idx") if dot else name)
            path.with_name(path.name + suffix).write_bytes(gzip.compress(content) if suffix else content)
    return folder


@pytest.mark.parametrize("below", [".", "mnist", "MNIST/raw"])
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_layouts(tmp_path: Path, below: str, suffix: str) -> None:
    write(tmp_path / below, suffix)
    mnist = load("mnist", tmp_path)
    assert mnist.train.inputs.shape == (12, 1, 28, 28)
    assert mnist.test.labels.tolist() == [0, 1, 2, 3, 4]
    assert mnist.train.inputs[0, 0, 0, :3].tolist() == [0, 1, 2]


def test_names_with_a_dot(tmp_path: Path) -> None:
    assert len(load("mnist", write(tmp_path, dot=True)).train) == 12


def test_compression_is_judged_by_content(tmp_path: Path) -> None:
    path = tmp_path / "labels.gz"
    path.write_bytes(idx(np.arange(3, dtype=np.uint8)))
    assert read_idx(path, 1).tolist() == [0, 1, 2]


def test_real_files(mnist_dir: Path) -> None:
    mnist = load("mnist", mnist_dir)
    assert (len(mnist.train), len(mnist.test), mnist.input_shape, mnist.classes) == (60_000, 10_000, (1, 28, 28), 10)
    assert mnist.train.labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert np.bincount(mnist.test.labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    inputs, _ = mnist.train.batch(slice(0, 5000))
    assert abs(float(inputs.mean())) < 0.02
    assert abs(float(inputs.std()) - 1) < 0.02


def test_a_missing_file_is_named_with_what_is_there(tmp_path: Path) -> None:
    (write(tmp_path) / TRAIN_LABELS).unlink()
    with pytest.raises(DataError, match=rf"{TRAIN_LABELS} \(or {TRAIN_LABELS}.gz\) not found .* it holds t10k-images"):
        load("mnist", tmp_path)


def damaged(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "damaged"
    path.write_bytes(content)
    return path


WHOLE = idx(np.arange(12, dtype=np.uint8).reshape(3, 2, 2))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (WHOLE[:-1], r"truncated: the header states 3 x 2 x 2 = 12 bytes, found 11"),
        (WHOLE + b"x", r"too long: the header states 3 x 2 x 2 = 12 bytes, found 13"),
        (WHOLE[:10], r"truncated in the header, 10 bytes; expected at least 16"),
        (b"", r"truncated in the header, 0 bytes"),
        (
            b"<html>Not found</html>",
            r"magic number 0x3c68746d, not an IDX file of bytes; expected 0x00000803 \(images, 3 dimensions\)",
        ),
        (
            idx(np.zeros(3, dtype=np.uint8)),
            r"magic number 0x00000801, an IDX file of labels: are the files swapped\?; expected 0x00000803",
        ),
        (idx(np.zeros((0, 2, 2), dtype=np.uint8)), r"empty: the header states dimensions 0 x 2 x 2"),
        (gzip.compress(WHOLE)[:-9], r"damaged or truncated gzip file of \d+ bytes"),
        (gzip.compress(WHOLE)[:5], r"damaged or truncated gzip file of 5 bytes"),
        (gzip.compress(WHOLE)[:-8] + bytes(8), r"damaged or truncated gzip file .*CRC"),
        (gzip.compress(WHOLE[:-3]), r"truncated: the header states 3 x 2 x 2 = 12 bytes, found 9"),
        (struct.pack(">4I", 0x803, 2**32 - 1, 2**32 - 1, 2**32 - 1), r"truncated: .* found 0"),
    ],
)
def test_damaged_images(tmp_path: Path, content: bytes, words: str) -> None:
    path = damaged(tmp_path, content)
    with pytest.raises(DataError, match=words) as caught:
        read_idx(path, 3)
    assert str(caught.value).startswith(str(path))


def test_a_folder_in_place_of_a_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_idx(tmp_path, 3)


def test_counts_differ(tmp_path: Path) -> None:
    (write(tmp_path) / TRAIN_LABELS).write_bytes(idx(np.zeros(11, dtype=np.uint8)))
    with pytest.raises(DataError, match=f"{TRAIN_IMAGES} holds 12 images but .*{TRAIN_LABELS} 11 labels"):
        load("mnist", tmp_path)


def test_label_out_of_range(tmp_path: Path) -> None:
    (write(tmp_path) / TRAIN_LABELS).write_bytes(idx(np.full(12, 10, dtype=np.uint8)))
    with pytest.raises(DataError, match=f"{TRAIN_LABELS}: label 10 at position 0, expected 0 to 9"):
        load("mnist", tmp_path)


def test_images_of_another_size(tmp_path: Path) -> None:
    (write(tmp_path) / TRAIN_IMAGES).write_bytes(idx(np.zeros((12, 20, 28), dtype=np.uint8)))
    with pytest.raises(DataError, match="images of 20 x 28 pixels, expected 28 x 28"):
        load("mnist", tmp_path)
