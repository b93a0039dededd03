"""Replays: the same decisions from the same events, and the first difference where there is one."""

from __future__ import annotations

import json
import random
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from consensus.errors import ConfigError
from consensus.protocol.events import Control, ModelSwapped, StepDone
from consensus.protocol.messages import Engage, Ready
from consensus.recording.decoding import Entry
from consensus.recording.folder import file_name, find_logs
from consensus.recording.log import Ending, read_log
from consensus.recording.writer import EventWriter
from consensus.replay import replay
from consensus.rules import build
from consensus.rules.full import Full
from consensus.run import experiment
from consensus.transport import loopback
from tests.experiments import small
from tests.recordings import fresh, in_loopback, on_the_wire, rewrite
from tests.worlds import EVERY_RULE, EVERY_RULE_AND_WEIGHTS, attached_point

RING = {rank: ((rank - 1) % 5, (rank + 1) % 5) for rank in range(5)}
OF_A_ROUND = [StepDone(), Control(2, Ready(1)), Control(2, Engage(1, 1)), ModelSwapped(2), Control(1, Ready(1))]


@pytest.mark.parametrize(("rule", "weights"), EVERY_RULE_AND_WEIGHTS)
def test_every_rule_decides_as_recorded(tmp_path: Path, rule: str, weights: str) -> None:
    records = in_loopback(tmp_path, rule=rule, weights=weights)
    for log, rounds in zip(find_logs(tmp_path), records, strict=True):
        result = replay(log)
        assert (result.divergence, result.ended and result.ended.ending, result.agrees) == (None, Ending.COMPLETE, True)
        assert (result.rounds, result.rank) == (len(rounds), log.rank)
        assert result.sessions == 2
        outcomes = [item.outcome for item in log.items() if isinstance(item, Entry) and item.outcome]
        assert [outcome[:4] for outcome in outcomes] == [
            (round_.round, tuple(each.peer for each in round_.exchanges), round_.backups, round_.reason) for round_ in rounds
        ]


@pytest.mark.parametrize("everyone", [True, False])
@pytest.mark.parametrize("rule", EVERY_RULE)
def test_departures_and_deaths(tmp_path: Path, rule: str, everyone: bool) -> None:
    needs_everyone = {"dtur", "pathsearch"}
    net = on_the_wire(
        tmp_path,
        RING,
        EVERY_RULE[rule],
        rounds=[9, 12, 5, 12, 12],
        seed=4,
        deaths={3: 6.0},
        everyone=everyone or rule in needs_everyone,
    )
    results = [replay(log) for log in find_logs(tmp_path)]
    assert all(result.agrees for result in results)
    assert [result.rounds for result in results] == [len(records) for records in net.records]
    assert net.dead == {3}


@pytest.mark.parametrize("rule", EVERY_RULE)
def test_suspicions_are_the_same_again(tmp_path: Path, rule: str, caplog: pytest.LogCaptureFixture) -> None:
    def compute(rank: int, draw: random.Random) -> float:
        return 50.0 if rank == 3 else draw.uniform(0.5, 1.5)

    on_the_wire(tmp_path, RING, EVERY_RULE[rule], rounds=[9, 9, 9, 1, 9], seed=4, compute=compute, stuck_after=4.0)
    assert any("goes on without ranks [3]" in message for message in caplog.messages) or rule in ("full", "run_free", "deadline")
    assert all(replay(log).agrees for log in find_logs(tmp_path))


def test_a_whole_run(tmp_path: Path) -> None:
    settings = small(tmp_path, rule={"name": "gap", "window": 2})
    (folder,) = set(loopback.run(4, lambda transport: experiment.run(settings, transport)))
    logs = find_logs(folder)
    assert len(logs) == 4
    assert len({log.run for log in logs}) == 1
    for log in logs:
        result = replay(log)
        assert (result.agrees, result.rounds, result.sessions) == (True, 6, 1)


def test_the_limit_is_the_run_files(tmp_path: Path) -> None:
    settings = small(tmp_path, "rounds = 30", run={"record_limit": 0.003})
    (folder,) = set(loopback.run(2, lambda transport: experiment.run(settings, transport)))
    for log in find_logs(folder):
        assert log.path.stat().st_size < 0.003 * 2**20 + 20
        result = replay(log)
        assert (result.ended and result.ended.ending, result.agrees) == (Ending.LIMIT, True)
        assert 0 < result.rounds < 30


def test_two_runs_of_the_same_kind_are_told_apart(tmp_path: Path) -> None:
    settings = small(tmp_path, "rounds = 2")
    folders = [set(loopback.run(2, lambda transport: experiment.run(settings, transport))).pop() for _ in range(2)]
    (folders[1] / "events-1.bin").replace(folders[0] / "events-1.bin")
    with pytest.raises(ConfigError, match=r"different runs \(they say so\)"):
        find_logs(folders[0])


def test_allreduce_has_nothing_to_record(tmp_path: Path) -> None:
    def attempt(transport: Any) -> None:
        attached_point(transport, lr=0.1, topology="ring", rule="allreduce", recorder=EventWriter(tmp_path / "x"))

    with pytest.raises(ConfigError, match='rule "allreduce" has no events to record'):
        loopback.run(1, attempt)


# Differences


def record(folder: Path, rule: Any = None, events: Any = OF_A_ROUND) -> Path:
    """The log of rank 0, a star's hub with two leaves, that gets one event each half second from second 10 on, the clock's 0."""
    engine, path = fresh(rule or Full()), folder / file_name(0)
    with EventWriter(path) as writer:
        writer.begin(engine)
        writer.set_clock(10.0, 1.7e9)
        for number, event in enumerate(events):
            now = 10.0 + number / 2
            writer.record(now, event, engine.handle(event, now))
    return path


def test_another_rule_diverges_where_it_closes(tmp_path: Path) -> None:
    path = record(tmp_path)
    assert replay(read_log(path)).agrees
    result = replay(read_log(path), build("static_backup", b=1))
    assert (result.agrees, result.events, result.rounds) == (False, 3, 0)
    d = result.divergence
    assert d is not None
    assert (d.number, d.time, d.event, d.what) == (4, 1.5, ModelSwapped(2), "the engine answers otherwise")
    assert d.recorded == "nothing"
    assert d.replayed.startswith("SendControl(peer=1, message=Closed(round=1, exchanges=1)), Mix(weights=((2, 0.333")
    assert len(d.story.splitlines()) == 4
    assert d.story.endswith("0.000 s ago  ModelSwapped(peer=2)")
    assert d.state.startswith("rank 0 is computing in round 1")


@dataclass(frozen=True)
class Wordy(Full):
    """As full, with other words for it."""

    def decide(self, view: Any, state: None, now: float) -> Any:
        decision, state = super().decide(view, state, now)
        return decision._replace(reason="why not"), state


WHOLE_ROUND = [*OF_A_ROUND, Control(1, Engage(1, 1)), ModelSwapped(1), StepDone()]


def test_another_reason_is_another_outcome(tmp_path: Path) -> None:
    d = replay(read_log(record(tmp_path, events=WHOLE_ROUND)), Wordy()).divergence
    assert d is not None
    assert (d.number, d.what) == (7, "the round comes to something else")
    assert d.recorded.startswith("round 1: exchanged with [2, 1], not waited for nobody; all living neighbours have exchanged")
    assert "why not" in d.replayed


def test_a_changed_time_shows_at_the_end_of_the_round(tmp_path: Path) -> None:
    """By the last bit of when the first exchange was complete, with every checksum put right."""
    path = record(tmp_path, events=WHOLE_ROUND)
    time = struct.pack("<d", 11.5)

    def edit(blocks: list[bytes]) -> list[bytes]:
        assert blocks[1].count(time) == 1
        return [blocks[0], blocks[1].replace(time, bytes([time[0] ^ 1]) + time[1:])]

    rewrite(path, edit)
    d = replay(read_log(path)).divergence
    assert d is not None
    assert (d.number, d.event) == (7, ModelSwapped(1))
    assert d.what.startswith("a weight or a time of the round")
    assert d.recorded == d.recorded.partition("checksum")[0] + d.recorded[-len("checksum 00000000") :]
    assert "Mix(" in d.replayed


def test_an_event_left_out_is_found(tmp_path: Path) -> None:
    net = on_the_wire(tmp_path, RING, Full(), rounds=3, seed=1)
    path = tmp_path / file_name(0)
    entries = [item for item in read_log(path).items() if isinstance(item, Entry)]
    number = next(k for k, entry in enumerate(entries) if isinstance(entry.event, ModelSwapped))
    rewrite(path, lambda blocks: [blocks[0], blocks[1].replace(entries[number].wire, b"", 1)])
    d = replay(read_log(path)).divergence
    assert d is not None
    assert number < d.number <= number + 10 < len(entries)
    assert net.records[0]


def test_an_event_that_an_engine_refuses(tmp_path: Path) -> None:
    path = record(tmp_path)
    entries = [item for item in read_log(path).items() if isinstance(item, Entry)]
    rewrite(path, lambda blocks: [blocks[0], blocks[1].replace(entries[3].wire, entries[0].wire)])
    d = replay(read_log(path)).divergence
    assert d is not None
    assert (d.number, d.what, d.event) == (4, "the engine refuses the event", StepDone())
    assert "a step was done while open" in d.replayed


def test_a_divergence_in_a_later_session_has_its_number_in_the_log(tmp_path: Path) -> None:
    in_loopback(tmp_path, 3, rule="full")
    path = tmp_path / file_name(1)
    first = replay(read_log(path))
    assert first.sessions == 2
    last = [item for item in read_log(path).items() if isinstance(item, Entry) and item.outcome][-1]
    assert last.outcome is not None
    broken = last.wire.replace(b"all living", b"no  living")
    rewrite(path, lambda blocks: [blocks[0], blocks[1][::-1].replace(last.wire[::-1], broken[::-1], 1)[::-1]])
    result = replay(read_log(path))
    assert (result.sessions, result.rounds) == (2, first.rounds - 1)
    assert result.divergence is not None
    assert (result.divergence.number, result.divergence.event) == (result.events + 1, last.event)
    assert 0 < result.divergence.time < 10


# Rules that cannot be built


def with_rule(path: Path, rule: str, parameters: Any) -> None:
    def edit(blocks: list[bytes]) -> list[bytes]:
        return [json.dumps({**json.loads(blocks[0]), "rule": rule, "parameters": parameters}).encode(), *blocks[1:]]

    rewrite(path, edit)


@pytest.mark.parametrize(
    ("rule", "parameters", "words"),
    [
        ("gap", {"windows": 3}, "rule 'gap' has no parameter 'windows'; did you mean 'window'"),
        ("gap", {"window": 0}, "window = 0, expected at least 1"),
        ("dtru", {}, "unknown rule 'dtru'; did you mean 'dtur'"),
    ],
)
def test_a_rule_that_this_version_does_not_know(tmp_path: Path, rule: str, parameters: Any, words: str) -> None:
    path = record(tmp_path)
    with_rule(path, rule, parameters)
    with pytest.raises(ConfigError, match=rf"recorded by consensus \S+ under a rule that cannot be built here: .*{words}"):
        replay(read_log(path))


def test_a_rule_of_ones_own(tmp_path: Path) -> None:
    path = record(tmp_path, Wordy(), WHOLE_ROUND)
    assert not replay(read_log(path)).agrees
    assert replay(read_log(path), Wordy()).agrees
