"""Whether forks do harm: ranks of the loopback world, which a fork leaves alone, and ranks that go on sending what was."""

from __future__ import annotations

import pytest

from consensus.doctor import State, forks
from consensus.doctor.forks import check_forks, send_beside_a_child
from consensus.transport.loopback import LoopbackTransport, run
from consensus.transport.single import SingleTransport


def on_a_ring(transport: LoopbackTransport) -> list[bool]:
    return send_beside_a_child(transport, [(transport.rank + step) % transport.size for step in (-1, 1)])


def test_models_arrive_as_they_were_sent() -> None:
    assert run(4, on_a_ring) == [[True] * 4] * 4


def test_a_rank_that_goes_on_sending_old_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    write = forks._Marked.write

    def stale(self: forks._Marked, number: int) -> None:
        if (self._own, number) != (1, 1):
            return write(self, number)
        self._number = number

    monkeypatch.setattr(forks._Marked, "write", stale)
    assert run(4, on_a_ring)[0] == [False, True, False, True]


def test_one_rank_alone() -> None:
    assert send_beside_a_child(SingleTransport(), []) == [True]


def test_what_is_made_of_it() -> None:
    assert check_forks([True, True]).state is State.OK
    check = check_forks([False, True, False])
    assert (check.state, "ranks 0, 2" in check.found, "loader_context" in check.advice) == (State.WARN, True, True)
