"""Models as of marks: files that are complete when they are seen."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from consensus.errors import ProtocolError
from consensus.run.evaluator import newest
from consensus.run.marks import kept
from consensus.run.snapshots import Counts, Recorder, SnapshotFolder

COUNTS = Counts(samples=30, rounds=4, backups=1)


def model(value: int, size: int = 100) -> list[np.ndarray]:
    """A model of two regions."""
    return [np.full(size, value, np.uint8), np.full(3, value + 1, np.uint8)]


def value_of(folder: SnapshotFolder, mark: int | None, rank: int = 0) -> int:
    return int(folder.read(mark)[rank].model[0])


def recorder(folder: SnapshotFolder, take: Callable[[], Any], limit: int = 8, rank: int = 0) -> Recorder:
    return Recorder(folder, rank, 1.0, limit, take, lambda: COUNTS)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    folder = SnapshotFolder(tmp_path, 2)
    folder.write(3, 0, COUNTS, model(7))
    folder.write(3, 1, Counts(1, 2, 3), model(9))
    first, second = folder.read(3)
    assert (first.counts, second.counts) == (COUNTS, Counts(1, 2, 3))
    assert first.model.tolist() == [7] * 100 + [8] * 3
    assert second.model.tolist() == [9] * 100 + [10] * 3
    assert not list(tmp_path.glob("*.tmp"))


def test_what_is_read_may_be_changed_without_harm(tmp_path: Path) -> None:
    folder = SnapshotFolder(tmp_path, 1)
    folder.write(1, 0, COUNTS, model(7))
    folder.read(1)[0].model[:] = 0
    assert value_of(folder, 1) == 7


def test_a_mark_is_complete_when_all_ranks_have_it(tmp_path: Path) -> None:
    folder = SnapshotFolder(tmp_path, 2)
    folder.write(1, 0, COUNTS, model(1))
    assert not folder.complete(1)
    with pytest.raises(FileNotFoundError, match="no snapshot of rank 1 at mark 1"):
        folder.read(1)
    folder.write(1, 1, COUNTS, model(2))
    assert folder.complete(1)


def test_a_link_outlives_what_it_was_made_from(tmp_path: Path) -> None:
    folder = SnapshotFolder(tmp_path, 1)
    folder.write(1, 0, COUNTS, model(5))
    folder.link(1, 0, 2)
    folder.drop(1, 0)
    folder.drop(1, 0)
    assert folder.marks(0) == [2]
    assert value_of(folder, 2) == 5


def test_a_file_system_without_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(source: object, target: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "link", refuse)
    folder = SnapshotFolder(tmp_path, 1)
    folder.write(1, 0, COUNTS, model(5))
    folder.link(1, 0, 2)
    assert (folder.marks(0), value_of(folder, 2)) == ([1, 2], 5)


def test_the_last_model_stands_for_all_later_marks(tmp_path: Path) -> None:
    folder = SnapshotFolder(tmp_path, 2)
    for rank in 0, 1:
        folder.write(1, rank, COUNTS, model(1))
    folder.write(2, 0, COUNTS, model(2))
    folder.write(None, 1, COUNTS, model(9))
    assert folder.complete(2)
    assert (value_of(folder, 1, rank=1), value_of(folder, 2, rank=1)) == (1, 9)
    assert not folder.complete(3)


def test_the_last_model_does_not_stand_for_an_earlier_mark(tmp_path: Path) -> None:
    """A rank that is ahead has dropped marks that one behind still keeps."""
    folder = SnapshotFolder(tmp_path, 2)
    for mark in 1, 2, 3:
        folder.write(mark, 0, COUNTS, model(mark))
    for mark in 2, 4:
        folder.write(mark, 1, COUNTS, model(mark))
    folder.write(None, 1, COUNTS, model(9))
    assert not folder.complete(3)
    with pytest.raises(FileNotFoundError, match="rank 1 at mark 3"):
        folder.read(3)
    assert folder.complete(2)


@pytest.mark.parametrize("damage", [b"", b"CSNAP001", b"CSNAP999" + b"\0" * 100])
def test_a_damaged_file_is_refused(tmp_path: Path, damage: bytes) -> None:
    folder = SnapshotFolder(tmp_path, 1)
    folder.write(1, 0, COUNTS, model(1))
    (path,) = tmp_path.iterdir()
    path.write_bytes(damage)
    with pytest.raises(ProtocolError, match="no snapshot of this version"):
        folder.read(1)


def test_a_recorder_keeps_the_model_that_was_there_at_the_mark(tmp_path: Path) -> None:
    folder = SnapshotFolder(tmp_path, 1)
    values = iter(range(100))
    keeper = recorder(folder, lambda: model(next(values)))
    for seconds in (0.5, 0.99, 1.0, 1.5, 2.2):
        keeper.look(seconds)
    assert {mark: value_of(folder, mark) for mark in folder.marks(0)} == {1: 0, 2: 1}
    keeper.end(2.7)
    assert (folder.marks(0), value_of(folder, None), value_of(folder, 50)) == ([1, 2], 2, 2)


def test_a_recorder_that_slept_past_marks_keeps_one_model_for_all(tmp_path: Path) -> None:
    folder = SnapshotFolder(tmp_path, 1)
    taken = []

    def take() -> list[np.ndarray]:
        taken.append(True)
        return model(4)

    recorder(folder, take).look(5.5)
    assert (folder.marks(0), len(taken)) == ([1, 2, 3, 4, 5], 1)
    assert {value_of(folder, mark) for mark in folder.marks(0)} == {4}


def test_recorders_at_different_times_agree(tmp_path: Path) -> None:
    folder = SnapshotFolder(tmp_path, 2)
    steady, sleepy = recorder(folder, lambda: model(1), 4), recorder(folder, lambda: model(2), 4, rank=1)
    for tenth in range(1, 380):
        steady.look(tenth / 10)
        assert len(folder.marks(0)) <= 4
        if tenth % 71 == 0:
            sleepy.look(tenth / 10)
    steady.end(38.0)
    sleepy.end(38.0)
    assert folder.marks(0) == folder.marks(1) == list(kept(38, 4))


def test_the_newest_mark_is_the_last_that_all_have(tmp_path: Path) -> None:
    folder = SnapshotFolder(tmp_path, 2)
    assert newest(folder, 8, 0) is None
    for rank, latest in ((0, 4), (1, 3)):
        for mark in range(1, latest + 1):
            folder.write(mark, rank, COUNTS, model(mark))
    assert (newest(folder, 8, 0), newest(folder, 8, 2), newest(folder, 8, 3)) == (3, 3, None)


def test_the_dead_are_waited_for_no_more(tmp_path: Path) -> None:
    folder = SnapshotFolder(tmp_path, 3)
    for rank in (0, 2):
        folder.write(4, rank, Counts(1, 1, 0), [np.zeros(8, np.uint8)])
    assert not folder.complete(4)
    assert newest(folder, 8, 0) is None
    folder.lose(1)
    living = folder.living()
    assert list(living.ranks) == [0, 2]
    assert living.complete(4)
    assert newest(folder, 8, 0) == 4
    assert len(living.read(4)) == 2
    assert folder.marks(0) == [4]
