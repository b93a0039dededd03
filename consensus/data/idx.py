"""The IDX format of MNIST: a magic number, the dimensions as big-endian 32-bit integers, then the bytes.

Whether a file is compressed is judged by its first bytes, not its name: browsers unpack ``.gz`` files and keep the name.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from consensus.data.files import read_bytes
from consensus.errors import DataError

_GZIP_MAGIC = b"\x1f\x8b"
_UINT8 = 0x08
_CONTENT = {1: "labels", 3: "images"}


def _content(path: Path) -> bytes:
    raw = read_bytes(path)
    if not raw.startswith(_GZIP_MAGIC):
        return raw
    try:
        return gzip.decompress(raw)
    except (EOFError, gzip.BadGzipFile, zlib.error, struct.error) as error:
        raise DataError(f"{path}: damaged or truncated gzip file of {len(raw)} bytes ({error}); obtain it again") from error


def read_idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """Read an IDX file of unsigned bytes.

    Parameters
    ----------
    path
        The file, plain or gzipped.
    dimensions
        How many axes it must have: 1 for labels, 3 for images.

    Returns
    -------
    ndarray of uint8, read-only
        Of the shape that the header states.

    Raises
    ------
    DataError
        If the file cannot be read, is of another kind, or is shorter or longer than its header says.
    """
    content = _content(path)
    header = 4 + 4 * dimensions
    wanted = _UINT8 << 8 | dimensions
    if len(content) >= 4:
        magic = int.from_bytes(content[:4], "big")
        if magic != wanted:
            kind = _CONTENT.get(magic & 0xFF, "data") if magic >> 8 == _UINT8 else None
            hint = f"an IDX file of {kind}: are the files swapped?" if kind else "not an IDX file of bytes"
            needed = f"0x{wanted:08x} ({_CONTENT.get(dimensions, 'data')}, {dimensions} dimension{'s' * (dimensions > 1)})"
            raise DataError(f"{path}: magic number 0x{magic:08x}, {hint}; expected {needed}")
    if len(content) < header:
        raise DataError(f"{path}: truncated in the header, {len(content)} bytes; expected at least {header}; obtain it again")
    shape = struct.unpack(f">{dimensions}I", content[4:header])
    size, stated = len(content) - header, math.prod(shape)
    dims = " x ".join(map(str, shape))
    if size != stated:
        state = "truncated" if size < stated else "too long"
        raise DataError(f"{path}: {state}: the header states {dims} = {stated} bytes, found {size} after it; obtain it again")
    if not stated:
        raise DataError(f"{path}: empty: the header states dimensions {dims}; expected at least one sample")
    return np.frombuffer(content, dtype=np.uint8, offset=header).reshape(shape)
