"""Bytes that are no message, and messages that no rank sends."""

from __future__ import annotations

import contextlib
import math
import random
from collections.abc import Callable
from typing import Any, get_type_hints

import pytest

from consensus.errors import ConfigError, ProtocolError
from consensus.protocol.coded import CodedWorkerEngine, MasterEngine, RelayEngine
from consensus.protocol.events import Control, StepDone
from consensus.protocol.messages import _KINDS, WIRE_BYTES, Engage, Message, Push, decode, encode
from consensus.protocol.neighbour import NeighbourEngine
from consensus.protocol.server import ServerEngine
from consensus.protocol.shard import FollowingEngine, LeadingEngine, ShardedWorkerEngine
from consensus.protocol.worker import WorkerEngine
from consensus.rules import RULES, build
from consensus.rules.coded import Sufficient
from consensus.rules.serving import SERVER_RULES, build_server
from tests.fuzz import TIMES, corrupted


def test_bytes_at_random_are_a_message_or_an_error() -> None:
    draw, decoded = random.Random(7), 0
    for message in (Engage(3, 4), Push(2, 1, 0, 0.5)):
        damaged = list(corrupted(encode(message), 500 * TIMES, 8)) + [draw.randbytes(WIRE_BYTES) for _ in range(500)]
        for data in damaged:
            with contextlib.suppress(ProtocolError):
                again = decode(data)
                decoded += 1
                assert len(encode(again)) == WIRE_BYTES
    assert decoded > 0


STAR = {0: [1, 2, 3], 1: [0], 2: [0], 3: [0]}
NUMBERS = (0, 1, 2, 3, 4, -1, 7, 100, 10**6, 2**31, 2**40, 2**62, -(2**40))
FLOATS = (0.0, 1.0, -1.0, math.nan, math.inf)


class AnyTwo:
    """Two nodes, either of which is enough."""

    participants, needed = (0, 1), 1

    def sufficient(self, alive: Any) -> bool:
        return bool(set(alive))


def server(rule: str) -> ServerEngine:
    push: Any = "wait" if build_server(rule).synchronous else "pull"
    return ServerEngine(0, [1, 2, 3], build_server(rule), push=push, factor=lambda k, n: 1.0, now=0.0)


def leading() -> LeadingEngine:
    return LeadingEngine(0, [2, 3], build_server("bsp"), followers=[1], push="wait", factor=lambda k, n: 1.0, now=0.0)


ENGINES: dict[str, Callable[[], Any]] = {
    **{rule: lambda rule=rule: NeighbourEngine(0, STAR, build(rule)) for rule in RULES},  # type: ignore[misc]
    **{rule: lambda rule=rule: server(rule) for rule in SERVER_RULES},  # type: ignore[misc]
    "worker": lambda: WorkerEngine(0, 1, 4, push="pull"),
    "first shard": leading,
    "second shard": lambda: FollowingEngine(0, 1, [2, 3], 4),
    "sharded worker": lambda: ShardedWorkerEngine(0, [1, 2], 4, push="pull"),
    "master": lambda: MasterEngine(0, [1, 2], Sufficient(AnyTwo(), 1), size=4, push="wait", limit=None, now=0.0),
    "edge": lambda: RelayEngine(0, 1, [2, 3], Sufficient(AnyTwo(), 2), size=4, push="wait", now=0.0),
    "coded worker": lambda: CodedWorkerEngine(0, 1, 2, 4, push="wait"),
}


def anything(draw: random.Random) -> Message:
    """A message of any kind, with any contents."""
    kind = draw.choice(_KINDS)
    fields = get_type_hints(kind).values()
    return decode(encode(kind(*(draw.choice(FLOATS) if field is float else draw.choice(NUMBERS) for field in fields))))


@pytest.mark.parametrize("name", ENGINES)
def test_messages_at_random_are_taken_or_refused(name: str) -> None:
    draw, refused = random.Random(name), 0
    for _ in range(100 * TIMES):
        engine = ENGINES[name]()
        with contextlib.suppress(ProtocolError, ConfigError):
            if isinstance(engine, NeighbourEngine) and draw.random() < 0.8:
                engine.handle(StepDone(), 0.0)
            for _ in range(draw.randint(1, 12)):
                engine.handle(Control(draw.choice((1, 2, 3)), anything(draw)), 1.0)
            continue
        refused += 1
    assert refused > 0
