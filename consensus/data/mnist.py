"""MNIST from its four IDX files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from consensus.data.dataset import Dataset, Scaling, Split
from consensus.data.files import find_file, listing, require_folder
from consensus.data.idx import read_idx
from consensus.errors import DataError

_CLASSES = 10
_SIDE = 28
_CONTENTS = (
    "the IDX files of the MNIST database of handwritten digits, plain or .gz: train-images-idx3-ubyte, train-labels-idx1-ubyte, "
    "t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte"
)
# Mean and deviation of the training pixels, 0.1307 and 0.3081 of full scale.
_SCALING = Scaling((0.1307 * 255,), (0.3081 * 255,))


def _locate(data_dir: Path, stem: str) -> Path:
    # torchvision's layout last; some copies of the files write a dot for the second dash.
    folders = (data_dir, data_dir / "mnist", data_dir / "MNIST" / "raw")
    names = [name + suffix for name in (stem, stem.replace("-idx", ".idx")) for suffix in ("", ".gz")]
    path = find_file(folders, names)
    if path is None:
        raise DataError(
            f"{stem} (or {stem}.gz) not found in {data_dir}, nor in mnist or MNIST/raw below it; {listing(data_dir)}; "
            f"expected {_CONTENTS}"
        )
    return path


def _load_split(data_dir: Path, prefix: str) -> Split:
    image_path, label_path = _locate(data_dir, f"{prefix}-images-idx3-ubyte"), _locate(data_dir, f"{prefix}-labels-idx1-ubyte")
    images, labels = read_idx(image_path, 3), read_idx(label_path, 1)
    if images.shape[1:] != (_SIDE, _SIDE):
        raise DataError(f"{image_path}: images of {images.shape[1]} x {images.shape[2]} pixels, expected {_SIDE} x {_SIDE}")
    if len(images) != len(labels):
        raise DataError(f"{image_path} holds {len(images)} images but {label_path} {len(labels)} labels; expected equally many")
    if labels.max() >= _CLASSES:
        where = int(np.argmax(labels >= _CLASSES))
        raise DataError(f"{label_path}: label {labels[where]} at position {where}, expected 0 to {_CLASSES - 1}")
    return Split(images[:, np.newaxis], labels.astype(np.int64), _SCALING)


def load_mnist(data_dir: Path | None = None) -> Dataset:
    """MNIST: 60,000 training and 10,000 test images of handwritten digits.

    Parameters
    ----------
    data_dir
        The folder with the four files, or one with ``mnist/`` or ``MNIST/raw/`` in it.

    Returns
    -------
    Dataset
        Inputs uint8 of shape (n, 1, 28, 28).

    Raises
    ------
    DataError
        If a file is missing or damaged, or images and labels do not belong together.
    """
    folder = require_folder(data_dir, _CONTENTS)
    return Dataset("mnist", _load_split(folder, "train"), _load_split(folder, "t10k"), _CLASSES)
