"""What is gathered is what was given, or the call has failed."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from consensus.errors import ProtocolError
from consensus.transport.failures import ENABLED, Failures, Garbled
from consensus.transport.gathering import gathered, head
from tests.transport.test_failures import Group, Library

GIVEN = [b"mine", b"the second's, which is longer", b"x"]
Damage = Callable[[np.ndarray], None]


def untouched(came: np.ndarray) -> None:
    """Leave what came as it is."""


class Comm:
    """A communicator whose first collective calls, or all, leave something else than was given."""

    def __init__(self, heads: Damage = untouched, bodies: Damage = untouched) -> None:
        self._heads, self._bodies = heads, bodies

    def Get_size(self) -> int:
        return len(GIVEN)

    def Allgather(self, own: np.ndarray, landing: np.ndarray) -> None:
        assert own.tobytes() == head(GIVEN[0])
        landing[:] = [np.frombuffer(head(given), dtype=np.uint8) for given in GIVEN]
        self._heads(landing.reshape(-1))

    def Allgatherv(self, own: np.ndarray, landing: tuple[np.ndarray, list[int]]) -> None:
        assert own.tobytes() == GIVEN[0]
        memory, lengths = landing
        assert lengths == [len(given) for given in GIVEN]
        memory[:] = np.frombuffer(b"".join(GIVEN), dtype=np.uint8)
        self._bodies(memory)


def gather(comm: Any) -> list[bytes]:
    return gathered(comm, GIVEN[0])


def test_everybody_is_given_everything() -> None:
    assert gather(Comm()) == GIVEN


@pytest.mark.parametrize("place", range(len(GIVEN) * len(head(b""))))
def test_a_damaged_head_is_noticed_before_memory_is_taken(place: int) -> None:
    def damage(came: np.ndarray) -> None:
        came[place] ^= 0x40

    with pytest.raises(Garbled, match=f"member {place // len(head(b''))}"):
        gather(Comm(heads=damage))


@pytest.mark.parametrize("place", [0, 3, 4, 20, -1])
def test_a_damaged_body_is_noticed(place: int) -> None:
    def damage(came: np.ndarray) -> None:
        came[place] ^= 1

    with pytest.raises(Garbled):
        gather(Comm(bodies=damage))


def test_nothing_but_zeros_is_nothing() -> None:
    with pytest.raises(Garbled):
        gather(Comm(heads=lambda came: came.fill(0)))


class Dying(Library):
    """A communicator of five, one of which dies in the first collective call."""

    def __init__(self, deaths: list[int]) -> None:
        super().__init__()
        self.deaths, self.revoked, self.ranks = deaths, 0, list(range(5))

    def Revoke(self) -> None:
        self.revoked += 1

    def Shrink(self) -> Dying:
        self.ranks = [rank for rank in self.ranks if rank not in self.deaths]
        return self

    def Get_group(self) -> Group:
        return Group(self.ranks)


class Whole:
    """Whom the ranks of the first communicator are."""

    def __init__(self, library: Dying) -> None:
        self._library = library

    def __getattr__(self, name: str) -> Any:
        return getattr(self._library, name)

    def Get_group(self) -> Group:
        return Group(list(range(5)))


@pytest.mark.parametrize("number", [None, Library.ERR_TRUNCATE, Library.ERR_REVOKED])
def test_a_call_that_has_left_garbage_is_repeated_among_the_survivors(
    monkeypatch: pytest.MonkeyPatch, number: int | None
) -> None:
    monkeypatch.setitem(os.environ, ENABLED, "1")
    library = Dying([3])
    failures = Failures(library, Whole(library))
    calls = []

    def operation(comm: Any, members: Any) -> str:
        calls.append(list(members))
        if len(calls) == 1:
            raise Garbled("zeros") if number is None else library.Exception(number)
        return "right"

    assert failures.together(operation) == "right"
    assert calls == [[0, 1, 2, 3, 4], [0, 1, 2, 4]]
    assert library.revoked == 1


def test_garbage_without_a_death_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, ENABLED, "1")
    library = Dying([])
    failures = Failures(library, Whole(library))

    def operation(comm: Any, members: Any) -> None:
        raise Garbled("zeros")

    with pytest.raises(ProtocolError, match="none of them has died"):
        failures.together(operation)
