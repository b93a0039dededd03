"""Whenever a writer dies, the newest set is whole, and no older than the last that was complete."""

from __future__ import annotations

import itertools
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import pytest

from consensus.checkpoint.folder import Moment
from consensus.checkpoint.store import Store

ROOT = Path(__file__).resolve().parents[2]
RANKS = 2
KILLS = 20


@contextmanager
def writers() -> Iterator[tuple[Callable[[Path], None], Iterator[str]]]:
    """A process that forks writers: how to start one, and what they say."""
    script = Path(__file__).with_name("killed_writer.py")
    with subprocess.Popen(
        [sys.executable, str(script)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def begin(folder: Path) -> None:
            assert process.stdin is not None
            process.stdin.write(f"{folder}\n")
            process.stdin.flush()

        yield begin, iter(process.stdout)
        process.stdin.close()


def test_killed_at_random_moments(tmp_path: Path) -> None:
    rng = random.Random(3)
    store = Store(tmp_path, 0, RANKS)
    done = Moment(0, 0)
    with writers() as (begin, said):
        for _ in range(KILLS):
            begin(tmp_path)
            pid = int(next(said).removeprefix("writer "))
            for line in itertools.islice(said, rng.randrange(4)):
                done = Moment(*map(int, line.split()))
            time.sleep(rng.uniform(0, 0.02))  # waits for nothing: the moment is to be any
            os.kill(pid, signal.SIGKILL)
            for line in itertools.takewhile("ended\n".__ne__, said):
                done = Moment(*map(int, line.split()))
            newest = store.newest()
            if newest is None:
                assert done == (0, 0)
                continue
            assert newest >= done
            for rank in range(RANKS):
                state = store.read(newest, rank)
                assert (state["start"], state["number"], state["rank"]) == (*newest, rank)
                assert set(state["weight"].tolist()) == {1000.0 * newest.start + newest.number}
    assert done > (0, 0)


class Killed(BaseException):
    """What no cleaning up survives: everything after it fails alike."""


OPERATIONS = [(os, "fsync"), (Path, "mkdir"), (Path, "open"), (Path, "replace"), (Path, "unlink"), (Path, "rmdir")]


def kill_at(patch: pytest.MonkeyPatch, number: int) -> None:
    """Let the ``number``-th operation on the disk, and all after it, not happen."""
    calls = itertools.count(1)

    def counted(real: Callable[..., object]) -> Callable[..., object]:
        def operation(*arguments: object, **keywords: object) -> object:
            if next(calls) >= number:
                die()
            return real(*arguments, **keywords)

        return operation

    for owner, name in OPERATIONS:
        patch.setattr(owner, name, counted(getattr(owner, name)))


def die() -> NoReturn:
    raise Killed


def test_killed_before_every_operation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    ended = False
    for number in itertools.count(1):
        folder = tmp_path / str(number)
        complete = Moment(1, 0)
        with monkeypatch.context() as patch:
            kill_at(patch, number)
            try:
                stores = [Store(folder, rank, RANKS, keep=1) for rank in range(RANKS)]
                for at in (1, 2, 3):
                    for rank, store in enumerate(stores):
                        store.write(at, {"number": at, "rank": rank}, last=at == 3)
                    complete = Moment(1, at)
                ended = True
            except Killed:
                pass
        store = Store(folder, 0, RANKS)
        newest = store.newest()
        assert newest is None if complete.number == 0 and newest is None else newest >= complete
        if newest is not None:
            assert [store.read(newest, rank) for rank in range(RANKS)] == [
                {"number": newest.number, "rank": rank} for rank in range(RANKS)
            ]
        assert caplog.messages == []
        for rank in range(RANKS):
            assert Store(folder, rank, RANKS, keep=1, start=2).write(1, {})
        files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
        assert files[:3] == [
            "checkpoint-0002-00000001/rank-00000.ckpt",
            "checkpoint-0002-00000001/rank-00001.ckpt",
            "manifest.json",
        ]
        assert all(name.startswith("manifest.json.") for name in files[3:])
        if ended:
            break
    assert number > 60
