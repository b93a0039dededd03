"""Whole experiments: on the deterministic twin, whose clock is virtual, and on one rank."""

from __future__ import annotations

import atexit
import json
import os
import re
import shutil
import signal
import sys
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import pytest

from consensus import config, trace
from consensus.errors import ConfigError, ConsensusError, NonFiniteLoss
from consensus.run import experiment, watch
from consensus.run.evaluation import Evaluated
from consensus.run.folder import agree_on_folder
from consensus.run.results import read_metrics, read_summary
from consensus.run.status import Status
from consensus.transport import loopback
from consensus.transport.single import SingleTransport
from tests.experiments import in_loopback, small, summary_of
from tests.ranks import ROOT

DOCUMENTED = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")

STEADY = {"model": "constant", "seconds": 0.002}
ALLREDUCE = {"name": "allreduce"}
HUGE = {"name": "sgd", "lr": 1e38}

ISSUE = {
    "rule",
    "topology",
    "ranks",
    "seed",
    "wall_seconds",
    "samples",
    "rounds",
    "targets",
    "final",
    "consensus_distance",
    "per_rank",
}
ISSUE_PER_RANK = {
    "compute_seconds",
    "wait_seconds",
    "mix_seconds",
    "exchanges",
    "mean_backups",
    "bytes_sent",
    "peak_rss_bytes",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a run on samples, that several tests look at."""
    return in_loopback(small(tmp_path_factory.mktemp("runs"), "samples = 400"))


def alone(settings: config.RunConfig, **options: Any) -> Path:
    return experiment.run(settings, SingleTransport(), **options)


# What a run leaves behind


def test_the_folder(folder: Path) -> None:
    names = {path.name for path in folder.iterdir()}
    per_rank = {name for rank in range(4) for name in (f"trace-{rank}.jsonl", f"events-{rank}.bin")}
    assert names == {"config.toml", "metrics.jsonl", "summary.json", "curves.png", *per_rank}
    assert re.fullmatch(r"small-\d{8}-\d{6}", folder.name)
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert config.load(folder / "config.toml").run.ranks == 4


def test_the_summary(folder: Path) -> None:
    summary = summary_of(folder)
    assert summary.keys() >= ISSUE
    assert len(summary["per_rank"]) == summary["ranks"] == 4
    assert all(rank.keys() >= ISSUE_PER_RANK for rank in summary["per_rank"])
    assert list(summary["targets"]) == [".5", ".6", ".7", ".8", ".85", ".9", ".93", ".95", ".96", ".97", ".98"]
    assert summary["final"].keys() == {"accuracy", "loss"}
    assert (summary["rule"], summary["topology"]) == ({"name": "dtur"}, {"kind": "ring"})
    assert summary["rounds"] == [rank["rounds"] for rank in summary["per_rank"]]
    assert summary["samples"] == sum(rank["samples"] for rank in summary["per_rank"])
    assert summary["wall_seconds"] == max(rank["ended_at"] for rank in summary["per_rank"])
    assert summary == read_summary(folder)


def test_stop_on_samples_over_all_ranks(folder: Path) -> None:
    summary = summary_of(folder)
    assert summary["ended"] == "samples"
    assert 400 <= summary["samples"] < 400 + 4 * 2 * 8


def test_the_metrics(folder: Path) -> None:
    summary, lines = summary_of(folder), read_metrics(folder)
    assert 4 < len(lines) <= 8 + 1
    assert all(before.seconds <= after.seconds and before.samples <= after.samples for before, after in pairwise(lines))
    last = lines[-1]
    assert (last.seconds, last.samples, last.rounds) == (summary["wall_seconds"], summary["samples"], sum(summary["rounds"]))
    assert summary["final"] == {"accuracy": last.accuracy, "loss": last.loss}
    assert last.accuracy > lines[0].accuracy
    assert summary["targets"][".5"] == next(line.seconds for line in lines if line.accuracy >= 0.5)


def test_the_traces(folder: Path) -> None:
    for rank, result in enumerate(summary_of(folder)["per_rank"]):
        traced = trace.read(folder / f"trace-{rank}.jsonl")
        rounds = traced.rounds
        assert (traced.rank, len(rounds)) == (rank, result["rounds"])
        assert [line.round for line in rounds] == list(range(1, len(rounds) + 1))
        assert all(line.opened <= line.closed for line in rounds)
        assert sum(len(line.exchanges) for line in rounds) == result["exchanges"]
        assert sum(len(line.backups) for line in rounds) == pytest.approx(result["mean_backups"] * len(rounds))
        assert sum(line.compute for line in rounds) == pytest.approx(result["compute_seconds"], abs=1e-4)


def keys_of(value: Any) -> set[str]:
    """All keys in a JSON value, at any depth."""
    if isinstance(value, dict):
        return set(value).union(*map(keys_of, value.values()))
    return set().union(*map(keys_of, value)) if isinstance(value, list) else set()


def test_every_key_and_every_file_is_documented(folder: Path) -> None:
    found = {re.sub(r"-\d+\.", "-RANK.", path.name) for path in folder.iterdir()}
    for path in folder.glob("*.json*"):
        text = path.read_text(encoding="utf-8")
        documents = text.splitlines() if path.suffix == ".jsonl" else [text]
        found = found.union(*(keys_of(json.loads(document)) for document in documents))
    assert {"accuracy", "exchanges", "opened", "clock", "torch", "peak_rss_bytes", "trace-RANK.jsonl", "events-RANK.bin"} <= found
    assert sorted(name for name in found if f"`{name}`" not in DOCUMENTED) == []


def test_a_run_is_a_function_of_its_seed(tmp_path: Path) -> None:
    settings = small(tmp_path, evaluation={"marks": 4})
    first, second = in_loopback(settings), in_loopback(settings)
    other = in_loopback(small(tmp_path, evaluation={"marks": 4}, run={"seed": 2}))
    assert first != second
    assert read_metrics(first) == read_metrics(second) != read_metrics(other)


# How a run ends


@pytest.mark.parametrize("rule", [{"name": "full"}, ALLREDUCE])
def test_stop_on_rounds(tmp_path: Path, rule: dict[str, str]) -> None:
    summary = summary_of(in_loopback(small(tmp_path, "rounds = 5", rule=rule)))
    assert (summary["ended"], summary["rounds"]) == ("rounds", [5, 5, 5, 5])


@pytest.mark.parametrize("rule", [{"name": "dtur"}, {"name": "run_free"}, ALLREDUCE])
def test_stop_on_seconds(tmp_path: Path, rule: dict[str, str]) -> None:
    summary = summary_of(in_loopback(small(tmp_path, "seconds = 0.03", rule=rule, evaluation={"every": 0.01})))
    assert summary["ended"] == "seconds"
    assert all(0.03 <= rank["ended_at"] < 0.08 for rank in summary["per_rank"])


def test_the_first_condition_ends_the_run(tmp_path: Path) -> None:
    summary = summary_of(in_loopback(small(tmp_path, "rounds = 4, seconds = 1000, samples = 100_000")))
    assert (summary["ended"], summary["rounds"]) == ("rounds", [4] * 4)


class Reached:
    """In place of the evaluator process: the target is reached at the tenth question."""

    def __init__(self, run: Path) -> None:
        self.questions = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def reached(self) -> bool:
        self.questions += 1
        return self.questions >= 10

    def finish(self) -> list[Evaluated]:
        return []


@pytest.mark.parametrize("rule", [{"name": "dtur"}, ALLREDUCE])
def test_a_target_that_rank_0_knows_to_be_reached_ends_all_ranks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rule: dict[str, str]
) -> None:
    monkeypatch.setattr(experiment, "TargetWatch", Reached)
    summary = summary_of(in_loopback(small(tmp_path, "seconds = 1000, target = { value = 0.5 }", rule=rule)))
    assert summary["ended"] == "target"
    assert summary["rounds"][0] in (10, 11)
    assert max(summary["rounds"]) < 40


def test_a_target_alone(tmp_path: Path) -> None:
    """With the real process, which evaluates while the rank trains."""
    settings = small(
        tmp_path, "seconds = 60, target = { metric = 'loss', value = 1.0 }", stragglers=STEADY, evaluation={"every": 0.02}
    )
    folder = alone(settings)
    summary = summary_of(folder)
    assert summary["ended"] == "target"
    stop = json.loads((folder / watch.STOP).read_text())
    assert (stop["metric"], stop["value"]) == ("loss", 1.0)
    assert stop["reached"] <= 1.0
    assert any(line.seconds == pytest.approx(stop["seconds"], abs=1e-6) for line in read_metrics(folder))
    assert all(f"`{key}`" in DOCUMENTED for key in (watch.STOP, *stop))


def test_a_dead_evaluator_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    watching = watch.TargetWatch(tmp_path)
    assert watching.finish() == []
    with pytest.raises(ConsensusError, match="evaluates the target ended with status 1"):
        watching.reached()


def test_the_evaluator_is_not_taken_for_a_rank() -> None:
    given = {"OMPI_COMM_WORLD_RANK": "0", "PMIX_RANK": "0", "PATH": "/bin", "OMP_NUM_THREADS": "8"}
    assert watch.environment(given) == {"PATH": "/bin", "OMP_NUM_THREADS": "1"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_ends_a_run_with_its_results(tmp_path: Path, number: signal.Signals) -> None:
    def interrupt(status: Status) -> None:
        if not status.evaluating:
            os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    summary = summary_of(alone(small(tmp_path, "seconds = 60", stragglers={"model": "none"}), report=interrupt))
    assert summary["ended"] == "interrupted"
    assert summary["wall_seconds"] < 60
    assert signal.getsignal(number) is before


# Baseline and variants


def test_allreduce(tmp_path: Path) -> None:
    folder = in_loopback(small(tmp_path, "samples = 160", rule=ALLREDUCE))
    summary = summary_of(folder)
    assert (summary["ended"], summary["rule"]) == ("samples", {"name": "allreduce"})
    assert len(set(summary["rounds"])) == 1
    assert 160 <= summary["samples"] <= 160 + 2 * 32
    assert summary["consensus_distance"] == pytest.approx(0, abs=1e-6)
    assert {rank["exchanges"] for rank in summary["per_rank"]} == {0}
    assert {line.reason for line in trace.read(folder / "trace-2.jsonl").rounds} == {"all-reduce"}
    assert not list(folder.glob("events-*")), "there is no engine to record"


@pytest.mark.parametrize("buffers", ["local", "average"])
def test_batch_norm(tmp_path: Path, buffers: str) -> None:
    settings = small(
        tmp_path,
        "rounds = 3",
        model={"name": "cnn_bn"},
        exchange={"buffers": buffers},
        evaluation={"test_samples": 50, "every": 0.01},
    )
    folder = in_loopback(settings, size=3)
    assert summary_of(folder)["rounds"] == [3, 3, 3]
    assert all(line.loss < 100 for line in read_metrics(folder))


def test_clipping_and_a_scheduler(tmp_path: Path) -> None:
    """A learning rate of 0 after the first step: the model stands still."""
    keys = {"name": "sgd", "lr": 0.5, "clip_norm": 0.1, "scheduler": {"name": "StepLR", "step_size": 1, "gamma": 0.0}}
    steady = {"stragglers": STEADY, "evaluation": {"every": 0.0021}}
    lines = read_metrics(alone(small(tmp_path, "rounds = 5", optimizer=keys, **steady)))
    trained = [line.loss for line in lines if line.rounds > 0]
    assert len(trained) > 1
    assert len(set(trained)) == 1
    unclipped = read_metrics(alone(small(tmp_path, "rounds = 5", optimizer={**keys, "clip_norm": None}, **steady)))
    assert unclipped[-1].loss != lines[-1].loss


def test_one_rank_waits_for_nobody(tmp_path: Path) -> None:
    seen: list[Status] = []
    folder = alone(small(tmp_path, "samples = 80", stragglers={"model": "none"}), report=seen.append)
    summary = summary_of(folder)
    assert (summary["ranks"], summary["samples"], summary["rounds"], summary["consensus_distance"]) == (1, 80, [10], 0.0)
    assert summary["per_rank"][0]["bytes_sent"] == 0
    assert [status.evaluating for status in seen] == [False] * (len(seen) - 1) + [True]
    assert (seen[-1].samples, seen[-1].samples_wanted, seen[-1].rounds) == (80, 80, 10)


def test_no_trace_and_no_recording(tmp_path: Path) -> None:
    folder = in_loopback(small(tmp_path, run={"trace": False, "record": False}), size=2)
    assert {path.name for path in folder.iterdir()} == {"config.toml", "metrics.jsonl", "summary.json", "curves.png"}


# What goes wrong


@pytest.mark.parametrize("rule", [{"name": "dtur"}, ALLREDUCE])
def test_a_loss_that_is_no_number_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rule: dict[str, str]) -> None:
    # A rank that was abandoned waits for the others when Python exits; this world's have gone with it.
    monkeypatch.setattr(atexit, "register", lambda function: function)
    with pytest.raises(NonFiniteLoss) as caught:
        in_loopback(small(tmp_path, "rounds = 50", optimizer=HUGE, rule=rule))
    said = re.match(r"the loss of rank (\d) is (nan|inf) in round (\d+); lower optimizer\.lr", str(caught.value))
    assert said, caught.value
    assert f"on rank {said[1]}, round {said[3]}" in caught.value.__notes__
    (folder,) = tmp_path.iterdir()
    assert not (folder / "summary.json").exists()


def test_a_loss_that_is_no_number_may_be_ignored(tmp_path: Path) -> None:
    folder = in_loopback(small(tmp_path, "rounds = 12", optimizer=HUGE, run={"on_nan": "ignore"}))
    summary = summary_of(folder)
    assert summary["rounds"] == [12] * 4
    assert summary["final"]["loss"] is None
    assert "NaN" not in (folder / "metrics.jsonl").read_text() + (folder / "summary.json").read_text()


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"run\.out = .*file.*: no folder for the results can be made there"):
        in_loopback(small(tmp_path / "file" / "runs"), size=2)


def test_a_folder_that_is_there_already(tmp_path: Path) -> None:
    settings, now, transport = small(tmp_path), datetime(2026, 1, 2, 3, 4, 5), SingleTransport()
    names = [agree_on_folder(settings, transport, now).name for _ in range(3)]
    assert names == ["small-20260102-030405", "small-20260102-030405-2", "small-20260102-030405-3"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"run": {"ranks": 3}}, r"run\.ranks = 3: 2 ranks were started"),
        ({"model": {"name": "cnm"}}, "unknown model 'cnm'; did you mean 'cnn'"),
        ({"optimizer": {"name": "sgd", "nesterov": True}}, "torch.optim.SGD refuses"),
    ],
)
def test_what_cannot_be_run_is_refused_by_all_ranks_before_anything_is_written(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    settings = small(tmp_path / "runs", **changes)

    def attempt(transport: Any) -> str:
        with pytest.raises(ConfigError) as caught:
            experiment.run(settings, transport)
        return str(caught.value)

    assert all(re.search(said, message) for message in loopback.run(2, attempt))
    assert not (tmp_path / "runs").exists()
