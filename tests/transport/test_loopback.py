"""What the loopback world promises beyond the contract: a virtual clock, one seed one run, and no hanging."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from consensus.errors import ConfigError, ProtocolError
from consensus.protocol.events import Control, Event, ModelSwapped
from consensus.protocol.messages import Leave, Ready, Stop
from consensus.transport.base import Bytes
from consensus.transport.loopback import POLL_COST, LoopbackTransport, run


class Model:
    def __init__(self, *chunks: Bytes) -> None:
        self.chunks = chunks
        self.got: list[bytes] = []

    def incoming(self, peer: int) -> int:
        """How many chunks a peer sends: as many as this rank has."""
        return len(self.chunks)

    def outgoing(self, peer: int) -> tuple[Bytes, ...]:
        return self.chunks

    def lend(self, peer: int, index: int) -> Bytes:
        return np.empty_like(self.chunks[index])

    def release(self, peer: int, index: int) -> None:
        pass

    def deliver(self, peer: int, index: int, data: Bytes) -> None:
        self.got.append(data.tobytes())


def others(transport: LoopbackTransport) -> list[int]:
    return [rank for rank in range(transport.size) if rank != transport.rank]


def chatter(transport: LoopbackTransport) -> list[tuple[float, Event]]:
    """Everybody answers whatever comes, for a while; the log shows the order of all that happened."""
    transport.connect(others(transport), Model())
    log = []
    for peer in others(transport):
        transport.send(peer, Stop(0))
    for k in range(1, 30):
        for event in transport.wait(1.0):
            log.append((transport.now(), event))
            transport.send(event.peer, Stop(k))
    return log


def test_the_same_seed_gives_the_same_run() -> None:
    assert run(4, chatter, seed=3) == run(4, chatter, seed=3)


def test_another_seed_gives_another_run() -> None:
    orders = {tuple(event.peer for _, event in run(4, chatter, seed=seed)[0]) for seed in range(5)}
    assert len(orders) > 1


def test_sleeping_takes_virtual_time_only() -> None:
    def sleeper(transport: LoopbackTransport) -> tuple[float, float]:
        transport.sleep(3600.0 * (transport.rank + 1))
        slept = transport.now()
        transport.connect([], Model())
        transport.poll()
        return slept, transport.now() - slept

    assert run(2, sleeper) == [(3600.0, pytest.approx(POLL_COST)), (7200.0, pytest.approx(POLL_COST))]


def test_a_wait_ends_at_its_time_or_at_the_first_event() -> None:
    def body(transport: LoopbackTransport) -> tuple[float, list[Event]]:
        transport.connect([1 - transport.rank], Model())
        if transport.rank == 0:
            transport.sleep(1.0)
            transport.send(1, Ready(1))
            return transport.now(), transport.wait(2.5)
        return transport.now(), transport.wait(0.5) + transport.wait(9.0)

    def after(transport: LoopbackTransport) -> tuple[float, list[Event]]:
        _, seen = body(transport)
        return transport.now(), seen

    assert run(2, after, latency=(0.25, 0.25)) == [(2.5, []), (1.25, [Control(0, Ready(1))])]


def test_a_message_does_not_end_a_sleep() -> None:
    def body(transport: LoopbackTransport) -> float:
        transport.connect([1 - transport.rank], Model())
        transport.send(1 - transport.rank, Ready(1))
        transport.send(1 - transport.rank, Ready(2))
        transport.wait(None)
        transport.sleep(1.0)
        return transport.now()

    assert run(2, body, latency=(0.5, 0.5)) == [1.5, 1.5]


def test_bandwidth_and_latency_make_the_time_of_a_model() -> None:
    def body(transport: LoopbackTransport) -> float:
        transport.connect([1 - transport.rank], Model(np.zeros(60, np.uint8), np.zeros(40, np.uint8)))
        transport.sleep(float(transport.rank))
        transport.swap(1 - transport.rank, 1, 1)
        while transport.wait(None) != [ModelSwapped(1 - transport.rank)]:
            pass
        return transport.now()

    # The last chunk takes half a second and ten; as much as a message later its sender knows.
    assert run(2, body, latency=(0.5, 0.5), bandwidth=10.0) == [pytest.approx(1.0 + 0.5 + 10.0 + 0.5)] * 2


def write_early(transport: LoopbackTransport, early: bool) -> bytes:
    model = Model(np.full(4, transport.rank, np.uint8))
    transport.connect([1 - transport.rank], model)
    transport.swap(1 - transport.rank, 1, 1)
    if early:
        model.chunks[0][:] = 99
    while not (seen := transport.wait(None)):
        pass
    assert seen == [ModelSwapped(1 - transport.rank)]
    return model.got[0]


@pytest.mark.parametrize(("early", "arrived"), [(False, [b"\1" * 4, b"\0" * 4]), (True, [b"c" * 4, b"c" * 4])])
def test_a_model_that_is_written_before_it_was_sent_arrives_spoilt(early: bool, arrived: list[bytes]) -> None:
    assert run(2, lambda transport: write_early(transport, early)) == arrived


def test_a_deadlock_is_reported_with_what_every_rank_does() -> None:
    unwound: list[int] = []

    def body(transport: LoopbackTransport) -> None:
        if transport.rank == 2:
            return
        transport.connect([], Model())
        try:
            transport.wait(None)
        except ProtocolError:
            unwound.append(transport.rank)
            raise

    with pytest.raises(ProtocolError, match="deadlock") as caught:
        run(3, body)
    story = str(caught.value)
    assert "rank 0: waiting" in story
    assert "rank 1: waiting" in story
    assert "rank 2: finished" in story
    assert sorted(unwound) == [0, 1]


def test_waits_that_only_ever_end_by_their_deadline_are_a_deadlock() -> None:
    def body(transport: LoopbackTransport) -> None:
        transport.connect([], Model())
        while not transport.wait(transport.now() + 10.0):
            pass

    with pytest.raises(ProtocolError, match="rank 1: waiting \\(until"):
        run(2, body)


def test_an_error_ends_the_run_and_names_its_rank() -> None:
    cleaned: list[int] = []

    def body(transport: LoopbackTransport) -> None:
        transport.connect([], Model())
        try:
            if transport.rank == 1:
                transport.sleep(2.0)
                raise ZeroDivisionError("no loss")
            transport.wait(None)
        finally:
            cleaned.append(transport.rank)

    with pytest.raises(ZeroDivisionError, match="no loss") as caught:
        run(3, body)
    assert caught.value.__notes__ == ["on rank 1 of 3, at 2.000000 s of virtual time"]
    assert sorted(cleaned) == [0, 1, 2]


def both(transport: LoopbackTransport, *rounds: tuple[int, int]) -> None:
    transport.connect([1 - transport.rank], Model(np.zeros(1, np.uint8)))
    transport.swap(1 - transport.rank, *rounds[transport.rank])
    transport.wait(None)


def message_after_leave(transport: LoopbackTransport) -> None:
    transport.connect([1 - transport.rank], Model())
    transport.send(1 - transport.rank, Leave(transport.rank))
    transport.send(1 - transport.rank, Ready(1))
    for _ in range(2):
        transport.wait(None)


def different_collectives(transport: LoopbackTransport) -> None:
    transport.gather(1) if transport.rank else transport.sum(np.zeros(1))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (lambda transport: both(transport, (1, 2), (3, 1)), "disagree on the rounds"),
        (message_after_leave, "after its (Leave|connection)"),
        (different_collectives, "different collectives: \\['sum', 'gather'\\]"),
    ],
)
def test_a_broken_protocol_is_found(body: Any, message: str) -> None:
    with pytest.raises(ProtocolError, match=message):
        run(2, body)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"size": 0}, "not 0"), ({"latency": (2.0, 1.0)}, "low <= high"), ({"bandwidth": 0.0}, "bandwidth above 0")],
)
def test_worlds_that_cannot_be_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        run(**{"size": 2, "function": both, **arguments})


def test_gathered_items_are_the_ranks_own_copies() -> None:
    def body(transport: LoopbackTransport) -> list[list[int]]:
        items = transport.gather([transport.rank])
        items[0].append(transport.rank)
        return items

    assert run(2, body) == [[[0, 0], [1]], [[0, 1], [1]]]
