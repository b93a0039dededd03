"""Damaged files are found, whatever the damage, and disks that are full or read-only end no run."""

from __future__ import annotations

import errno
import logging
import os
import pickle
import random
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from consensus.checkpoint import file as files
from consensus.checkpoint.file import Header, read_checkpoint, read_header, verify, write_checkpoint
from consensus.checkpoint.folder import Moment
from consensus.checkpoint.store import Store
from consensus.errors import CheckpointError
from tests.fuzz import TIMES, corrupted
from tests.support.disks import files_of_at_most

BEFORE, NEWEST = Moment(1, 1), Moment(1, 2)


def state(number: int, rank: int, numel: int = 500) -> dict[str, Any]:
    return {"number": number, "rank": rank, "weight": torch.full((numel,), float(number))}


@pytest.fixture
def two_sets(tmp_path: Path) -> Path:
    for number in (1, 2):
        for rank in (0, 1):
            assert Store(tmp_path, rank, 2).write(number, state(number, rank))
    return tmp_path


def flip(content: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(len(content))
    return content[:place] + bytes([content[place] ^ 1 << rng.randrange(8)]) + content[place + 1 :]


def truncate(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(len(content))]


def extend(content: bytes, rng: random.Random) -> bytes:
    return content + rng.randbytes(rng.randrange(1, 100))


def overwrite(content: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(content))
    return content[:start] + bytes(rng.randrange(1, 5000))[: len(content) - start - 1] + b"\1" + rng.randbytes(3)


@pytest.mark.parametrize("damage", [flip, truncate, extend, overwrite])
def test_any_damage_is_found_and_the_set_before_is_used(
    two_sets: Path, caplog: pytest.LogCaptureFixture, damage: Callable[[bytes, random.Random], bytes]
) -> None:
    rng = random.Random(1)
    store = Store(two_sets, 0, 2)
    for _ in range(100):
        rank = rng.randrange(2)
        path = two_sets / str(NEWEST) / f"rank-{rank:05d}.ckpt"
        content = path.read_bytes()
        damaged = damage(content, rng)
        if damaged == content:
            continue
        path.write_bytes(damaged)
        caplog.clear()
        with caplog.at_level(logging.WARNING, "consensus"):
            assert store.newest() == BEFORE
        (message,) = caplog.messages
        assert str(path) in message
        for read in (read_checkpoint, verify):
            with pytest.raises(CheckpointError, match=path.name):
                read(path)
        with pytest.raises(CheckpointError, match=path.name):
            store.read(NEWEST, rank)
        path.write_bytes(content)
    assert store.newest() == NEWEST


def test_checkpoints_manifests_and_headers_at_random(two_sets: Path) -> None:
    """What is read of a damaged file is what was written, or an error that names it; all sets go through every reader."""
    refused = 0
    for path in (two_sets / str(NEWEST) / "rank-00001.ckpt", two_sets / "manifest.json"):
        content = path.read_bytes()
        for damaged in corrupted(content, 200 * TIMES, 11):
            path.write_bytes(damaged)
            assert Store(two_sets, 0, 2).newest() in (BEFORE, NEWEST)
            if path.suffix == ".ckpt":
                for read in (read_checkpoint, read_header, verify):
                    with suppress(CheckpointError):
                        read(path)
                        assert damaged == content or read is read_header
                        continue
                    refused += 1
        path.write_bytes(content)
    assert refused > 200 * TIMES


def test_every_byte_of_the_header_counts(two_sets: Path) -> None:
    path = two_sets / str(NEWEST) / "rank-00000.ckpt"
    content = path.read_bytes()
    end = len(content) - read_header(path).length
    assert end > 200
    for place in range(end):
        path.write_bytes(content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :])
        with pytest.raises(CheckpointError, match=path.name):
            read_header(path)


def test_if_all_is_damaged_there_is_nothing(two_sets: Path, caplog: pytest.LogCaptureFixture) -> None:
    for path in two_sets.glob("*/rank-00001.ckpt"):
        path.write_bytes(b"")
    with caplog.at_level(logging.WARNING, "consensus"):
        assert Store(two_sets, 0, 2).newest() is None
    assert len(caplog.messages) == 2


def test_a_damaged_last_file_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    stores = [Store(tmp_path, rank, 2) for rank in (0, 1)]
    for rank, store in enumerate(stores):
        store.write(1, state(1, rank))
    for rank, store in enumerate(stores):
        store.write(2, state(2, rank), last=True)
    path = tmp_path / "checkpoint-0001-last" / "rank-00001.ckpt"
    path.write_bytes(truncate(path.read_bytes(), random.Random(2)))
    with caplog.at_level(logging.WARNING, "consensus"):
        assert stores[0].newest() == BEFORE
    assert str(path) in caplog.text


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "truncated to 0 bytes"),
        (files.MAGIC, "truncated to 16 bytes"),
        (b"PK\3\4" + bytes(100), "no checkpoint"),
        (b"no checkpoint at all, but text", "it begins with b'no checkpoint at'"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "rank-00000.ckpt"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=words):
        read_header(path)


def test_what_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="missing, expected a checkpoint"):
        verify(tmp_path / "rank-00000.ckpt")
    with pytest.raises(CheckpointError, match="cannot be read"):
        verify(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="missing"):
        Store(tmp_path / "file", 0, 1).read(BEFORE, 0)


class _Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("executed",)


def test_code_in_a_checkpoint_is_not_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(files, "encoded", lambda value: value)
    path = tmp_path / "rank-00000.ckpt"
    write_checkpoint(path, Header(1, 1, 0, 1), _Evil())
    with pytest.raises(CheckpointError, match="undamaged, but torch"):
        read_checkpoint(path)
    pickle.loads(pickle.dumps(_Evil()))
    assert (tmp_path / "executed").is_dir()  # it would have been


def test_what_no_checkpoint_can_hold_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"state\.hook is"):
        Store(tmp_path, 0, 1).write(1, {"hook": print})
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_disk_that_fills_up_within_a_file(two_sets: Path, caplog: pytest.LogCaptureFixture) -> None:
    store, before = Store(two_sets, 0, 2), contents(two_sets)
    with caplog.at_level(logging.WARNING, "consensus"):
        with files_of_at_most(64 * 1024):
            written = [store.write(number, state(number, 0, numel=50_000)) for number in (3, 4, 5)]
        assert written == [False] * 3
        (message,) = caplog.messages
        assert "no checkpoint was written" in message
        assert os.strerror(errno.EFBIG) in message
        assert contents(two_sets) == before
        assert store.newest() == NEWEST
        assert store.write(6, state(6, 0))
        with files_of_at_most(1024):
            assert not store.write(7, state(7, 0))
    assert len(caplog.messages) == 2  # it had succeeded in between


def failing(number: int) -> Callable[..., Any]:
    def fail(*_: Any, **__: Any) -> Any:
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT, errno.EIO])
@pytest.mark.parametrize("target", [(Path, "mkdir"), (Path, "open"), (os, "fsync"), (Path, "replace")])
def test_a_disk_that_takes_nothing(
    two_sets: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, number: int, target: tuple[Any, str]
) -> None:
    store, before = Store(two_sets, 0, 2), contents(two_sets)
    with caplog.at_level(logging.WARNING, "consensus"), monkeypatch.context() as patch:
        patch.setattr(*target, failing(number))
        assert [store.write(at, state(at, 0)) for at in (3, 4)] == [False, False]
    (message,) = caplog.messages
    assert os.strerror(number) in message
    assert contents(two_sets) == before
    assert store.newest() == NEWEST


def test_even_if_nothing_can_be_removed(two_sets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(two_sets, 0, 2)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", failing(errno.EROFS))
        patch.setattr(Path, "unlink", failing(errno.EROFS))
        assert not store.write(3, state(3, 0))
    assert store.newest() == NEWEST


def test_a_checkpoint_counts_though_old_ones_cannot_be_removed(
    two_sets: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    stores = [Store(two_sets, rank, 2, keep=1) for rank in (0, 1)]
    with caplog.at_level(logging.WARNING, "consensus"), monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", failing(errno.EPERM))
        for number in (3, 4):
            for rank, store in enumerate(stores):
                assert store.write(number, state(number, rank))
    (message,) = caplog.messages
    assert "old ones were not removed" in message
    assert stores[0].newest() == Moment(1, 4)
    for rank, store in enumerate(stores):
        assert store.write(5, state(5, rank))
    assert sorted(path.name for path in two_sets.iterdir() if path.is_dir()) == [str(Moment(1, 5))]


def test_a_folder_that_cannot_be_looked_into(two_sets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "iterdir", failing(errno.EACCES))
    with pytest.raises(CheckpointError, match="check that you may read it"):
        Store(two_sets, 0, 2).newest()


def test_file_systems_that_cannot_synchronise_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.fsync

    def fsync(number: int) -> None:
        if Path(f"/proc/self/fd/{number}").is_dir():
            failing(errno.EINVAL)()
        real(number)

    monkeypatch.setattr(os, "fsync", fsync)
    store = Store(tmp_path, 0, 1)
    assert store.write(1, {})
    assert store.newest() == Moment(1, 1)
