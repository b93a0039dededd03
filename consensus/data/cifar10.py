"""CIFAR-10 from either layout it is published in: binary rows, or pickled batches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from consensus.data.dataset import Dataset, Scaling, Split
from consensus.data.files import listing, read_bytes, require_folder
from consensus.data.restricted_pickle import read_pickle
from consensus.errors import DataError

_CLASSES = 10
_SHAPE = (3, 32, 32)
_PIXELS = 3 * 32 * 32
_TRAIN = tuple(f"data_batch_{number}" for number in range(1, 6))
_TEST = "test_batch"
_CONTENTS = (
    "the unpacked CIFAR-10 data set, binary version (cifar-10-batches-bin with data_batch_1.bin to data_batch_5.bin and "
    "test_batch.bin) or python version (cifar-10-batches-py with data_batch_1 to data_batch_5 and test_batch)"
)
# Per-channel mean and deviation of the training pixels, as fractions of full scale.
_SCALING = Scaling(
    tuple(255 * mean for mean in (0.4914, 0.4822, 0.4465)),
    tuple(255 * std for std in (0.2470, 0.2435, 0.2616)),
)


_Batch: TypeAlias = tuple[NDArray[np.uint8], list[int]]
"""Images of shape (n, 3072) and their labels."""


def _read_binary(path: Path) -> _Batch:
    row = 1 + _PIXELS
    content = np.frombuffer(read_bytes(path), dtype=np.uint8)
    if not len(content) or len(content) % row:
        raise DataError(
            f"{path}: {len(content)} bytes, expected a positive multiple of {row} (label and {_PIXELS} pixels); obtain it anew"
        )
    rows = content.reshape(-1, row)
    return rows[:, 1:], rows[:, 0].tolist()


def _text(key: object) -> object:
    return key.decode("latin1") if isinstance(key, bytes) else key


def _read_python(path: Path) -> _Batch:
    content = read_pickle(path)
    if not isinstance(content, dict):
        raise DataError(f"{path}: a pickled {type(content).__name__}, expected a dict with 'data' and 'labels'")
    batch: dict[object, Any] = {_text(key): value for key, value in content.items()}
    data, labels = batch.get("data"), batch.get("labels")
    if not isinstance(data, np.ndarray) or data.ndim != 2 or data.shape[1] != _PIXELS or not len(data):
        seen = f"of shape {data.shape}" if isinstance(data, np.ndarray) else f"a {type(data).__name__}"
        raise DataError(f"{path}: 'data' is {seen}, expected a uint8 array of shape (n, {_PIXELS})")
    if not isinstance(labels, list) or not all(type(label) is int for label in labels):
        raise DataError(f"{path}: 'labels' is not a list of integers")
    if len(labels) != len(data):
        raise DataError(f"{path}: {len(data)} images but {len(labels)} labels; expected as many of each")
    return data, labels


@dataclass(frozen=True)
class _Layout:
    folder: str
    suffix: str
    read: Callable[[Path], _Batch]


# Binary first: it needs no pickle.
_LAYOUTS = (_Layout("cifar-10-batches-bin", ".bin", _read_binary), _Layout("cifar-10-batches-py", "", _read_python))


def _locate(data_dir: Path) -> tuple[Path, _Layout]:
    """The folder that holds the batches, and its layout. One batch is enough, so that a missing one is then named."""
    for base in (data_dir, data_dir / "cifar10"):
        for layout in _LAYOUTS:
            for folder in (base / layout.folder, base):
                if any((folder / f"{stem}{layout.suffix}").is_file() for stem in (*_TRAIN, _TEST)):
                    return folder, layout
    raise DataError(f"no CIFAR-10 batches found in {data_dir}, nor in its cifar10; {listing(data_dir)}; expected {_CONTENTS}")


def _load_split(folder: Path, layout: _Layout, stems: tuple[str, ...]) -> Split:
    images: list[NDArray[np.uint8]] = []
    labels: list[int] = []
    for stem in stems:
        path = folder / f"{stem}{layout.suffix}"
        if not path.is_file():
            raise DataError(f"{path} is missing; {listing(folder)}; expected {_CONTENTS}")
        batch_images, batch_labels = layout.read(path)
        wrong = next((place for place, label in enumerate(batch_labels) if not 0 <= label < _CLASSES), None)
        if wrong is not None:
            raise DataError(f"{path}: label {batch_labels[wrong]} at position {wrong}, expected 0 to {_CLASSES - 1}")
        images.append(batch_images)
        labels.extend(batch_labels)
    return Split(np.concatenate(images).reshape(-1, *_SHAPE), np.array(labels, dtype=np.int64), _SCALING)


def load_cifar10(data_dir: Path | None = None) -> Dataset:
    """CIFAR-10: 50,000 training and 10,000 test images of 10 kinds of things, 32 x 32 in colour.

    Parameters
    ----------
    data_dir
        The folder with the batches, or one with ``cifar-10-batches-bin/`` or ``cifar-10-batches-py/`` in it, or one with
        ``cifar10/`` holding those. The binary version is taken if both are there.

    Returns
    -------
    Dataset
        Inputs uint8 of shape (n, 3, 32, 32).

    Raises
    ------
    DataError
        If a file is missing, damaged, or a pickle that asks for more than data.
    """
    folder, layout = _locate(require_folder(data_dir, _CONTENTS))
    return Dataset("cifar10", _load_split(folder, layout, _TRAIN), _load_split(folder, layout, (_TEST,)), _CLASSES)
