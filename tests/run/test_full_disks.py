"""Runs whose disk is full for a while, really: the kernel takes no byte more. Training goes on, and what is there stays."""

from __future__ import annotations

import errno
import logging
import os
import resource
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from consensus.checkpoint.folder import Moment
from consensus.checkpoint.store import Store
from consensus.errors import ConsensusError
from consensus.run import experiment
from consensus.run.checkpoints import FOLDER
from consensus.run.results import read_metrics, write_summary
from consensus.run.snapshots import Counts, Recorder, SnapshotFolder
from consensus.transport import loopback
from tests.experiments import in_loopback, small, summary_of
from tests.support.disks import allow, files_of_at_most

FULL_FROM, FULL_UNTIL = 5, 11
"""Rounds; a set is due every three."""


ROOM = resource.RLIM_INFINITY


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(experiment, "draw_curves", lambda runs, path: path.touch())


class Filling:
    """Rank 0's transport, which fills the disk in one round and makes room in another; it looks what is left of checkpoints."""

    def __init__(self, transport: Any, out: Path) -> None:
        self._transport, self._out = transport, out
        self.seen: list[Moment | None] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def swap(self, peer: int, round: int, peer_round: int) -> None:
        if self._transport.rank == 0 and round == FULL_FROM:
            allow(0)
        if self._transport.rank == 0 and round == FULL_UNTIL:
            (folder,) = self._out.glob("*/" + FOLDER)
            self.seen.append(Store(folder, 0, 2).newest())
            allow(ROOM)
        self._transport.swap(peer, round, peer_round)


def run(out: Path) -> tuple[Path, list[Moment | None]]:
    """A run of two ranks, and what it had of checkpoints while the disk was full."""
    settings = small(out, "rounds = 14", rule={"name": "full"}, checkpoint={"every": "3 rounds"}, evaluation={"every": 0.002})

    def body(transport: Any) -> tuple[Path, list[Moment | None]]:
        filling = Filling(transport, out)
        return experiment.run(settings, filling), filling.seen

    with files_of_at_most(ROOM):
        return loopback.run(2, body)[0]


def test_training_goes_on_with_a_word_for_each_thing_that_is_lost(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "consensus"):
        folder, seen = run(tmp_path)
    assert seen == [Moment(1, 1)]  # the old set, whole, while the disk was full
    assert summary_of(folder)["rounds"] == [14, 14]
    store = Store(folder / FOLDER, 0, 2)
    assert store.newest() is not None
    assert store.read(store.newest(), 1)["steps"] == 14  # type: ignore[arg-type]
    for rank in (0, 1):
        told = [message for message in caplog.messages if "no checkpoint was written" in message]
        assert sum(f"rank-{rank:05d}" in message for message in told) == 1
    assert sum("was not kept, the run goes on" in message for message in caplog.messages) == 2
    assert {line.accuracy >= 0 for line in read_metrics(folder)} == {True}


def test_a_disk_that_is_full_at_the_end_is_named(tmp_path: Path) -> None:
    recorder = Recorder(SnapshotFolder(tmp_path, 1), 0, 1.0, 8, lambda: [np.zeros(100, np.uint8)], lambda: Counts(0, 0, 0))
    recorder.look(1.5)
    refused = pytest.raises(ConsensusError, match="rank 0 has trained to the end, but cannot keep its last model")
    with files_of_at_most(0):
        recorder.look(3.5)
        with refused:
            recorder.end(3.5)
    assert recorder.missed == {2, 3}


class Refusing(SnapshotFolder):
    """A folder on a disk that has become read-only."""

    refuses = False

    def _file(self, mark: int | None, rank: int) -> Path:
        if self.refuses:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return super()._file(mark, rank)

    def lose(self, rank: int) -> None:
        self._file(None, rank)


def test_a_disk_that_becomes_read_only_is_spoken_of_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = Refusing(tmp_path, 2)
    recorder = Recorder(folder, 0, 1.0, 2, lambda: [np.zeros(100, np.uint8)], lambda: Counts(0, 0, 0))
    recorder.look(1.5)
    folder.refuses = True
    for seconds in (4.5, 8.5, 9.5):  # marks become too many, and old ones are to go
        recorder.look(seconds)
        recorder.lose(1)
    assert [message for message in caplog.messages if "Read-only file system" in message] == caplog.messages
    assert len(caplog.messages) == 1
    assert recorder.missed == {2, 4, 8}


def test_a_model_that_was_not_kept_takes_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(source: Path, target: Path) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "link", no_links)
    folder = SnapshotFolder(tmp_path, 1)
    folder.write(1, 0, Counts(0, 0, 0), [np.zeros(50, np.uint8)])
    with files_of_at_most(80):
        with pytest.raises(OSError, match="File too large"):
            folder.write(2, 0, Counts(0, 0, 0), [np.zeros(100, np.uint8)])
        with pytest.raises(OSError, match="File too large"):
            folder.link(1, 0, 2)
        with pytest.raises(ConsensusError, match=r"summary\.json: the results cannot be written \(File too large\); make room"):
            write_summary(tmp_path, {"name": "x" * 100})
    assert [path.name for path in tmp_path.iterdir()] == ["00000001-00000"]


def test_a_picture_that_cannot_be_written_costs_no_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def draw(runs: Any, path: Path) -> None:
        assert not (path.parent / "snapshots").exists()
        path.touch()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(experiment, "draw_curves", draw)
    folder = in_loopback(small(tmp_path, "rounds = 2"), 2)
    assert summary_of(folder)["rounds"] == [2, 2]
    assert not (folder / "curves.png").exists()
    assert "curves.png: the picture cannot be written (No space left on device); the numbers are there" in caplog.text
