"""A script that ends without closing its handle: the other ranks need not wait for it."""

from __future__ import annotations

import atexit
import logging
import os
from collections.abc import Callable
from typing import Any

import pytest
import torch

import consensus.optim
from consensus.errors import StallError
from consensus.handle import Handle
from consensus.neighbours import NeighbourHandle
from consensus.optim import attach
from consensus.protocol.rounds import Phase
from consensus.transport.base import Transport
from consensus.transport.endings import ending
from consensus.transport.loopback import run
from tests.served_worlds import EVERY_SERVER_RULE
from tests.support.forkserver import ForkServer
from tests.worlds import EVERY_RULE, Point, attached_point, descend, numbers

SIZE = 4


@pytest.fixture
def exits(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What is to be called when Python exits, of all ranks."""
    registered: list[Any] = []
    monkeypatch.setattr(atexit, "register", registered.append)
    monkeypatch.setattr(atexit, "unregister", lambda handler: registered.remove(handler) if handler in registered else None)
    return registered


def goodbyes_of(handle: Handle, exits: list[Any]) -> list[Callable[[], None]]:
    return [handler for handler in exits if getattr(handler, "__self__", None) is handle]


def trains(transport: Transport, steps: int, **options: Any) -> NeighbourHandle:
    """Attach as a script does whose handle is not closed, and train."""
    handle, _ = attached_point(transport, lr=0.1, topology="ring", **options)
    handle.leave_at_exit()
    descend(handle, steps, numbers(transport.rank))
    return handle


@pytest.mark.parametrize("rule", EVERY_RULE)
def test_it_leaves_at_its_exit(rule: str, exits: list[Any], caplog: pytest.LogCaptureFixture) -> None:
    def ends(transport: Transport) -> int:
        handle = trains(transport, 3 + 4 * transport.rank, rule=EVERY_RULE[rule])
        (goodbye,) = goodbyes_of(handle, exits)
        goodbye()
        assert not goodbyes_of(handle, exits)
        return handle.statistics.rounds

    assert run(SIZE, ends, seed=4) == [3, 7, 11, 15]
    for rank in range(SIZE):
        (told,) = [message for message in caplog.messages if message.startswith(f"rank {rank} exits")]
        assert "`with` block" in told
        assert "handle.close()" in told


def test_a_worker_leaves_its_server(exits: list[Any], caplog: pytest.LogCaptureFixture) -> None:
    def ends(transport: Transport) -> None:
        model = Point(40)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        handle = attach(model, optimizer, architecture="server", rule=EVERY_SERVER_RULE["ssp"], transport=transport)
        handle.leave_at_exit()
        descend(handle, 3 * transport.rank, numbers(transport.rank, 40))
        (goodbye,) = goodbyes_of(handle, exits)
        goodbye()

    run(3, ends)
    assert sorted(message[:12] for message in caplog.messages) == ["rank 1 exits", "rank 2 exits"]


def test_what_was_closed_is_not_kept(exits: list[Any]) -> None:
    def closes(transport: Transport) -> None:
        with trains(transport, 3) as handle:
            assert goodbyes_of(handle, exits)
        assert not goodbyes_of(handle, exits)

    run(2, closes)


@pytest.mark.parametrize("why", ["an error", "a child"])
def test_neither_an_error_nor_a_child_says_goodbye(why: str, exits: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The one is to end the job; the other is no rank."""
    handles = run(2, lambda transport: trains(transport, 3))
    if why == "an error":
        monkeypatch.setattr(ending(), "code", 1)
    else:
        monkeypatch.setattr(os, "getpid", lambda: -1)
    for handle in handles:
        (goodbye,) = goodbyes_of(handle, exits)
        goodbye()
        assert handle.engine is not None
        assert handle.engine.phase is Phase.COMPUTING


def test_who_cannot_leave_has_failed(exits: list[Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(ending(), "code", 0)

    def stalls(handle: Handle) -> None:
        raise StallError("rank 0 has waited")

    handle = run(2, lambda transport: trains(transport, 3))[0]
    monkeypatch.setattr(type(handle), "_end", stalls)
    (goodbye,) = goodbyes_of(handle, exits)
    with caplog.at_level(logging.ERROR):
        goodbye()
    assert "rank 0 could not leave in order" in caplog.text
    assert ending().code == 1


@pytest.mark.parametrize(("own", "size"), [(True, 2), (False, 2), (True, 1)])
def test_who_makes_the_transport_sees_to_it(own: bool, size: int, exits: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where attach does, it is of the whole process; alone there is nobody to leave."""

    def attaches(transport: Transport) -> None:
        monkeypatch.setattr(consensus.optim, "default_transport", lambda comm: transport)
        model = Point()
        options: dict[str, Any] = {} if own else {"transport": transport}
        with attach(model, torch.optim.SGD(model.parameters(), lr=0.1), topology="ring", **options) as handle:
            assert len(goodbyes_of(handle, exits)) == (own and size > 1)

    run(size, attaches)


def test_ranks_whose_scripts_end_in_the_middle_of_training(forked: ForkServer) -> None:
    done = forked.run(3, ["-m", "tests.support.ending", "without a goodbye", "1"], patience=60)
    assert done.code == 0, done.errors
    assert sorted(done.out.splitlines()) == ["rank 0 came to its end", "rank 2 came to its end"]
    assert [done.errors.count(f"rank {rank} exits and has not closed its handle") for rank in range(3)] == [1, 1, 1]
