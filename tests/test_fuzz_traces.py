"""Traces, results and systems that were damaged on disk."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest

from consensus import trace
from consensus.coding.system import System
from consensus.errors import ConfigError
from consensus.report.load import load_run
from tests.experiments import in_loopback, small
from tests.fuzz import TIMES, corrupted


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
