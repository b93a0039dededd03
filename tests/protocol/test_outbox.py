"""The outbox hides rounds a silent peer never saw and news of epochs that are over, and nothing else."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consensus.errors import ConfigError
from consensus.protocol.messages import Closed, Engage, Established, Leave, Message, Progress, Ready, Stop
from consensus.protocol.outbox import Outbox

HEARD = "heard"
NEWS = st.one_of(
    st.builds(Established, st.integers(0, 9), st.integers(0, 3), st.just(0), st.just(1), st.integers(0, 1), st.just(0)),
    st.builds(Progress, samples=st.integers(0, 9)),
    st.builds(Stop, reason=st.integers(0, 3)),
    st.just(HEARD),
)


@dataclass
class Peer:
    """What a receiver makes of the messages."""

    ready: int | None = None
    engaged: dict[int, int] = field(default_factory=dict)
    kept: list[Message] = field(default_factory=list)
    news: list[Established] = field(default_factory=list)
    """Of the newest epoch, in order; as a rule follows it."""
    samples: int | None = None

    def take(self, messages: list[Message]) -> None:
        for message in messages:
            match message:
                case Ready(round=a):
                    assert self.ready is None, "a Ready that was not withdrawn"
                    self.ready = a
                case Engage(mine=a, yours=b):
                    assert self.ready == a, "an Engage of a round the peer has not heard of"
                    self.engaged[a] = b
                case Closed(round=a):
                    assert self.ready == a, "a Closed of a round the peer has not heard of"
                    self.ready = None
                    self.engaged.pop(a, None)
                case Progress(samples=samples):
                    self.samples = samples
                case Established(epoch=epoch, departed=departed):
                    newest = max([(news.departed, news.epoch) for news in self.news], default=(0, 0))
                    if (departed, epoch) > newest:
                        self.news = []
                    if (departed, epoch) >= newest:
                        self.news.append(message)
                case _:
                    self.kept.append(message)


@st.composite
def conversations(draw: st.DrawFn) -> list[Message | str]:
    """What an engine may send to one peer, with the application's messages and the peer's signs of life between."""
    script: list[Message | str] = []
    chatter = st.lists(NEWS, max_size=2)
    for a in range(1, draw(st.integers(1, 12)) + 1):
        script += draw(chatter)
        script.append(Ready(a))
        script += draw(chatter)
        if draw(st.integers(0, 3)) == 0:
            script.append(Engage(a, draw(st.integers(1, 9))))
        script += draw(chatter)
        script.append(Closed(a, 0))
    script = script[: draw(st.integers(1, len(script)))]
    if draw(st.booleans()):
        script.append(Leave(3))
    return script


@given(conversations(), st.integers(1, 6))
def test_a_flush_leaves_the_peer_as_without_an_outbox(script: list[Message | str], limit: int) -> None:
    box, direct, behind = Outbox(limit), Peer(), Peer()
    for item in script:
        if isinstance(item, str):
            behind.take(box.heard())
        else:
            direct.take([item])
            behind.take(box.push(item))
        if direct.ready is None:
            assert behind.ready is None, "the wire shows an open round that has closed"
        assert behind.engaged == direct.engaged, "an engagement or its withdrawal was held"
        assert behind.kept == direct.kept, "what others wait for was held"
    behind.take(box.heard())
    assert behind == direct


@given(conversations(), st.integers(1, 6))
def test_a_silent_peer_stores_the_limit_and_what_may_not_be_held(script: list[Message | str], limit: int) -> None:
    box, wire = Outbox(limit), []
    for item in script:
        if not isinstance(item, str):
            wire += box.push(item)
    written_through = sum(isinstance(item, (Engage, Stop, Leave)) for item in script)
    epochs = Counter((item.departed, item.epoch) for item in script if isinstance(item, Established))
    news = max(epochs.values(), default=0)
    # Beyond the limit: the Closed of a Ready that was within it, and what was held before that.
    assert len(wire) <= limit + 2 + news + (4 + news) * written_through
    assert len(box.heard()) <= 2 + news


def test_a_rank_that_is_stopped_for_a_whole_run_stores_no_more_than_the_limit() -> None:
    box = Outbox()
    wire = []
    for epoch in range(1000):
        for slot in range(7):
            for message in (Ready(7 * epoch + slot + 1), Established(epoch, slot, 0, 1, 0, 0), Closed(7 * epoch + slot + 1, 1)):
                wire += box.push(message)
    assert len(wire) == 33
    assert box.heard() == [Established(999, slot, 0, 1, 0, 0) for slot in range(7)]


@given(conversations(), st.integers(1, 6))
def test_whatever_is_held_a_probe_is_on_the_wire(script: list[Message | str], limit: int) -> None:
    """The transport's sign of life ends every hold only if a message before the hold was probing."""
    box = Outbox(limit)
    probed = False
    for item in script:
        if isinstance(item, str):
            released, probed = box.heard(), False
        else:
            released = box.push(item)
            assert released or probed, f"{item} is held and no probe will end it"
        probed |= bool(released) and box.probing


def test_order_is_kept_behind_what_was_held() -> None:
    box = Outbox(1)
    assert box.push(Ready(1)) == [Ready(1)]
    assert box.push(Closed(1, 0)) == [Closed(1, 0)]
    assert box.push(Progress(5)) == []
    assert box.push(Ready(2)) == []
    assert box.push(Leave(0)) == [Progress(5), Ready(2), Leave(0)]
    assert box.heard() == []


def test_only_the_newest_progress_is_kept() -> None:
    box = Outbox(1)
    assert box.push(Stop(0)) == [Stop(0)]
    assert [box.push(Progress(samples)) for samples in range(100)] == [[]] * 100
    assert box.heard() == [Progress(99)]


def test_a_round_that_was_on_the_wire_is_withdrawn_at_once() -> None:
    box = Outbox(1)
    assert box.push(Ready(1)) == [Ready(1)]
    assert box.push(Closed(1, 2)) == [Closed(1, 2)]


def test_a_sign_of_life_refills_the_allowance() -> None:
    box = Outbox(2)
    box.push(Ready(1))
    box.push(Closed(1, 0))
    box.heard()
    assert box.push(Ready(2)) == [Ready(2)]


def test_an_outbox_without_allowance_is_refused() -> None:
    with pytest.raises(ConfigError, match="not 0"):
        Outbox(0)
