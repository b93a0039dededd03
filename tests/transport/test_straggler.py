"""The injector stretches steps and passes everything else through."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest

from consensus.timing import Replay, Transient
from consensus.transport.base import Transport
from consensus.transport.straggler import StragglerTransport


class FakeTransport:
    """A clock that jumps, and a note of every call."""

    rank = 2
    size = 5
    bytes_sent = 77
    members = (0, 2, 3)

    def __init__(self) -> None:
        self.clock = 0.0
        self.calls: list[tuple[str, tuple[Any, ...]]] = []

    def now(self) -> float:
        return self.clock

    def sleep(self, duration: float) -> None:
        self.clock += duration

    def __getattr__(self, name: str) -> Any:
        def note(*arguments: Any) -> str:
            self.calls.append((name, arguments))
            return f"answer of {name}"

        return note


def make(*durations: float) -> tuple[FakeTransport, Transport]:
    inner = FakeTransport()
    return inner, StragglerTransport(inner, Replay([durations]).stream(0, 0))  # type: ignore[arg-type]


def test_a_step_lacks_what_is_left_of_the_drawn_time() -> None:
    inner, transport = make(0.5, 0.25, 1.0)
    missing = [transport.pace(round, elapsed) for round, elapsed in enumerate([0.125, 0.75, 1.0], start=1)]
    # 0.5 drawn for 0.125; 0.25 drawn for 0.75, which passes as it is; 1.0 drawn for 1.0.
    assert missing == [0.375, 0.0, 0.0]
    # The time is the caller's to pass.
    assert inner.clock == 0.0
    assert inner.calls == []


def test_same_seed_same_run() -> None:
    runs = []
    for _ in range(2):
        inner = FakeTransport()
        transport = StragglerTransport(inner, Transient(0.02, 0.3, 10).stream(inner.rank, 4))  # type: ignore[arg-type]
        runs.append([transport.pace(round, 0.01) for round in range(1, 50)])
    assert runs[0] == runs[1]
    assert sum(runs[0]) > 49 * 0.01


def test_properties_and_sleep_pass_through() -> None:
    inner, transport = make(1.0)
    assert (transport.rank, transport.size, transport.bytes_sent, transport.members) == (2, 5, 77, (0, 2, 3))
    transport.sleep(3.0)
    assert transport.now() == inner.clock == 3.0


CALLS: dict[str, tuple[Any, ...]] = {
    "connect": ([0, 1], object()),
    "send": (1, object()),
    "swap": (1, 4, 5),
    "give": (3,),
    "take": (4,),
    "poll": (),
    "wait": (2.5,),
    "disconnect": (),
    "broadcast": (np.zeros(2, np.uint8), 1),
    "sum": (np.zeros(2),),
    "gather": ({"rank": 2},),
}

SILENT = {"connect", "send", "swap", "give", "take", "disconnect", "broadcast", "sum"}


@pytest.mark.parametrize("name", CALLS)
def test_calls_pass_through(name: str) -> None:
    inner, transport = make(1.0)
    answer = getattr(transport, name)(*CALLS[name])
    ((called, arguments),) = inner.calls
    assert called == name
    assert all(seen is given for seen, given in zip(arguments, CALLS[name], strict=True))
    assert answer == (None if name in SILENT else f"answer of {name}")


def test_nothing_of_the_contract_is_left_out() -> None:
    contract = {name for name, _ in inspect.getmembers(Transport) if not name.startswith("_")}
    assert contract == set(CALLS) | {"rank", "size", "members", "bytes_sent", "now", "sleep", "pace"}
    assert contract <= set(dir(StragglerTransport))
