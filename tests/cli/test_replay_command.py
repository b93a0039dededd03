"""``consensus replay``: what it says, and its exit codes."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from consensus.cli import app, ending
from consensus.protocol.events import ModelSwapped
from consensus.recording.decoding import Entry
from consensus.recording.log import read_log
from tests.experiments import in_loopback as run_in_loopback
from tests.experiments import small
from tests.recordings import in_loopback, rewrite


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["replay", *(str(argument) for argument in arguments)])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    in_loopback(tmp_path, 3)
    return tmp_path


def leave_out_an_exchange(path: Path) -> None:
    entry = next(item for item in read_log(path).items() if isinstance(item, Entry) and isinstance(item.event, ModelSwapped))
    rewrite(path, lambda blocks: [blocks[0], blocks[1].replace(entry.wire, b"", 1)])


def test_all_is_the_same(folder: Path) -> None:
    result = call(folder)
    assert result.exit_code == 0, result.output
    assert "decisions of 48 rounds are the same" in result.stdout
    assert result.stdout.count("complete") == 3


def test_one_rank(folder: Path) -> None:
    result = call(folder, "--rank", "1")
    assert result.exit_code == 0, result.output
    assert "decisions of 16 rounds are the same" in result.stdout
    assert "no log of rank" not in result.stdout


def test_a_run_and_several_runs(tmp_path: Path) -> None:
    first = run_in_loopback(small(tmp_path, "rounds = 2"), 2)
    assert "decisions of 4 rounds are the same" in call(first).stdout
    run_in_loopback(small(tmp_path, "rounds = 3"), 2)
    result = call(tmp_path)
    assert result.exit_code == 0, result.output
    assert str(first) in result.stdout
    assert "decisions of 6 rounds are the same" in result.stdout


def test_a_difference_is_told_with_its_story(folder: Path) -> None:
    leave_out_an_exchange(folder / "events-2.bin")
    result = call(folder)
    assert result.exit_code == ending.FAILED
    for words in ("differ at event", "rank 2, event", "recorded  ", "replayed  ", "last events:", "s ago  StepDone()", "edge to"):
        assert words in result.stdout
    assert "are the same" not in result.stdout
    assert result.stderr == ""


def test_damage_is_told_and_the_other_ranks_are_replayed(folder: Path) -> None:
    path = folder / "events-1.bin"
    data = bytearray(path.read_bytes())
    data[-20] ^= 4
    path.write_bytes(data)
    result = call(folder)
    assert result.exit_code == ending.FAILED
    assert "log of rank 1: the block at byte" in result.stdout
    assert result.stdout.count("complete") == 2
    assert "are the same" not in result.stdout


def test_what_is_incomplete_is_said(folder: Path) -> None:
    (folder / "events-0.bin").unlink()
    path = folder / "events-1.bin"
    path.write_bytes(path.read_bytes()[:-50])
    result = call(folder)
    assert result.exit_code == 0, result.output
    assert "no log of rank 0: not replayed" in result.stdout
    assert "log of rank 1: cut off" in result.stdout
    assert "rounds are the same" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run-11"], ["no such folder", "did you mean 'run-1'?"]),
        (["run-1"], ["not the folder of a run"]),
        (["run-2"], ["no event logs", "run.record"]),
        (["run-3", "--rank", "7"], ["no events-7.bin", "events-0.bin, events-1.bin, events-2.bin"]),
        (["run-2", "--rank", "7"], ["no events-7.bin", "no event logs"]),
    ],
)
def test_a_mistake_is_one_clean_message(tmp_path: Path, arguments: list[str], words: list[str]) -> None:
    for name in ("run-1", "run-2", "run-3"):
        (tmp_path / name).mkdir()
    (tmp_path / "run-2" / "config.toml").write_text("")
    in_loopback(tmp_path / "run-3", 3)
    result = call(tmp_path / arguments[0], *arguments[1:])
    assert result.exit_code == ending.WRONG_USE
    assert result.stderr.startswith("error: ")
    assert all(word in result.stderr for word in words), result.stderr
