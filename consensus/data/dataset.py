"""A data set in memory: integers as they came from the file, turned into normalised tensors one batch at a time.

Several ranks share a machine and each holds the whole set. Images stay uint8, a quarter of the float32 they become, and
normalising 32 of them per step costs microseconds.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from consensus.errors import DataError

if TYPE_CHECKING:
    import torch

Selection: TypeAlias = "slice | NDArray[np.integer[Any]]"
"""Which samples: a slice, or an array of indices."""


@dataclass(frozen=True)
class Scaling:
    """``(inputs - mean) / std``, in the units that the inputs are stored in.

    Parameters
    ----------
    mean, std
        One number for all, or one per channel (axis 1 of the inputs).

    Examples
    --------
    >>> Scaling((2.0,), (4.0,)).apply(np.array([[2, 6]], dtype=np.uint8)).tolist()
    [[0.0, 1.0]]
    """

    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std) or not self.mean:
            raise DataError(f"scaling has {len(self.mean)} means and {len(self.std)} deviations; expected equally many")
        if min(self.std) <= 0:
            raise DataError(f"scaling by deviations {self.std}, expected all above 0")

    def apply(self, inputs: NDArray[Any]) -> NDArray[np.float32]:
        """Normalise a batch.

        Parameters
        ----------
        inputs : ndarray, shape (b, ...) or (b, channels, ...)

        Returns
        -------
        ndarray of float32, same shape
            A new, contiguous array.
        """
        channels = (-1,) + (1,) * (inputs.ndim - 2)
        scaled = np.array(inputs, dtype=np.float32, order="C")
        scaled -= np.asarray(self.mean, dtype=np.float32).reshape(channels)
        scaled /= np.asarray(self.std, dtype=np.float32).reshape(channels)
        return scaled


@dataclass(frozen=True, eq=False)
class Split:
    """Samples with their labels: the training half of a data set or the test half.

    Parameters
    ----------
    inputs : ndarray of uint8 or float, shape (n, ...)
        As stored; images are (n, channels, height, width).
    labels : ndarray of int64, shape (n,)
        Classes from 0.
    scaling
        How stored inputs become what a model sees.

    Raises
    ------
    DataError
        If there are no samples, or not one label per sample, or no feature axis.
    """

    inputs: NDArray[Any]
    labels: NDArray[np.int64]
    scaling: Scaling = Scaling()

    def __post_init__(self) -> None:
        if self.labels.ndim != 1 or self.inputs.ndim < 2 or len(self.inputs) != len(self.labels):
            raise DataError(f"inputs of shape {self.inputs.shape}, labels of {self.labels.shape}; expected (n, ...) and (n,)")
        if not len(self.labels):
            raise DataError("a split without samples; expected at least one")

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, selection: Selection) -> tuple[torch.Tensor, torch.Tensor]:
        """The chosen samples, as a model takes them.

        Parameters
        ----------
        selection : slice or ndarray of int, shape (b,)

        Returns
        -------
        inputs : Tensor of float32, shape (b, ...)
            Normalised, on the CPU, not shared with the split.
        labels : Tensor of int64, shape (b,)
        """
        # Imported here: naming and partitioning data must not cost a launcher the seconds and the memory of torch.
        import torch

        return torch.from_numpy(self.scaling.apply(self.inputs[selection])), torch.from_numpy(self.labels[selection].copy())

    def first(self, limit: int) -> Split:
        """The first ``limit`` samples, or all if there are fewer; the rest of the memory is given back."""
        if limit >= len(self):
            return self
        return replace(self, inputs=self.inputs[:limit].copy(), labels=self.labels[:limit].copy())


@dataclass(frozen=True, eq=False)
class Dataset:
    """A classification task.

    Parameters
    ----------
    name
        As given to :func:`consensus.data.catalogue.load`.
    train, test
        The two halves; samples have the same shape in both.
    classes
        How many; labels are 0 .. classes - 1.

    Raises
    ------
    DataError
        If the shapes differ or a label is out of range.
    """

    name: str
    train: Split
    test: Split
    classes: int

    def __post_init__(self) -> None:
        if self.train.inputs.shape[1:] != self.test.inputs.shape[1:]:
            shapes = f"training samples of shape {self.train.inputs.shape[1:]}, test samples of {self.test.inputs.shape[1:]}"
            raise DataError(f"{self.name}: {shapes}; expected the same")
        for half, split in (("training", self.train), ("test", self.test)):
            low, high = int(split.labels.min()), int(split.labels.max())
            if low < 0 or high >= self.classes:
                raise DataError(f"{self.name}: {half} labels run from {low} to {high}, expected 0 to {self.classes - 1}")

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one sample, without the batch axis: (channels, height, width) for images."""
        return tuple(self.train.inputs.shape[1:])
