"""The driver on the loopback twin: what is logged, timed, called back and passed on."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from consensus.driver import Driver, RoundTimes
from consensus.protocol.messages import Message, Progress, Stop
from consensus.protocol.neighbour import NeighbourEngine
from consensus.protocol.rounds import Phase, RoundRecord
from consensus.rules.deadline import Deadline
from consensus.rules.dtur import Dtur
from consensus.rules.full import Full
from consensus.transport.base import Bytes, Transport
from consensus.transport.loopback import LoopbackTransport, run

PAIR = {0: (1,), 1: (0,)}


class Number:
    """A mixer of one float64 that tells its calls in order; each takes ``cost`` seconds of the clock."""

    def __init__(self, value: float, transport: Transport, cost: float = 0.0) -> None:
        self.value = np.array([value])
        self._transport, self._cost = transport, cost
        self._weights: dict[int, float] = {}
        self._sum = 0.0
        self.calls: list[str] = []

    @property
    def chunks(self) -> Sequence[Bytes]:
        return [self.value.view(np.uint8)]

    def begin(self) -> None:
        self.calls.append("begin")
        self._sum = 0.0

    def expect(self, peer: int, weight: float | None, last: bool) -> None:
        assert weight is not None
        self._weights[peer] = weight
        self.calls.append(f"expect {peer}")

    def incoming(self, peer: int) -> int:
        """How many chunks a peer sends: as many as this rank has."""
        return len(self.chunks)

    def outgoing(self, peer: int) -> Sequence[Bytes]:
        return self.chunks

    def lend(self, peer: int, index: int) -> Bytes:
        return np.empty(8, np.uint8)

    def release(self, peer: int, index: int) -> None:
        self.calls.append(f"release {peer}")

    def deliver(self, peer: int, index: int, data: Bytes) -> None:
        self._sum += self._weights[peer] * float(data.copy().view(np.float64)[0])
        self.calls.append(f"deliver {peer}")
        self._transport.sleep(self._cost)

    def forget(self, peer: int) -> None:
        self.calls.append(f"forget {peer}")

    def mix(self, weights: tuple[tuple[int, float], ...]) -> None:
        self.value *= 1 - sum(weight for _, weight in weights)
        self.value += self._sum
        self.calls.append("mix")
        self._transport.sleep(self._cost)


def make(transport: Transport, rule: Any, adjacency: Any = PAIR, cost: float = 0.0, **options: Any) -> tuple[Driver, Number]:
    mixer = Number(float(transport.rank), transport, cost)
    return Driver(NeighbourEngine(transport.rank, adjacency, rule), transport, mixer, **options), mixer


def end(driver: Driver) -> None:
    driver.leave()
    driver.drain()


def test_a_round_calls_the_mixer_in_order() -> None:
    def body(transport: LoopbackTransport) -> tuple[list[str], float]:
        driver, mixer = make(transport, Full(), before_mix=lambda: mixer.calls.append("before mix"))
        driver.exchange()
        end(driver)
        return mixer.calls, float(mixer.value[0])

    for rank, (calls, value) in enumerate(run(2, body)):
        peer = 1 - rank
        assert calls == ["begin", "before mix", f"expect {peer}", f"deliver {peer}", f"release {peer}", "mix"]
        assert value == 0.5


def test_a_stalled_rank_says_what_it_waits_for_and_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    def body(transport: LoopbackTransport) -> RoundRecord:
        driver, _ = make(transport, Full(), stall_warning=2.0)
        transport.sleep(5.0 * transport.rank)
        record = driver.exchange()
        end(driver)
        return record

    with caplog.at_level(logging.WARNING, "consensus"):
        records = run(2, body)
    assert len(caplog.messages) == 2  # after 2 and 4 of the 5 seconds, by the rank that waits; not while leaving
    for message, seconds in zip(caplog.messages, (2, 4), strict=True):
        assert "stalled, and goes on waiting" in message
        assert f"rank 0 is open in round 1 for {seconds}.0 s" in message
        assert "rule full: waits for all neighbours, 1 of 1 missing" in message
        assert "edge to 1: idle, it computes" in message
    assert [len(record.exchanges) for record in records] == [1, 1]


def test_the_warning_tells_each_edges_state_and_last_events(caplog: pytest.LogCaptureFixture) -> None:
    triangle = {0: (1, 2), 1: (0, 2), 2: (0, 1)}

    def body(transport: LoopbackTransport) -> None:
        driver, _ = make(transport, Full(), triangle, stall_warning=1.0)
        transport.sleep(1.5 if transport.rank == 2 else 0.0)
        driver.exchange()
        end(driver)

    with caplog.at_level(logging.WARNING, "consensus"):
        run(3, body)
    (message,) = [text for text in caplog.messages if "rank 0 is open" in text]
    assert "edge to 1: done with its round 1" in message
    assert "ModelSwapped(peer=1)" in message
    assert "edge to 2: idle, it computes" in message


def test_infinite_patience_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    def body(transport: LoopbackTransport) -> None:
        driver, _ = make(transport, Full(), stall_warning=float("inf"))
        transport.sleep(1e4 * transport.rank)
        driver.exchange()
        end(driver)

    run(2, body)
    assert caplog.messages == []


def test_a_rule_that_asks_for_the_clock_is_woken() -> None:
    def body(transport: LoopbackTransport) -> tuple[RoundRecord, float]:
        driver, _ = make(transport, Deadline(seconds=0.5))
        transport.sleep(3.0 * transport.rank)
        record = driver.exchange()
        now = transport.now()
        end(driver)
        return record, now

    (early, closed), (late, _) = run(2, body)
    assert early.exchanges == late.exchanges == ()
    assert early.backups == (1,)
    assert early.closed_at == pytest.approx(0.5, abs=1e-3)
    assert closed == early.closed_at
    assert late.reason == "all living neighbours have exchanged"  # rank 0 has left by then


def test_times_are_told_apart() -> None:
    def body(transport: LoopbackTransport) -> RoundTimes:
        times: list[RoundTimes] = []
        driver, _ = make(transport, Full(), cost=0.25, on_round=lambda _, t: times.append(t))
        transport.sleep(1.0 + 2.0 * transport.rank)
        driver.exchange()
        end(driver)
        return times[0]

    fast, slow = run(2, body)
    assert fast.compute == pytest.approx(1.0)
    assert slow.compute == pytest.approx(3.0)
    assert fast.wait == pytest.approx(2.0, abs=1e-2)
    assert slow.wait == pytest.approx(0.0, abs=1e-2)
    for times in (fast, slow):
        assert times.mix == pytest.approx(0.5)  # one delivery, one mix


def test_a_step_that_began_before_the_driver_counts_whole() -> None:
    def body(transport: LoopbackTransport) -> float:
        times: list[RoundTimes] = []
        transport.sleep(2.0)
        driver, _ = make(transport, Full(), on_round=lambda _, t: times.append(t), step_began=0.5)
        driver.exchange()
        end(driver)
        return times[0].compute

    assert run(2, body) == [pytest.approx(1.5, abs=1e-3)] * 2


def test_application_messages_go_to_the_application() -> None:
    star = {0: (1, 2), 1: (0,), 2: (0,)}

    def body(transport: LoopbackTransport) -> list[tuple[int, Message]]:
        heard: list[tuple[int, Message]] = []
        driver, _ = make(transport, Dtur(), star, on_message=lambda peer, message: heard.append((peer, message)))
        driver.send_all(Progress(10 + transport.rank))
        driver.exchange()
        if transport.rank == 1:
            driver.send_all(Stop(7))
        end(driver)
        return heard

    for rank, heard in enumerate(run(3, body)):
        expected = [(peer, Progress(10 + peer)) for peer in range(3) if peer != rank]
        expected += [(1, Stop(7))] if rank != 1 else []
        assert sorted(heard) == sorted(expected)


def test_nobody_need_listen_to_the_application() -> None:
    def body(transport: LoopbackTransport) -> Phase:
        driver, _ = make(transport, Full())
        driver.send_all(Progress(1))
        driver.exchange()
        end(driver)
        return driver.engine.phase

    assert run(2, body) == [Phase.FINISHED] * 2


def test_a_leave_in_the_middle_of_nothing_waits_for_nobody() -> None:
    """The others' rounds go on; only drain waits for them."""

    def body(transport: LoopbackTransport) -> tuple[float, int]:
        driver, _ = make(transport, Full())
        rounds = 0
        if transport.rank == 1:
            for _ in range(5):
                transport.sleep(1.0)
                rounds += driver.exchange().round > 0
        driver.leave()
        left = transport.now()
        driver.drain()
        return left, rounds

    (early, none), (_, five) = run(2, body)
    assert early == 0.0
    assert (none, five) == (0, 5)
