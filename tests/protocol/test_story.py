"""The log that errors and stall reports quote."""

from __future__ import annotations

from consensus.protocol.events import Control, ModelSwapped, StepDone
from consensus.protocol.messages import Ready
from consensus.protocol.story import Story


def test_old_events_are_dropped() -> None:
    story = Story(length=3)
    for second in range(5):
        story.record(float(second), ModelSwapped(second))
    assert story.tell(now=4.0).splitlines() == [
        "   2.000 s ago  ModelSwapped(peer=2)",
        "   1.000 s ago  ModelSwapped(peer=3)",
        "   0.000 s ago  ModelSwapped(peer=4)",
    ]
    assert story.latest == 4.0


def test_the_events_about_a_peer() -> None:
    story = Story()
    assert story.latest == 0.0
    assert story.tell(now=1.0) == ""
    story.record(1.0, StepDone())
    for second in range(2, 6):
        story.record(float(second), Control(second % 2, Ready(second)))
    assert story.about(1) == [(3.0, Control(1, Ready(3))), (5.0, Control(1, Ready(5)))]
    assert story.about(1, last=1) == [(5.0, Control(1, Ready(5)))]
    assert story.about(7) == []
    assert story.tell(6.0, story.about(1, last=1)) == "   1.000 s ago  Control(peer=1, message=Ready(round=5))"
