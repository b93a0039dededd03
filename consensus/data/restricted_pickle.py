"""Reading pickles of lists, dicts, strings, numbers and uint8 arrays, without running anything that a pickle asks for.

A pickle names functions and has them called. Here the few names that an array's pickle contains resolve to stand-ins of
our own, which understand arrays of uint8 only; every other name is refused. NumPy's own constructors never see what the
file says.
"""

from __future__ import annotations

import io
import math
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from consensus.data.files import read_bytes
from consensus.errors import DataError


class _ByteType:
    """Stands for ``numpy.dtype``; exists for uint8 alone."""

    def __setstate__(self, state: object) -> None:
        """Byte order and alignment mean nothing for single bytes."""


class _Array:
    """Stands for ``numpy.ndarray`` while its state is read."""

    values: NDArray[np.uint8] | None = None

    def __setstate__(self, state: tuple[int, tuple[int, ...], _ByteType, bool, bytes]) -> None:
        _, shape, dtype, fortran, content = state
        self.values = _bytes_as_array(content, dtype, shape, "F" if fortran else "C")


def _bytes_as_array(content: bytes, dtype: object, shape: tuple[int, ...], order: str) -> NDArray[np.uint8]:
    if not isinstance(dtype, _ByteType) or not isinstance(content, bytes | bytearray) or min(shape, default=0) < 0:
        raise pickle.UnpicklingError("an array that is not one of uint8")
    if len(content) != math.prod(shape):
        raise pickle.UnpicklingError(f"an array of shape {shape} with {len(content)} bytes")
    return np.frombuffer(content, dtype=np.uint8).reshape(shape, order="F" if order == "F" else "C")


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: BinaryIO, path: Path) -> None:
        super().__init__(file, encoding="bytes")
        self._path = path

    def _array(self, *_: object) -> _Array:
        return _Array()

    def _dtype(self, name: str | bytes, *_: object) -> _ByteType:
        if name not in ("u1", b"u1"):
            raise DataError(f"{self._path}: an array of dtype {name!r}; expected uint8 ('u1')")
        return _ByteType()

    def _from_buffer(self, content: bytes, dtype: object, shape: tuple[int, ...], order: str) -> NDArray[np.uint8]:
        return _bytes_as_array(content, dtype, shape, order)

    def _encode(self, text: str, encoding: str) -> bytes:
        if encoding != "latin1":
            raise pickle.UnpicklingError(f"a string encoded as {encoding!r}")
        return text.encode("latin1")

    def find_class(self, module: str, name: str, /) -> Callable[..., Any]:
        """The stand-in for a global, or an error that names it."""
        # NumPy 2 renamed numpy.core; protocol 5 pickles arrays by _frombuffer; protocol 2 written by Python 3 carries
        # bytes through _codecs.encode.
        known: dict[tuple[str, str], Callable[..., Any]] = {
            ("numpy", "ndarray"): self._array,
            ("numpy", "dtype"): self._dtype,
            ("numpy.core.multiarray", "_reconstruct"): self._array,
            ("numpy._core.multiarray", "_reconstruct"): self._array,
            ("numpy.core.numeric", "_frombuffer"): self._from_buffer,
            ("numpy._core.numeric", "_frombuffer"): self._from_buffer,
            ("_codecs", "encode"): self._encode,
        }
        if (module, name) not in known:
            raise DataError(
                f"{self._path}: refused to load the global {module}.{name}; expected a pickle of lists, strings, numbers and "
                "uint8 arrays. Such a file may run code where it is loaded; obtain the data set from its official source"
            )
        stand_in = known[module, name]
        # A pickle may set attributes on what it is given: let that be a function made for it alone.
        return lambda *arguments: stand_in(*arguments)


def _plain(value: object) -> object:
    """Stand-ins replaced by what they stand for, in the containers that the format has."""
    if isinstance(value, _Array):
        if value.values is None:
            raise pickle.UnpicklingError("an array without content")
        return value.values
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value


def read_pickle(path: Path) -> object:
    """Read a pickle, of any protocol, that holds nothing but data.

    Parameters
    ----------
    path
        The file. Strings written by Python 2 come back as bytes.

    Returns
    -------
    object
        What was pickled; arrays are uint8. Arrays are found at the top and as values of dicts, not inside lists.

    Raises
    ------
    DataError
        If the file cannot be read, is not a whole pickle, or names any global that a uint8 array does not need.
    """
    content = read_bytes(path)
    try:
        return _plain(_Unpickler(io.BytesIO(content), path).load())
    except DataError:
        raise
    except Exception as error:  # bytes that are no pickle raise nearly anything out of the unpickler
        reason = f"{type(error).__name__}: {error}"
        raise DataError(f"{path}: damaged, truncated or not a pickle of plain data ({reason}); obtain it again") from error
