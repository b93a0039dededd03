"""Whole interactions, event by event, as text to be read; ``pytest --update-golden`` writes them anew.

Messages take 10 ms, models 50 ms, steps as each scenario says.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from support.wire import Wire, path, ring

from consensus.protocol.commands import Broadcast, Command, SendControl
from consensus.protocol.events import Control, Event
from consensus.rules import build

GOLDEN = Path(__file__).parent / "golden"
EVENT_COLUMN = 52


def network(graph: dict[int, list[int]], rule: str, steps: list[list[float]], **options: object) -> Wire:
    """Each rank's local steps take the given seconds, one after the other; it leaves after the last."""
    durations = [iter(mine) for mine in steps]
    return Wire(
        graph,
        build(rule),
        rounds=[len(mine) for mine in steps],
        compute=lambda rank, random: next(durations[rank]),
        delay=lambda random: 0.01,
        **options,
    )


SCENARIOS: dict[str, tuple[str, Callable[[], Wire]]] = {
    "two_ranks_full": (
        "Two ranks under full, one round each; rank 1 is late. Both ends offer, both models move, both ends close.",
        lambda: network(path(2), "full", [[0.1], [0.3]]),
    ),
    "two_ranks_active_weights": (
        "As two_ranks_full, with active weights: mixing waits until the partner's Closed has told its number of exchanges.",
        lambda: network(path(2), "full", [[0.1], [0.3]], weights="active"),
    ),
    "two_ranks_crossing": (
        "Two ranks under a deadline of 50 ms. Rank 0 has closed before rank 1's Ready and Engage come; its Closed withdraws\n"
        "what rank 1 answered. Rank 0 keeps the Ready for its next round, in which both meet.",
        lambda: network(path(2), "deadline", [[0.1, 0.01], [0.145]]),
    ),
    "two_ranks_more_rounds": (
        "Rank 0 makes two rounds, rank 1 one. Rank 1's goodbye releases rank 0 from waiting for it.",
        lambda: network(path(2), "full", [[0.1, 0.1], [0.1]]),
    ),
    "three_ranks_dtur": (
        "A triangle under dtur; the backbone is 0-1-2. Ranks 0 and 1 are ready first: their edge ends the first iteration.\n"
        "Rank 2, which computes, is not disturbed, and meets rank 1 in the second.",
        lambda: network(ring(3), "dtur", [[0.1, 0.2], [0.1, 0.2], [0.29]]),
    ),
    "three_ranks_death": (
        "A path 0-1-2 under full; rank 0 dies while its model is on the way to rank 1, which drops it and goes on with rank 2.",
        lambda: network(path(3), "full", [[0.1], [0.1], [0.3]], deaths={0: 0.14}),
    ),
    "three_ranks_leave": (
        "A path 0-1-2 under full; rank 1 wants to leave while its round is open and says goodbye as soon as nothing moves.",
        lambda: network(path(3), "full", [[0.1, 0.1], [0.1, 0.1, 0.1], [0.5]], leaves={1: 0.13}),
    ),
}


def told(event: Event) -> str:
    return f"{event.message} from {event.peer}" if isinstance(event, Control) else repr(event)


def asked(command: Command) -> str:
    if isinstance(command, SendControl):
        return f"{command.message} to {command.peer}"
    return f"{command.message} to all" if isinstance(command, Broadcast) else repr(command)


def transcript(words: str, wire: Wire) -> str:
    wire.run()
    lines = [words, ""]
    for now, rank, event, commands in wire.transcript:
        line = f"{now:.3f}  rank {rank}  {told(event)}"
        for command in commands or [None]:
            lines.append(f"{line:{EVENT_COLUMN}}  -> {asked(command)}" if command is not None else line)
            line = ""
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("name", SCENARIOS)
def test_transcript(name: str, update_golden: bool) -> None:
    words, scenario = SCENARIOS[name]
    text = transcript(words, scenario())
    file = GOLDEN / f"{name}.txt"
    if update_golden:
        file.write_text(text, encoding="utf-8")
    assert text == file.read_text(encoding="utf-8")


def test_no_transcript_is_left_over() -> None:
    assert {file.stem for file in GOLDEN.glob("*.txt")} == set(SCENARIOS)
