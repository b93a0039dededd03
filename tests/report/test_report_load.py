"""Folders of runs, whole, cut off and mixed up."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from made_runs import STARTED, in_step, ring, write_run, write_trace

from consensus.errors import ConfigError
from consensus.report.folders import find_runs
from consensus.report.load import CLOCKS_APART, labels, load_run
from consensus.trace import VERSION

TRACES = in_step(4, 6)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_run(tmp_path / "made-1", TRACES)


def test_a_whole_run(folder: Path) -> None:
    run = load_run(folder)
    assert (run.finished, run.simulated, run.ranks, run.notes) == (True, False, 4, ())
    assert run.traces == tuple(TRACES)
    assert [line.samples for line in run.metrics] == [1000, 2000, 3000, 4000, 5000]
    assert run.edges == frozenset(ring(4))
    assert run.seconds == TRACES[0].rounds[-1].closed


def test_a_simulated_run(tmp_path: Path) -> None:
    assert load_run(write_run(tmp_path / "sim", TRACES, simulated=True)).simulated


def test_an_unfinished_run_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "made-1", TRACES, finished=False)
    cut, empty = folder / "trace-2.jsonl", folder / "trace-3.jsonl"
    cut.write_bytes(cut.read_bytes()[:-9])
    empty.write_bytes(b"")
    run = load_run(folder)
    assert not run.finished
    assert [len(trace.rounds) for trace in run.traces] == [6, 6, 5, 0]
    assert run.seconds == TRACES[0].rounds[-1].closed
    text = " ".join(run.notes)
    assert "not come to its end" in text
    assert "no metrics.jsonl" in text
    assert "The trace of rank 2 ends in the middle of a line" in text


def test_a_header_cut_off(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "made-1", TRACES, finished=False)
    (folder / "trace-1.jsonl").write_text('{"format":"consens')
    assert load_run(folder).traces[1].rounds == []


def test_a_run_that_has_just_begun_or_has_no_traces(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "made-1", TRACES, finished=False)
    for path in folder.glob("trace-*"):
        path.unlink()
    run = load_run(folder)
    assert (run.traces, run.seconds) == ((), 0.0)
    assert "has not begun" in run.notes[-1]
    config = folder / "config.toml"
    config.write_text(config.read_text().replace("trace = true", "trace = false"))
    assert "run.trace was off" in load_run(folder).notes[-1]


def rename(folder: Path) -> None:
    (folder / "trace-1.jsonl").write_bytes((folder / "trace-2.jsonl").read_bytes())


def start_late(folder: Path) -> None:
    write_trace(folder, replace(TRACES[1], started=STARTED + CLOCKS_APART + 1))


def lose(folder: Path) -> None:
    (folder / "trace-1.jsonl").unlink()
    (folder / "trace-3.jsonl").unlink()


def add(folder: Path) -> None:
    write_trace(folder, replace(TRACES[1], rank=9))


def other_version(folder: Path) -> None:
    path = folder / "trace-0.jsonl"
    path.write_text(path.read_text().replace(f'"version": {VERSION}', f'"version": {VERSION + 7}'))


def negative(folder: Path) -> None:
    path = folder / "trace-0.jsonl"
    path.write_text(path.read_text().replace('"mix": 0.001', '"mix": -0.001', 1))


def not_a_number(folder: Path) -> None:
    path = folder / "trace-0.jsonl"
    path.write_text(path.read_text().replace('"mix": 0.001', '"mix": NaN', 1))


def closed_before(folder: Path) -> None:
    write_trace(folder, replace(TRACES[2], rounds=[replace(TRACES[2].rounds[0], opened=9.0), *TRACES[2].rounds[1:]]))


def arrived_before(folder: Path) -> None:
    first = TRACES[2].rounds[0]
    write_trace(folder, replace(TRACES[2], rounds=[replace(first, exchanges=((1, 1, 9.0, 8.0),)), *TRACES[2].rounds[1:]]))


def shorten(folder: Path) -> None:
    write_trace(folder, replace(TRACES[2], rounds=TRACES[2].rounds[:-1]))


def cut_off(folder: Path) -> None:
    path = folder / "trace-2.jsonl"
    path.write_bytes(path.read_bytes()[:-9])


def no_ranks(folder: Path) -> None:
    path = folder / "config.toml"
    path.write_text(path.read_text().replace("ranks = 4", "ranks = -4"))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (rename, ["trace-1.jsonl", "of rank 2, expected rank 1", "put back"]),
        (start_late, ["rank 1 started 61 s after rank 0", "at most 60 s", "mixed", "put back"]),
        (lose, ["no trace of rank 1, 3", "expected trace-0.jsonl to trace-3.jsonl", "copy the whole folder"]),
        (add, ["trace-9.jsonl is there too", "ranks 0 to 3", "folder of its own"]),
        (other_version, ["version 9", "reads version 2"]),
        (negative, ["trace-0.jsonl: round 1: mix = -0.001", "0 or more"]),
        (not_a_number, ["trace-0.jsonl: round 1: mix = nan", "0 or more"]),
        (closed_before, ["trace-2.jsonl: round 1: closed at", "expected no earlier than it opened, at 9 s"]),
        (arrived_before, ["trace-2.jsonl: round 1: the exchange with rank 1 was complete at 8 s", "agreed, at 9 s"]),
        (shorten, ["trace of rank 2 has 5 rounds, expected 6", "mixed"]),
        (cut_off, ["trace-2.jsonl: line 7 is cut off"]),
        (no_ranks, ["run.ranks = -4", "positive"]),
    ],
)
def test_damage_is_named(folder: Path, damage: Callable[[Path], None], words: list[str]) -> None:
    damage(folder)
    with pytest.raises(ConfigError) as caught:
        load_run(folder)
    assert all(word in str(caught.value) for word in words), caught.value


def test_damage_in_an_unfinished_run_names_its_own_file(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "made-1", TRACES, finished=False)
    other_version(folder)
    with pytest.raises(ConfigError) as caught:
        load_run(folder)
    assert str(caught.value).startswith(f"{folder / 'trace-0.jsonl'}: ")


def test_a_graph_whose_file_stayed_elsewhere_is_that_of_the_traces(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "made-1", in_step(4, 6, unused=lambda k: [(0, 1)]))
    config = folder / "config.toml"
    config.write_text(config.read_text().replace('kind = "ring"', 'file = "/somewhere/else.edgelist"'))
    assert load_run(folder).edges == frozenset(ring(4))


def test_runs_below_a_folder_come_in_order_of_their_start(tmp_path: Path) -> None:
    for number, rule in enumerate(("gap-seed-1", "dtur-seed-1", "full-seed-1")):
        write_run(tmp_path / "compare" / rule / "made-1", TRACES)
        os.utime(tmp_path / "compare" / rule / "made-1" / "config.toml", (number, number))
    found = find_runs([tmp_path / "compare", tmp_path / "compare" / "dtur-seed-1" / "made-1"])
    assert [path.parent.name for path in found] == ["gap-seed-1", "dtur-seed-1", "full-seed-1"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("made-2", ["no such folder", "did you mean 'made-1'?"]),
        ("made-1/trace-0.jsonl", ["a file, expected the folder", "give its folder"]),
        ("empty", ["not the folder of a run", "config.toml", "NAME-TIMESTAMP"]),
        ("no/where", ["no such folder", "is not there either"]),
    ],
)
def test_what_is_no_run(folder: Path, name: str, words: list[str]) -> None:
    (folder.parent / "empty").mkdir()
    with pytest.raises(ConfigError) as caught:
        find_runs([folder.parent / name])
    assert all(word in str(caught.value) for word in words), caught.value


def test_labels_tell_runs_apart_with_few_words(tmp_path: Path) -> None:
    full, dtur = (load_run(write_run(tmp_path / rule, TRACES, rule=rule)) for rule in ("full", "dtur"))
    run = dtur.config.run
    other_seed = replace(dtur, config=dtur.config.model_copy(update={"run": run.model_copy(update={"seed": 5})}))
    assert labels([full, dtur]) == ["full", "dtur"]
    assert labels([full, dtur, other_seed]) == ["full, seed 1", "dtur, seed 1", "dtur, seed 5"]
    assert labels([full, replace(full, ranks=8)]) == ["full, 4 ranks, seed 1", "full, 8 ranks, seed 1"]
    assert labels([full, replace(full, folder=tmp_path / "again")]) == ["full", "again"]
    assert labels([full, replace(full, folder=tmp_path / "x" / "full")]) == [str(full.folder), str(tmp_path / "x" / "full")]


def test_a_summary_that_is_damaged(folder: Path) -> None:
    (folder / "summary.json").write_text(json.dumps([1])[:-1])
    with pytest.raises(ConfigError, match=r"summary\.json: damaged"):
        load_run(folder)
