"""A rank's rounds as lines of JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from consensus.driver import RoundTimes
from consensus.errors import ConfigError
from consensus.protocol.rounds import Exchange, RoundRecord
from consensus.trace import FORMAT, VERSION, Trace, TracedRound, TraceWriter, read


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """Two rounds of the exchange, one of all-reduce."""
    path = tmp_path / "trace-3.jsonl"
    with TraceWriter(path, rank=3, origin=100.0, started=1.7e9) as writer:
        exchanges = (Exchange(1, 2, 0.25, 100.5, 100.625), Exchange(4, 1, 0.25, 100.625, 100.75))
        writer.write(RoundRecord(1, 100.5, 100.75, exchanges, (7,), "why"), RoundTimes(0.5, 0.2, 0.05), 999.0)
        writer.write(RoundRecord(2, 101.0, 101.0, (), (1, 4, 7), ""), RoundTimes(0.25, 0.0, 0.0), 999.0)
        writer.write(None, RoundTimes(0.25, 0.5, 0.25), 102.0)
    return path


def test_what_is_written_is_read(written: Path) -> None:
    assert read(written) == Trace(
        3,
        1.7e9,
        [
            TracedRound(1, 0.5, 0.75, 0.5, 0.2, 0.05, ((1, 2, 0.5, 0.625), (4, 1, 0.625, 0.75)), (7,), "why"),
            TracedRound(2, 1.0, 1.0, 0.25, 0.0, 0.0, (), (1, 4, 7), ""),
            TracedRound(3, 1.25, 2.0, 0.25, 0.5, 0.25, (), (), "all-reduce"),
        ],
    )


def test_a_trace_without_rounds(tmp_path: Path) -> None:
    with TraceWriter(tmp_path / "t", rank=0, origin=0.0, started=1.0):
        pass
    assert read(tmp_path / "t") == Trace(0, 1.0, [])


def test_another_version(written: Path) -> None:
    written.write_text(written.read_text().replace('"version":2', '"version":1'))
    with pytest.raises(ConfigError, match="a trace of version 1, but this program reads version 2"):
        read(written)


def test_a_line_cut_off(written: Path) -> None:
    written.write_text(written.read_text()[:-20])
    with pytest.raises(ConfigError, match="line 4 is cut off"):
        read(written)
    written.write_text("".join(line + "\n" for line in written.read_text().split("\n")[:-1]))
    assert len(read(written).rounds) == 2


@pytest.mark.parametrize(
    ("number", "line", "said"),
    [
        (0, "hello", "line 1 is no JSON"),
        (0, '{"format": "other"}', "its first line does not say 'consensus-trace'"),
        (0, "[1, 2]", "no trace"),
        (2, "{", "line 3 is no JSON"),
        (2, "{}", "line 3 is no round of a trace"),
        (2, '{"exchanges": [], "backups": [], "more": 1}', "line 3 is no round of a trace"),
    ],
)
def test_other_damage(written: Path, number: int, line: str, said: str) -> None:
    lines = written.read_text().split("\n")
    lines[number] = line
    written.write_text("\n".join(lines))
    with pytest.raises(ConfigError, match=said):
        read(written)


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read as a trace"):
        read(tmp_path / "trace-0.jsonl")


@pytest.mark.parametrize("kept", ["rank", "clock"])
def test_a_header_that_lacks_something_is_refused(tmp_path: Path, kept: str) -> None:
    path = tmp_path / "trace-0.jsonl"
    whole = {"format": FORMAT, "version": VERSION, "rank": 0, "clock": {"started": 0.0}}
    path.write_text(json.dumps({name: whole[name] for name in ("format", "version", kept)}) + "\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="line 1 is damaged"):
        read(path)
