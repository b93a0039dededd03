"""One rank's checkpoint: a header with a checksum of its own, and the state, of which the header has the checksum.

Layout: :data:`MAGIC`, version, the header's length and checksum; the header, JSON filled up with blanks; what ``torch.save``
wrote.
The header alone says whose file it is and how long the file must be, so a set is surveyed without reading models.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

import torch

from consensus import __version__
from consensus.checkpoint.atomic import replacing
from consensus.checkpoint.plain import decoded, encoded
from consensus.errors import CheckpointError
from consensus.types import Rank, Round, Seconds

MAGIC = b"\x89consensus-ckpt\n"
"""How every checkpoint begins. No text has the first byte, and a transfer that mends line ends damages the last."""

VERSION = 1

_PREFACE = struct.Struct("<16sHI16s")
_REMEDY = "it is not used; resume from another set"
_READ_BYTES = 1 << 20
# Length and checksum of the state are known last; the longest length there can be leaves room for any.
_UNKNOWN = {"length": (1 << 64) - 1, "digest": "0" * 64}


@dataclass(frozen=True)
class Header:
    """What a checkpoint says of itself.

    Parameters
    ----------
    start, number
        Which start of the run, and which checkpoint of it.
    rank, size
        Whose state, of how many ranks.
    run
        Name of the run.
    rounds
        Rounds that the rank had closed.
    seconds
        When, on the run's clock.
    last
        Whether it is the last that the rank wrote in this start.
    lost
        Ranks that this one knew to be dead, ascending.
    writer
        Versions that wrote it.
    length, digest
        Bytes of the state, and their checksum in hexadecimal digits.
    """

    start: int
    number: int
    rank: Rank
    size: int
    run: str = ""
    rounds: Round = 0
    seconds: Seconds = 0.0
    last: bool = False
    lost: tuple[Rank, ...] = ()
    writer: str = f"consensus {__version__}, torch {torch.__version__}"
    length: int = 0
    digest: str = ""


def write_checkpoint(path: Path, header: Header, state: object) -> None:
    """Write a checkpoint, atomically; the header's length and digest are filled in.

    The state is written as it is serialised: it takes no second copy of the model in memory.

    Raises
    ------
    CheckpointError
        If the state holds what no checkpoint can.
    OSError
        If it cannot be written; nothing has changed then.
    """
    content = encoded(state)
    fields = dataclasses.asdict(header)
    room = len(_dumped({**fields, **_UNKNOWN}))
    with replacing(path) as file:
        file.seek(_PREFACE.size + room)
        sink = _Sink(file)
        torch.save(content, cast(IO[bytes], sink))
        if sink.error is not None:
            raise sink.error
        words = _dumped({**fields, "length": sink.length, "digest": sink.hash.hexdigest()}).ljust(room)
        file.seek(0)
        file.write(_PREFACE.pack(MAGIC, VERSION, room, _header_digest(words)))
        file.write(words)


def read_header(path: Path) -> Header:
    """What a checkpoint says of itself; the file has the length that follows from it.

    Raises
    ------
    CheckpointError
        If the file is missing, is no checkpoint of this version, was cut off, or its header is damaged.
    """
    with _opened(path) as (_, header):
        return header


def verify(path: Path) -> Header:
    """Read all of a checkpoint and check it, without holding it in memory.

    Raises
    ------
    CheckpointError
        As :func:`read_header`, and if the state is damaged.
    """
    with _opened(path) as (file, header):
        hash = _state_hash()
        while data := file.read(_READ_BYTES):
            hash.update(data)
        _check_state(path, header, hash.hexdigest())
        return header


def read_checkpoint(path: Path) -> tuple[Header, Any]:
    """A checkpoint's header and its state, tensors in host memory.

    Raises
    ------
    CheckpointError
        As :func:`verify`, and if torch cannot read what is undamaged.
    """
    with _opened(path) as (file, header):
        data = file.read()
    _check_state(path, header, _state_hash(data).hexdigest())
    try:
        return header, decoded(torch.load(io.BytesIO(data), map_location="cpu", weights_only=True))
    # torch does not say which errors there can be; unpickling alone has half a dozen.
    except Exception as error:
        raise CheckpointError(
            f"{path}: undamaged, but torch {torch.__version__} cannot read the state that {header.writer} wrote ({error}); "
            "resume with the versions that wrote it"
        ) from error


class _Sink:
    """Takes what torch writes, in order, and its checksum.

    An error is kept, and reported by the caller: an exception through torch's writer in C++ is followed by a second one, or
    worse, when that is closed.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.hash = _state_hash()
        self.length = 0
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        """Write ``data``, unless something failed before."""
        size = memoryview(data).nbytes
        if self.error is None:
            try:
                self._file.write(data)
            except OSError as error:
                self.error = error
            self.hash.update(data)
            self.length += size
        return size

    def flush(self) -> None:
        """Do nothing: the file is flushed at the end."""


def _state_hash(data: bytes = b"") -> Any:
    return hashlib.blake2b(data, digest_size=32)


def _dumped(fields: dict[str, Any]) -> bytes:
    return json.dumps(fields, separators=(",", ":")).encode()


def _header_digest(words: bytes) -> bytes:
    return hashlib.blake2b(VERSION.to_bytes(2, "little") + words, digest_size=16).digest()


@contextmanager
def _opened(path: Path) -> Iterator[tuple[BinaryIO, Header]]:
    """The file, behind its header, which is checked."""
    try:
        with path.open("rb") as file:
            yield file, _read_header(path, file, os.fstat(file.fileno()).st_size)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: missing, expected a checkpoint; {_REMEDY}") from error
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror or error}); {_REMEDY}") from error


def _read_header(path: Path, file: BinaryIO, size: int) -> Header:
    preface = file.read(_PREFACE.size)
    if not MAGIC.startswith(preface[: len(MAGIC)]):
        raise CheckpointError(f"{path}: it begins with {preface[: len(MAGIC)]!r}, expected {MAGIC!r}: no checkpoint; {_REMEDY}")
    if len(preface) < _PREFACE.size:
        raise CheckpointError(f"{path}: truncated to {size} bytes, expected more than {_PREFACE.size}; {_REMEDY}")
    _, version, length, digest = _PREFACE.unpack(preface)
    if version != VERSION:
        raise CheckpointError(f"{path}: format version {version}, expected {VERSION}: of another release, or damaged; {_REMEDY}")
    words = file.read(min(length, size))
    if len(words) < length:
        raise CheckpointError(f"{path}: {size} bytes, expected a header of {length}: truncated or damaged; {_REMEDY}")
    if _header_digest(words) != digest:
        raise CheckpointError(f"{path}: the checksum of its header is wrong, expected {digest.hex()}: damaged; {_REMEDY}")
    header = _parsed(path, words)
    expected = _PREFACE.size + length + header.length
    if size != expected:
        state = "truncated" if size < expected else "too long"
        raise CheckpointError(f"{path}: {state}: {size} bytes, expected {expected}; {_REMEDY}")
    return header


def _parsed(path: Path, words: bytes) -> Header:
    try:
        fields = json.loads(words)
        return Header(**{**fields, "lost": tuple(fields["lost"])})
    except (ValueError, TypeError, KeyError) as error:
        raise CheckpointError(f"{path}: an undamaged header without sense ({error}): of another program; {_REMEDY}") from error


def _check_state(path: Path, header: Header, digest: str) -> None:
    if digest != header.digest:
        raise CheckpointError(f"{path}: the checksum of its state is {digest}, expected {header.digest}: damaged; {_REMEDY}")
