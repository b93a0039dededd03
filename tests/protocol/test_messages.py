"""Control messages survive the wire, and foreign bytes are refused."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consensus.errors import ProtocolError
from consensus.protocol.commands import Mix, StartStep
from consensus.protocol.events import ModelSwapped, PeerLost
from consensus.protocol.messages import WIRE_BYTES, Closed, Engage, Established, Leave, Progress, Ready, Stop, decode, encode

KINDS = [Ready, Engage, Closed, Leave, Established, Progress, Stop]
INTEGERS = st.integers(-(2**63), 2**63 - 1)


@given(st.sampled_from(KINDS).flatmap(lambda kind: st.builds(kind, *[INTEGERS] * len(kind._fields))))
def test_round_trip(message: tuple[int, ...]) -> None:
    wire = encode(message)
    assert len(wire) == WIRE_BYTES
    assert decode(wire) == message
    assert type(decode(bytearray(wire) + b"more")) is type(message)
    assert decode(memoryview(wire)) == message


@pytest.mark.parametrize("wire", [b"", b"\0" * (WIRE_BYTES - 1), b"\x63" + b"\0" * WIRE_BYTES, b"\xff" * WIRE_BYTES])
def test_foreign_bytes_are_refused(wire: bytes) -> None:
    with pytest.raises(ProtocolError, match="same version"):
        decode(wire)


def test_every_kind_has_its_own_code() -> None:
    ones = [kind(*[1] * len(kind._fields)) for kind in KINDS]
    assert len({encode(message)[:8] for message in ones}) == len(KINDS)


def test_kinds_differ_whatever_they_carry() -> None:
    assert Ready(3) != Progress(3)
    assert Ready(3) == Ready(3)
    assert (Ready(3) != Ready(3)) is False
    assert ModelSwapped(1) != PeerLost(1)
    assert StartStep(1) != Ready(1)
    assert len({Ready(3), Progress(3), Leave(3), Stop(3), StartStep(3), Ready(3)}) == 5
    assert Mix(((1, 0.5),)) == Mix(((1, 0.5),))


def test_pickled_messages_are_equal() -> None:
    message = Established(1, 2, 3, 4, 5, 6)
    assert pickle.loads(pickle.dumps(message)) == message
