"""Bytes that are no message."""

from __future__ import annotations

import contextlib
import random

from consensus.errors import ProtocolError
from consensus.protocol.messages import WIRE_BYTES, Engage, Push, decode, encode
from tests.fuzz import TIMES, corrupted


def test_bytes_at_random_are_a_message_or_an_error() -> None:
    draw, decoded = random.Random(7), 0
    for message in (Engage(3, 4), Push(2, 1, 0, 0.5, 1.0)):
        damaged = list(corrupted(encode(message), 500 * TIMES, 8)) + [draw.randbytes(WIRE_BYTES) for _ in range(500)]
        for data in damaged:
            with contextlib.suppress(ProtocolError):
                again = decode(data)
                decoded += 1
                assert len(encode(again)) == WIRE_BYTES
    assert decoded > 0
