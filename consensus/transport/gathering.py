"""Everybody's bytes for everybody, checked.

Where a rank dies within a collective call, Open MPI 5.0 may tell another one that it worked and leave it something else: in two
of 223 deaths survivors were given bytes that nobody had sent (``tests.stress_kills``). What has come is only believed if its
checksum says so; if not, the call has failed (:mod:`consensus.transport.failures`).
"""

from __future__ import annotations

import struct
from itertools import pairwise
from typing import Any
from zlib import crc32

import numpy as np

from consensus.transport.failures import Garbled

_HEAD = struct.Struct("<qII")
"""Length and checksum of what a rank gives, and the checksum of these two: no memory is taken for a length that is none."""
_SUMMED = struct.Struct("<qI")


def gathered(comm: Any, own: bytes) -> list[bytes]:
    """Collective: what each rank gives, by rank.

    Parameters
    ----------
    comm : mpi4py.MPI.Intracomm
        Of those that take part.
    own : bytes
        What this one gives, not empty.

    Raises
    ------
    Garbled
        If anything else came than was given.
    """
    heads = np.empty((comm.Get_size(), _HEAD.size), dtype=np.uint8)
    comm.Allgather(np.frombuffer(head(own), dtype=np.uint8), heads)
    lengths, sums = zip(*(_read(number, each.tobytes()) for number, each in enumerate(heads)), strict=True)
    landing = np.empty(sum(lengths), dtype=np.uint8)
    comm.Allgatherv(np.frombuffer(own, dtype=np.uint8), [landing, list(lengths)])
    ends = [0, *np.cumsum(lengths).tolist()]
    pieces = [landing[start:end].tobytes() for start, end in pairwise(ends)]
    for number, (piece, expected) in enumerate(zip(pieces, sums, strict=True)):
        if crc32(piece) != expected:
            raise _garbled(number)
    return pieces


def head(own: bytes) -> bytes:
    """What goes before: see :data:`_HEAD`."""
    length, checksum = len(own), crc32(own)
    return _HEAD.pack(length, checksum, crc32(_SUMMED.pack(length, checksum)))


def _read(number: int, came: bytes) -> tuple[int, int]:
    length, checksum, whole = _HEAD.unpack(came)
    if crc32(_SUMMED.pack(length, checksum)) != whole:
        raise _garbled(number)
    return length, checksum


def _garbled(number: int) -> Garbled:
    return Garbled(f"what member {number} gave to a collective call has come as something else")
