"""Traces, event logs, results and systems that were damaged on disk."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest

from consensus import trace
from consensus.coding.system import System
from consensus.errors import ConfigError
from consensus.recording.log import read_log
from consensus.replay import replay
from consensus.report.load import load_run
from consensus.rules import build
from tests.experiments import in_loopback, small
from tests.fuzz import TIMES, corrupted
from tests.recordings import blocks, on_the_wire, rewrite
from tests.support.wire import star


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return in_loopback(small(tmp_path_factory.mktemp("fuzz"), "rounds = 4"), 2)


def test_traces(folder: Path, tmp_path: Path) -> None:
    data, read = (folder / "trace-0.jsonl").read_bytes(), 0
    for damaged in corrupted(data, 500 * TIMES, 5):
        path = tmp_path / "trace-0.jsonl"
        path.write_bytes(damaged)
        with contextlib.suppress(ConfigError):
            trace.read(path)
            read += 1
    assert 0 < read < 500 * TIMES


@pytest.mark.parametrize("rule", ["dtur", "gap"])
def test_event_logs(rule: str, tmp_path: Path) -> None:
    """Damaged as disks do, which checksums find, and as only somebody can who gets the checksums right."""
    on_the_wire(tmp_path, star(4), build(rule), rounds=4)
    path = tmp_path / "events-0.bin"
    whole = path.read_bytes()

    def replays() -> bool:
        with contextlib.suppress(ConfigError):
            replay(read_log(path))
            return True
        return False

    for damaged in corrupted(whole, 100 * TIMES, 12):
        path.write_bytes(damaged)
        replays()
    replayed = 0
    path.write_bytes(whole)
    for number in range(len(blocks(whole))):
        for damaged in corrupted(blocks(whole)[number], 100 * TIMES, 13):
            path.write_bytes(whole)
            rewrite(path, lambda parts: [*parts[:number], damaged, *parts[number + 1 :]])  # noqa: B023
            replayed += replays()
    assert replayed > 50 * TIMES


@pytest.mark.parametrize("name", ["summary.json", "metrics.jsonl", "config.toml", "trace-1.jsonl"])
def test_folders_of_runs(folder: Path, name: str) -> None:
    path = folder / name
    data, read = path.read_bytes(), 0
    try:
        for damaged in corrupted(data, 100 * TIMES, 6):
            path.write_bytes(damaged)
            with contextlib.suppress(ConfigError):
                load_run(folder)
                read += 1
    finally:
        path.write_bytes(data)
    assert read < 100 * TIMES


def test_systems(tmp_path: Path) -> None:
    worker = {"c": 0.1, "gamma": 3.0, "tau": 0.01, "p": 0.1, "measured": [0.1, 0.2]}
    data = json.dumps({"edges": [{"tau": 0.1, "p": 0.0, "workers": [worker, worker]}] * 2}).encode()
    path, read = tmp_path / "system.json", 0
    for damaged in corrupted(data, 300 * TIMES, 9):
        path.write_bytes(damaged)
        with contextlib.suppress(ConfigError):
            System.read(path)
            read += 1
    assert 0 < read < 300 * TIMES
