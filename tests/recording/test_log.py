"""Event logs as files: written under way, read whole, cut off, damaged or mixed."""

from __future__ import annotations

import json
import logging
import math
import struct
from pathlib import Path
from typing import Any

import pytest

from consensus.errors import ConfigError
from consensus.protocol.events import Control, StepDone
from consensus.protocol.messages import Ready
from consensus.protocol.neighbour import NeighbourEngine
from consensus.recording.decoding import Entry
from consensus.recording.folder import find_logs, missing
from consensus.recording.log import Clock, Ended, Ending, Session, read_log
from consensus.recording.writer import BLOCK_BYTES, MAGIC, EventWriter
from consensus.replay import replay
from consensus.rules import build
from consensus.rules.gap import Gap
from tests.recordings import fresh, in_loopback, on_the_wire, rewrite

PAIR = {0: (1,), 1: (0,)}


def step(writer: EventWriter, engine: NeighbourEngine, now: float) -> None:
    writer.record(now, StepDone(), engine.handle(StepDone(), now))


def repeat(writer: EventWriter, events: int) -> None:
    """Events that change nothing, and take 16 bytes each."""
    for number in range(events):
        writer.record(1.0 + number, Control(1, Ready(1)), [])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "events-0.bin"


@pytest.fixture
def short(path: Path) -> Path:
    """A session of one event."""
    engine = fresh(Gap(window=3))
    with EventWriter(path, run="r") as writer:
        writer.begin(engine)
        writer.set_clock(1.5, 1.7e9)
        step(writer, engine, 2.0)
    return path


def ending(path: Path) -> Ended:
    *_, last = read_log(path).items()
    assert isinstance(last, Ended)
    return last


def test_what_is_written_is_read(short: Path) -> None:
    log = read_log(short)
    assert (log.rank, log.size, log.run, log.weights, log.everyone) == (0, 3, "r", "static", True)
    assert log.adjacency == {0: (1, 2), 1: (0,), 2: (0,)}
    assert build(log.rule, **log.parameters) == Gap(window=3)
    session, clock, entry, ended = log.items()
    assert (session, clock) == (Session(), Clock(1.5, 1.7e9))
    assert isinstance(entry, Entry)
    assert entry[:4] == (2.0, StepDone(), ("SendControl(Ready)",) * 2, None)
    assert ended == Ended(Ending.COMPLETE, "")


def test_when_neighbours_count_as_silent_is_kept(path: Path) -> None:
    for seconds in (2.5, math.inf):
        with EventWriter(path) as writer:
            writer.begin(NeighbourEngine(0, PAIR, build("gap"), stuck_after=seconds))
        assert read_log(path).stuck_after == seconds


def test_what_comes_after_the_end_is_not_recorded(path: Path) -> None:
    engine = fresh(build("full"))
    writer = EventWriter(path)
    writer.begin(engine)
    writer.close()
    size = path.stat().st_size
    step(writer, engine, 1.0)
    writer.begin(fresh(build("full")))
    writer.set_clock(0.0, 0.0)
    writer.close()
    assert path.stat().st_size == size


def test_a_writer_that_is_never_used_leaves_no_file(path: Path) -> None:
    with EventWriter(path) as writer:
        repeat(writer, 0)
    assert not path.exists()


def test_a_rank_that_fails_leaves_a_log_without_an_end(path: Path) -> None:
    engine = fresh(build("full"))
    writer = EventWriter(path)
    writer.begin(engine)
    step(writer, engine, 1.0)
    writer.__exit__(KeyError, KeyError(), None)
    assert ending(path).ending is Ending.OPEN
    assert replay(read_log(path)).events == 1


def test_a_log_can_be_read_while_it_is_written(path: Path) -> None:
    engine = fresh(build("full"))
    with EventWriter(path) as writer:
        writer.begin(engine)
        assert ending(path).ending is Ending.OPEN
        repeat(writer, BLOCK_BYTES // 16)
        assert sum(isinstance(item, Entry) for item in read_log(path).items()) > 2000
    assert ending(path).ending is Ending.COMPLETE


def test_recording_stops_at_the_limit(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    engine = fresh(build("full"))
    with caplog.at_level(logging.WARNING, "consensus"), EventWriter(path, limit=100_000) as writer:
        writer.begin(engine)
        repeat(writer, 100_000)
        size = path.stat().st_size
        writer.begin(fresh(build("full")))
        repeat(writer, 10)
    assert 100_000 - 100_000 / 8 < path.stat().st_size == size <= 100_000 + 20
    (record,) = caplog.records
    assert "recording of events stopped at its limit" in record.message
    assert ending(path).ending is Ending.LIMIT
    assert replay(read_log(path)).agrees


def test_the_limit_holds_for_the_end_as_well(path: Path) -> None:
    with EventWriter(path, limit=800) as writer:
        writer.begin(fresh(build("full")))
        for _ in range(70):
            writer._buffer.extend(b"\x08" + bytes(9))
    assert ending(path).ending is Ending.LIMIT


class Full:
    """A file on a disk that takes 50 bytes more."""

    def __init__(self, file: Any) -> None:
        self.file = file

    def write(self, data: bytes) -> int:
        return int(self.file.write(data[:50]))

    def close(self) -> None:
        self.file.close()


def test_a_full_disk_ends_the_recording_and_not_the_run(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    engine = fresh(build("full"))
    with caplog.at_level(logging.WARNING, "consensus"), EventWriter(path) as writer:
        writer.begin(engine)
        writer._file = Full(writer._file)
        repeat(writer, 10_000)
    (record,) = caplog.records
    assert "recording of events stopped, the run goes on: only 50 of" in record.message
    assert ending(path).ending is Ending.CUT


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    writer = EventWriter(tmp_path / "no" / "where.bin")
    with pytest.raises(ConfigError, match=r"where.bin: no events can be recorded there .*run.record = false"):
        writer.begin(fresh(build("full")))


def test_too_many_ranks(path: Path) -> None:
    with pytest.raises(ConfigError, match="events of 70000 ranks cannot be recorded, expected at most 65536"):
        EventWriter(path).begin(fresh(build("run_free"), 70_000))


def test_every_cut_is_replayed_up_to_there(tmp_path: Path) -> None:
    on_the_wire(tmp_path, PAIR, build("full"), rounds=2, seed=1)
    path = tmp_path / "events-0.bin"
    data = path.read_bytes()
    whole = replay(read_log(path))
    seen = []
    for cut in range(len(data)):
        path.write_bytes(data[:cut])
        try:
            log = read_log(path)
        except ConfigError:
            continue
        result = replay(log)
        assert result.agrees
        assert result.ended is not None
        assert result.ended.ending in (Ending.CUT, Ending.OPEN)
        seen.append(result.events)
    assert seen == sorted(seen)
    assert sorted(set(seen)) == list(range(whole.events + 1))


def test_every_flipped_bit_is_found(tmp_path: Path) -> None:
    on_the_wire(tmp_path, PAIR, build("full"), rounds=2, seed=1)
    path = tmp_path / "events-0.bin"
    data = path.read_bytes()
    for place in range(len(data)):
        flipped = bytearray(data)
        flipped[place] ^= 1 << place % 8
        path.write_bytes(flipped)
        try:
            log = read_log(path)
        except ConfigError:
            continue
        result = replay(log)
        assert not result.agrees, place
        assert result.ended is not None
        assert result.ended.ending is Ending.DAMAGED


def test_a_block_of_other_things_is_damage(short: Path) -> None:
    rewrite(short, lambda blocks: [blocks[0], b"\xee" + blocks[1]])
    assert ending(short) == Ended(Ending.DAMAGED, ending(short).words)
    assert "holds a record of kind 238" in ending(short).words


def test_another_version(short: Path) -> None:
    data = short.read_bytes()
    short.write_bytes(MAGIC + struct.pack("<H", 2) + data[len(MAGIC) + 2 :])
    with pytest.raises(ConfigError, match=r"an event log of version 2, but this program reads version 1; replay it with the"):
        read_log(short)


@pytest.mark.parametrize("data", [b"", b"{}", b"\x89PNG" + bytes(100)])
def test_what_is_no_log(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    with pytest.raises(ConfigError, match="no event log"):
        read_log(path)


def test_what_is_not_there(path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read as an event log"):
        read_log(path)


def changed(**keys: Any) -> Any:
    """An edit of the header; None takes a key away."""

    def edit(blocks: list[bytes]) -> list[bytes]:
        header = {**json.loads(blocks[0]), **keys}
        return [json.dumps({key: value for key, value in header.items() if value is not None}).encode(), *blocks[1:]]

    return edit


@pytest.mark.parametrize("keys", [{"rank": 3}, {"rank": None}, {"adjacency": 5}, {"adjacency": [["x"]]}, {"more": 1}])
def test_a_header_that_does_not_tell(short: Path, keys: dict[str, Any]) -> None:
    rewrite(short, changed(**keys))
    with pytest.raises(ConfigError, match="the header does not tell what an engine is made from"):
        read_log(short)


# Several logs


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    in_loopback(tmp_path, 3)
    return tmp_path


def test_the_logs_of_a_run(folder: Path) -> None:
    (folder / "events-01.bin").write_bytes(b"")
    (folder / "events-1.bin.old").write_bytes(b"")
    logs = find_logs(str(folder))
    assert ([log.rank for log in logs], missing(logs)) == ([0, 1, 2], [])
    (folder / "events-1.bin").unlink()
    logs = find_logs(folder)
    assert ([log.rank for log in logs], missing(logs)) == ([0, 2], [1])


def test_no_logs(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no event logs, .* unless run\.record = false, under every rule of neighbours"):
        find_logs(tmp_path)


def test_a_log_of_one_rank_twice(folder: Path) -> None:
    (folder / "events-1.bin").write_bytes((folder / "events-0.bin").read_bytes())
    with pytest.raises(ConfigError, match=r"events-1.bin: it says that it is the log of rank 0"):
        find_logs(folder)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"run": "another"}, "they say so"),
        ({"adjacency": [[1], [0]]}, "3 ranks and 2"),
        ({"rule": "gap", "parameters": {"window": 3}}, r"rule dtur {} and gap {'window': 3}"),
        ({"weights": "active"}, "their graphs or weights differ"),
    ],
)
def test_logs_of_two_runs(folder: Path, keys: dict[str, Any], words: str) -> None:
    rewrite(folder / "events-1.bin", changed(**keys))
    with pytest.raises(ConfigError, match=rf"events-0.bin and events-1.bin are of different runs \({words}\)"):
        find_logs(folder)
