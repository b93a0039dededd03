"""When a job outlives its ranks, and what is made of the library's errors; with real deaths in test_dead_ranks.py."""

from __future__ import annotations

import math
import os
import signal
from typing import Any

import pytest

from consensus.transport.failures import DETECTOR, ENABLED, SURVIVAL, Failures, JobEnded, outlives, prepare


class LibraryError(Exception):
    """An error of the library below."""

    def __init__(self, number: int) -> None:
        self.number = number

    def Get_error_class(self) -> int:
        return self.number


class Group:
    """Some ranks of a communicator."""

    def __init__(self, ranks: list[int]) -> None:
        self.ranks = ranks

    def Get_size(self) -> int:
        return len(self.ranks)

    def Translate_ranks(self, numbers: range, group: Group) -> list[int]:
        return [group.ranks.index(self.ranks[number]) for number in numbers]


class Library:
    """A communicator of five and its library."""

    Exception = LibraryError
    ERR_PROC_FAILED, ERR_PROC_FAILED_PENDING, ERR_IN_STATUS, ERR_REVOKED, ERR_TRUNCATE = range(5)
    ERRORS_RETURN = "return"
    Request: Any = None

    def __init__(self, knows: bool = True) -> None:
        self.knows = knows
        self.failed: list[int] = []
        self.acknowledged = 0
        self.looks = 0
        self.ended_at: float = math.inf
        self.rank = 0
        self.Request = self

    def Get_size(self) -> int:
        return 5

    def Get_rank(self) -> int:
        return self.rank

    def Get_group(self) -> Group:
        return Group(list(range(5)))

    def Get_failed(self) -> Group:
        if not self.knows:
            raise NotImplementedError
        return Group(self.failed)

    def Ack_failed(self, count: int) -> None:
        self.acknowledged = count

    def Set_errhandler(self, handler: str) -> None:
        self.handler = handler

    def Dup(self) -> Library:
        return self

    def Iagree(self, flag: Any) -> Library:
        return self

    def Test(self) -> bool:
        """Agreement takes some looks."""
        self.looks += 1
        return self.looks > 3

    def Is_revoked(self) -> bool:
        return self.looks >= self.ended_at

    def Testsome(self, sends: list[int]) -> None:
        """Each look finds one send to a dead rank, -1, and raises."""
        if -1 in sends:
            sends[sends.index(-1)] = 0
            raise LibraryError(self.ERR_IN_STATUS)


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Library:
    monkeypatch.setenv(ENABLED, "1")
    return Library()


@pytest.mark.parametrize(
    ("environment", "knows", "expected"),
    [({}, True, False), ({ENABLED: "0"}, True, False), ({ENABLED: "true"}, True, True), ({ENABLED: "1"}, False, False)],
)
def test_both_launcher_and_library_have_to_agree(environment: dict[str, str], knows: bool, expected: bool) -> None:
    library = Library(knows)
    assert outlives(library, library, environment) is expected


def test_the_library_is_told_where_ranks_may_die() -> None:
    alone: dict[str, str] = {}
    prepare(alone)
    told, own = {ENABLED: "1"}, {ENABLED: "1", **dict.fromkeys(SURVIVAL, "own")}
    prepare(told)
    prepare(own)
    assert (alone, told) == ({}, {ENABLED: "1", **SURVIVAL})
    assert own == {ENABLED: "1", **dict.fromkeys(SURVIVAL, "own")}


def test_nothing_is_caught_where_a_death_ends_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ENABLED, raising=False)
    library = Library()
    failures = Failures(library, library)
    assert not failures.outlived
    assert failures.caught == ()

    def fails(comm: Any, members: Any) -> None:
        raise LibraryError(library.ERR_PROC_FAILED)

    with pytest.raises(LibraryError):
        failures.together(fails)


def test_a_death_is_found_once(library: Library) -> None:
    failures = Failures(library, library)
    library.failed = [3, 1]
    assert failures.fallen(LibraryError(library.ERR_IN_STATUS)) == [1, 3]
    assert (failures.dead, library.acknowledged) == ({1, 3}, 2)
    # The receive from anybody raises once more for a death that another rank has told of.
    assert failures.fallen(LibraryError(library.ERR_PROC_FAILED_PENDING)) == []


@pytest.mark.parametrize(("detector", "failed", "ended"), [("1", [1, 2], 0), ("1", [1, 2, 4], 1), ("0", [1, 2, 4], 0)])
def test_with_a_detector_a_smaller_part_ends_itself(
    library: Library,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    detector: str,
    failed: list[int],
    ended: int,
) -> None:
    monkeypatch.setenv(DETECTOR, detector)
    kills: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "kill", lambda *call: kills.append(call))
    library.failed = failed
    Failures(library, library).fallen(LibraryError(library.ERR_IN_STATUS))
    assert kills == [(os.getpid(), signal.SIGKILL)] * ended
    assert ("only of [0, 3]: it has been cut off" in capsys.readouterr().err) == bool(ended)


@pytest.mark.parametrize("number", [Library.ERR_TRUNCATE, Library.ERR_IN_STATUS])
def test_errors_without_a_death_are_errors(library: Library, number: int) -> None:
    with pytest.raises(LibraryError):
        Failures(library, library).fallen(LibraryError(number))


def test_sends_to_the_dead_are_swept_away(library: Library) -> None:
    assert Failures(library, library).sweep([-1, 7, -1, 0]) == [7]


def test_what_all_have_done_is_done(library: Library) -> None:
    assert Failures(library, library).together(lambda comm, members: list(members)) == [0, 1, 2, 3, 4]
    assert library.looks == 4


@pytest.mark.parametrize("ended_at", [0, 2])
def test_where_another_rank_ends_with_an_error_this_one_does(
    library: Library, capsys: pytest.CaptureFixture[str], ended_at: int
) -> None:
    """Seen by a failed call, or while this rank waits for agreement, which nothing interrupts."""
    library.ended_at = library.rank = ended_at

    def operation(comm: Any, members: Any) -> str:
        if not ended_at:
            raise LibraryError(library.ERR_REVOKED)
        return "done"

    with pytest.raises(JobEnded) as end:
        Failures(library, library).together(operation)
    assert end.value.code == 1
    assert library.looks == ended_at
    assert f"rank {ended_at} ends, for another rank has ended with an error" in capsys.readouterr().err
