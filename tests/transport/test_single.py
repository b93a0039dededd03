"""One rank alone needs no MPI and no peers."""

from __future__ import annotations

import numpy as np
import pytest

from consensus.errors import ProtocolError
from consensus.protocol.messages import Ready
from consensus.transport.base import Bytes, Transport
from consensus.transport.single import SingleTransport


class Nothing:
    chunks: tuple[Bytes, ...] = ()

    def incoming(self, peer: int) -> int:
        """How many chunks a peer sends: as many as this rank has."""
        return len(self.chunks)

    def outgoing(self, peer: int) -> tuple[Bytes, ...]:
        raise NotImplementedError

    def lend(self, peer: int, index: int) -> Bytes:
        raise NotImplementedError

    def release(self, peer: int, index: int) -> None:
        raise NotImplementedError

    def deliver(self, peer: int, index: int, data: Bytes) -> None:
        raise NotImplementedError


def test_collectives_are_the_identity() -> None:
    alone: Transport = SingleTransport()
    table = np.arange(6.0).reshape(2, 3)
    alone.sum(table)
    letters = np.arange(4, dtype=np.uint8)
    alone.broadcast(letters)
    assert table.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert letters.tolist() == [0, 1, 2, 3]
    assert alone.gather("x") == ["x"]
    assert (alone.rank, alone.size, alone.bytes_sent) == (0, 1, 0)


def test_a_wait_lasts_until_its_time() -> None:
    alone = SingleTransport()
    alone.connect([], Nothing())
    until = alone.now() + 1e-3
    assert alone.wait(until) == []
    assert alone.now() >= until
    assert alone.poll() == []
    assert alone.pace(1, 0.5) == 0.0
    alone.disconnect()


def test_what_needs_a_peer_is_refused() -> None:
    alone = SingleTransport()
    with pytest.raises(ProtocolError, match="nobody can cause"):
        alone.wait(None)
    with pytest.raises(ProtocolError, match="neighbours \\[1\\]"):
        alone.connect([1], Nothing())
    with pytest.raises(ProtocolError, match="send Ready"):
        alone.send(1, Ready(1))
    with pytest.raises(ProtocolError, match="swap models with rank 1"):
        alone.swap(1, 1, 1)
    with pytest.raises(ProtocolError, match="give a model to rank 1"):
        alone.give(1)
    with pytest.raises(ProtocolError, match="take a model from rank 1"):
        alone.take(1)
