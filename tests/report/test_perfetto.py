"""Trace events, as the format wants them."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from made_runs import TRANSFER, in_step, ring, write_run

from consensus.errors import ConfigError
from consensus.report.load import LoadedRun, load_run
from consensus.report.perfetto import write_perfetto

ROUNDS = 7


@pytest.fixture
def run(tmp_path: Path) -> LoadedRun:
    def transfer(edge: tuple[int, int], k: int) -> float:
        return TRANSFER * (1 + sum(edge))

    traces = in_step(rounds=ROUNDS, transfer=transfer, unused=lambda k: [(0, 1)] if k % 2 else [])
    return load_run(write_run(tmp_path / "made-1", traces))


def written(runs: dict[str, LoadedRun], path: Path) -> list[dict[str, Any]]:
    write_perfetto(runs, path)
    document = json.loads(path.read_text(encoding="utf-8"))
    assert document["displayTimeUnit"] == "ms"
    return list(document["traceEvents"])


def of(phase: str, events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [event for event in events if event["ph"] == phase]


def check_format(events: list[dict[str, Any]]) -> None:
    """What every viewer takes for granted."""
    assert {event["ph"] for event in events} <= set("MXsfC")
    assert all(type(event["ts"]) is int and event["ts"] >= 0 for event in events)
    assert all(event["name"] and event["pid"] > 0 for event in events)
    assert all(a["ts"] <= b["ts"] for a, b in pairwise(event for event in events if event["ph"] != "M"))
    slices: dict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
    for event in of("X", events):
        assert event["dur"] > 0
        assert event["tid"] > 0
        slices[event["pid"], event["tid"]].append((event["ts"], event["ts"] + event["dur"]))
    for own in slices.values():
        assert all(first[1] <= second[0] for first, second in pairwise(own))
    starts, ends = ({event["id"]: event for event in of(phase, events)} for phase in "sf")
    assert len(starts) == len(of("s", events))
    assert len(ends) == len(of("f", events))
    assert starts.keys() == ends.keys()
    for number, start in starts.items():
        end = ends[number]
        assert start["ts"] <= end["ts"]
        assert (start["name"], start["cat"], end["bp"]) == (end["name"], end["cat"], "e")
        assert start["tid"] != end["tid"]
        for tip in (start, end):
            assert any(begin <= tip["ts"] < stop for begin, stop in slices[tip["pid"], tip["tid"]])


def test_a_run(run: LoadedRun, tmp_path: Path) -> None:
    events = written({"full": run}, tmp_path / "t.json")
    check_format(events)
    names = [(event["name"], event["tid"], event["args"].get("name")) for event in of("M", events)]
    assert ("process_name", 0, "full") in names
    assert [tid for name, tid, told in names if name == "thread_name" and told == f"rank {tid - 1}"] == [1, 2, 3, 4]
    assert Counter(event["name"] for event in of("X", events)) == dict.fromkeys(("compute", "wait", "mix"), 4 * ROUNDS)
    assert sum(event["dur"] for event in of("X", events) if event["tid"] == 1) == pytest.approx(run.seconds * 1e6, abs=3 * ROUNDS)
    # Four edges in every round, of which one is not used in every other.
    assert len(of("s", events)) == 4 * ROUNDS - 4
    backups = [event for event in of("C", events) if event["name"] == "backups of rank 0"]
    assert [event["args"]["backups"] for event in backups] == [k % 2 for k in range(1, ROUNDS + 1)]


def test_several_runs_are_processes_apart(run: LoadedRun, tmp_path: Path) -> None:
    without = replace(run, traces=())
    events = written({"a": run, "none": without, "b": run}, tmp_path / "t.json")
    check_format(events)
    named = {event["args"]["name"]: event["pid"] for event in of("M", events) if event["name"] == "process_name"}
    assert named.keys() == {"a", "b"}
    assert len(of("s", events)) == 2 * (4 * ROUNDS - 4)


def test_a_trace_that_ends_before_the_others(run: LoadedRun, tmp_path: Path) -> None:
    first, *others = run.traces
    cut = replace(run, traces=(replace(first, rounds=first.rounds[:3]), *others))
    events = written({"full": cut}, tmp_path / "t.json")
    check_format(events)
    # Rank 0's edges have exchanged in 3 rounds, less two in which 0 - 1 was not used.
    assert len(of("s", events)) == 2 * ROUNDS + 3 + 1


def test_clocks_that_disagree_by_more_than_a_transfer(run: LoadedRun, tmp_path: Path) -> None:
    *others, last = run.traces
    rounds = [
        replace(
            record,
            opened=record.opened + 1,
            closed=record.closed + 1,
            exchanges=tuple((peer, theirs, agreed + 1, complete + 1) for peer, theirs, agreed, complete in record.exchanges),
        )
        for record in last.rounds
    ]
    events = written({"full": replace(run, traces=(*others, replace(last, rounds=rounds)))}, tmp_path / "t.json")
    check_format(events)
    assert of("s", events)


def test_durations_read_a_moment_before_the_round_opened(run: LoadedRun, tmp_path: Path) -> None:
    # As drivers do: the durations begin when the clock is first read, the round opens when the engine hears of it.
    late = [
        replace(trace, rounds=[replace(record, opened=min(record.closed, record.opened + 0.004)) for record in trace.rounds])
        for trace in run.traces
    ]
    check_format(written({"full": replace(run, traces=tuple(late))}, tmp_path / "t.json"))


def test_rounds_that_take_no_time(tmp_path: Path) -> None:
    traces = in_step(rounds=3, compute=lambda rank, k: 0.0, transfer=lambda edge, k: 0.0)
    run = load_run(write_run(tmp_path / "made-1", traces))
    check_format(written({"full": run}, tmp_path / "t.json"))
    still = [replace(trace, rounds=[replace(record, wait=0.0, mix=0.0) for record in trace.rounds]) for trace in traces]
    assert of("s", written({"full": replace(run, traces=tuple(still))}, tmp_path / "t.json")) == []


def test_a_run_without_exchanges(tmp_path: Path) -> None:
    run = load_run(write_run(tmp_path / "made-1", in_step(rounds=3, unused=lambda k: ring(4))))
    events = written({"allreduce": run}, tmp_path / "t.json")
    check_format(events)
    assert of("s", events) == []


def test_no_traces_no_file(run: LoadedRun, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none of the runs has traces.*run\.trace = true"):
        write_perfetto({"a": replace(run, traces=())}, tmp_path / "t.json")
    assert not (tmp_path / "t.json").exists()


def test_a_place_that_cannot_be_written(run: LoadedRun, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot be written .*--perfetto=FILE"):
        write_perfetto({"a": run}, tmp_path / "no" / "t.json")
