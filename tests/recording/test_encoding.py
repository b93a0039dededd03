"""Events and answers as bytes."""

from __future__ import annotations

import math
import struct
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consensus.protocol.commands import Broadcast, DropModel, Finish, Mix, SendControl, StartStep, SwapModel, WakeAt
from consensus.protocol.events import Control, LeaveWanted, ModelSwapped, PeerLost, StepDone, Tick
from consensus.protocol.messages import Closed, Engage, Established, Leave, Ready
from consensus.protocol.rounds import Exchange, RoundRecord
from consensus.recording.decoding import Cursor, Damaged, Outcome, Truncated, take_entry
from consensus.recording.encoding import COMMAND_KINDS, LONGEST_REASON, Encoder
from consensus.rules import build
from tests.recordings import fresh

ranks = st.integers(0, 2**16 - 1)
counts = st.integers(0, 2**32 - 1)
messages = st.one_of(
    st.builds(Ready, counts),
    st.builds(Engage, counts, counts),
    st.builds(Closed, counts, counts),
    st.builds(Leave, ranks),
    st.builds(Established, counts, counts, ranks, ranks, ranks, st.integers(0, 2**62 - 1)),
)
events = st.one_of(
    st.builds(StepDone),
    st.builds(Tick),
    st.builds(LeaveWanted),
    st.builds(ModelSwapped, ranks),
    st.builds(PeerLost, ranks),
    st.builds(Control, ranks, messages),
)
commands = st.lists(
    st.one_of(
        st.builds(SendControl, ranks, messages),
        st.builds(Broadcast, messages),
        st.builds(SwapModel, ranks, counts, counts, st.none() | st.floats(0, 1), st.booleans()),
        st.builds(DropModel, ranks),
        st.builds(Mix, st.lists(st.tuples(ranks, st.floats(0, 1))).map(tuple)),
        st.builds(WakeAt, st.floats(allow_nan=False)),
        st.builds(Finish),
    )
)


def bytes_of(now: float, event: Any, answer: Any, last: RoundRecord | None = None) -> bytes:
    engine, encoder = fresh(build("full")), Encoder()
    engine.last = last
    encoder.follow(engine)
    encoder.encode(now, event, answer)
    return bytes(encoder.buffer)


@given(now=st.floats(allow_nan=False), event=events, answer=commands)
def test_events_come_back_as_they_were(now: float, event: Any, answer: Any) -> None:
    data = bytes_of(now, event, answer)
    entry = take_entry(Cursor(data))
    assert (entry.now, entry.event, entry.outcome, entry.wire) == (now, event, None, data)
    assert math.copysign(1, entry.now) == math.copysign(1, now)
    assert [kind.partition("(")[0] for kind in entry.answered] == [type(command).__name__ for command in answer]


@given(event=events, answer=commands)
def test_a_part_of_an_event_is_none(event: Any, answer: Any) -> None:
    data = bytes_of(1.0, event, answer)
    for cut in range(1, len(data)):
        with pytest.raises(Truncated):
            take_entry(Cursor(data[:cut]))


def test_what_is_sent_tells_commands_apart() -> None:
    answer = [SendControl(1, Ready(1)), SendControl(1, Closed(1, 0)), Broadcast(Leave(0)), Finish()]
    said = take_entry(Cursor(bytes_of(0.0, StepDone(), answer))).answered
    assert said == ("SendControl(Ready)", "SendControl(Closed)", "Broadcast(Leave)", "Finish")
    assert len(set(COMMAND_KINDS)) == len(COMMAND_KINDS)


def test_more_commands_than_fit_a_byte() -> None:
    answer = [SendControl(peer, Ready(1)) for peer in range(700)]
    assert len(take_entry(Cursor(bytes_of(0.0, StepDone(), answer))).answered) == 700


RECORD = RoundRecord(7, 1.0, 2.0, (Exchange(4, 9, 0.25, 1.25, 1.5), Exchange(2, 7, 0.5, 1.5, 1.75)), (5, 6), "größte")


END = (StartStep(7),)


def outcome(answer: Any = END, **changes: Any) -> Outcome:
    found = take_entry(Cursor(bytes_of(2.0, Tick(), answer, RECORD._replace(**changes)))).outcome
    assert found is not None
    return found


def test_a_round_with_its_outcome() -> None:
    assert outcome()[:-1] == (7, (4, 2), (5, 6), "größte")
    assert len(outcome(reason="x" * 100_000).reason) == LONGEST_REASON


@pytest.mark.parametrize(
    "changes",
    [
        {"opened_at": math.nextafter(1.0, 2.0)},
        {"closed_at": math.nextafter(2.0, 1.0)},
        {"exchanges": (RECORD.exchanges[0]._replace(weight=math.nextafter(0.25, 1)), RECORD.exchanges[1])},
        {"exchanges": (RECORD.exchanges[0], RECORD.exchanges[1]._replace(done_at=math.nextafter(1.75, 1)))},
        {"exchanges": (RECORD.exchanges[0], RECORD.exchanges[1]._replace(round=8))},
        {"answer": (StartStep(8),)},
        {"answer": (SendControl(3, Closed(7, 2)), StartStep(7))},
        {"answer": (SwapModel(4, 7, 9, None, True), StartStep(7))},
    ],
)
def test_the_checksum_sees_the_last_bit(changes: dict[str, Any]) -> None:
    assert outcome(**changes)[:-1] == outcome()[:-1]
    assert outcome(**changes).checksum != outcome().checksum


def test_the_checksum_is_no_matter_of_the_process() -> None:
    answer = (SwapModel(4, 7, 9, None, True), Mix(((4, 0.25), (2, 0.5))), StartStep(7))
    numbers = [*(4, 7, 9, -1, 1), *(4, 0.25, 2, 0.5), 7, 1.0, 2.0, *(4, 9, 0.25, 1.25, 1.5), *(2, 7, 0.5, 1.5, 1.75)]
    assert outcome(answer).checksum == zlib.crc32(b"".join(struct.pack("<d", number) for number in numbers))


@pytest.mark.parametrize(
    ("data", "words"), [(b"\xee", "record of kind 238"), (b"\x08" + bytes(8) + b"\x01\x99", "command of kind 153")]
)
def test_what_is_no_event(data: bytes, words: str) -> None:
    with pytest.raises(Damaged, match=words):
        take_entry(Cursor(data))
