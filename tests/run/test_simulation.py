"""Simulated experiments: against the reference, against the deterministic twin, and against themselves."""

from __future__ import annotations

import json
import math
import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest

from consensus import config, trace
from consensus.config import RunConfig
from consensus.errors import ConfigError, DataError, NonFiniteLoss
from consensus.rules import RULES
from consensus.run import experiment, simulation, watch
from consensus.run.marks import spacing
from consensus.run.results import read_metrics
from consensus.run.simulation import simulate
from consensus.run.status import Status
from tests.experiments import in_loopback, small, summary_of
from tests.ranks import ROOT
from tests.support.oracle import Oracle, Outcome, whole_shares

DOCUMENTED = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")

ALLREDUCE = {"name": "allreduce"}
RULE_KEYS: dict[str, dict[str, Any]] = {
    **{name: {"name": name} for name in RULES},
    "deadline": {"name": "deadline", "seconds": 0.004},
    "gap": {"name": "gap", "window": 3},
}
RULES_AND_WEIGHTS = [*((rule, "static") for rule in RULES), ("full", "active"), ("dtur", "active")]


def of(settings: RunConfig, size: int) -> RunConfig:
    """The same, of so many ranks."""
    return settings.model_copy(update={"run": settings.run.model_copy(update={"ranks": size})})


def simulated(out: Path, stop: str = "rounds = 6", size: int = 4, *, timing: bool = False, **changes: dict[str, Any]) -> Path:
    """The folder of a simulated run of a few rounds."""
    return simulate(of(small(out, stop, **changes), size), timing=timing)


@pytest.fixture
def pictures() -> None:
    """Draw curves in this test."""


@pytest.fixture(autouse=True)
def _no_pictures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes longer than most of these runs."""
    if "pictures" not in request.fixturenames:
        for module in (simulation, experiment):
            monkeypatch.setattr(module, "draw_curves", lambda runs, path: path.touch())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a run on samples, that several tests look at."""
    return simulated(tmp_path_factory.mktemp("runs"), "samples = 400")


# The oracle


@pytest.mark.parametrize("order", ["adapt-combine", "combine-adapt"])
@pytest.mark.parametrize("kind", ["ring", "star"])
def test_full_is_the_reference_in_the_simulator_and_on_the_twin(tmp_path: Path, order: str, kind: str) -> None:
    settings = whole_shares(tmp_path, "rounds = 7", rule={"name": "full"}, exchange={"order": order}, topology={"kind": kind})
    expected = Oracle(settings, 5).lockstep(7, order)
    assert Outcome.of(simulate(of(settings, 5))).agrees(expected)
    assert Outcome.of(in_loopback(settings, 5)).agrees(expected)
    assert expected.distance > 1e-3


@pytest.mark.parametrize(("rule", "weights"), RULES_AND_WEIGHTS)
def test_every_rule_is_the_replay_of_its_traces(tmp_path: Path, rule: str, weights: str) -> None:
    slow = {"model": "transient", "seconds": 0.002, "probability": 0.4, "factor": 5}
    graph = {"kind": "erdos_renyi", "probability": 0.5}
    changes = {"rule": RULE_KEYS[rule], "exchange": {"weights": weights}, "stragglers": slow, "topology": graph}
    settings = whole_shares(tmp_path, "rounds = 12", **changes)
    oracle, outcomes = Oracle(settings, 6), []
    for run in (simulate(of(settings, 6)), in_loopback(settings, 6)):
        outcomes.append(Outcome.of(run))
        assert outcomes[-1].agrees(oracle.traced(run))
    if rule != "full":
        assert not outcomes[0].agrees(oracle.lockstep(12))


def test_full_exchanges_the_same_as_on_the_twin(tmp_path: Path) -> None:
    settings = small(tmp_path, rule={"name": "full"})
    real, virtual = in_loopback(settings), simulate(of(settings, 4))

    def exchanges(folder: Path) -> list[list[set[tuple[int, int]]]]:
        traces = [trace.read(folder / f"trace-{rank}.jsonl").rounds for rank in range(4)]
        return [[{exchange[:2] for exchange in line.exchanges} for line in rounds] for rounds in traces]

    assert exchanges(real) == exchanges(virtual)
    assert [len(each) for each in exchanges(real)[0]] == [2] * 6


VARIANTS: dict[str, dict[str, Any]] = {
    "every": {"exchange": {"every": 3}},
    "every and combine-adapt": {"exchange": {"every": 3, "order": "combine-adapt"}},
    "active": {"exchange": {"weights": "active"}},
    "momentum, clipping, scheduler": {
        "optimizer": {
            "name": "sgd", "lr": 0.5, "momentum": 0.9, "clip_norm": 0.5,
            "scheduler": {"name": "StepLR", "step_size": 2, "gamma": 0.5},
        }
    },
    "adam": {"optimizer": {"name": "adam", "lr": 0.01}},
    "by class": {"data": {"partition": "by-class"}},
    "batch norm": {"model": {"name": "cnn_bn"}, "evaluation": {"test_samples": 100}},
    "batch norm, local": {"model": {"name": "cnn_bn"}, "evaluation": {"test_samples": 100}, "exchange": {"buffers": "local"}},
    "all-reduce": {"rule": ALLREDUCE},
    "all-reduce, clipping, batch norm": {
        "rule": ALLREDUCE, "model": {"name": "cnn_bn"}, "evaluation": {"test_samples": 100},
        "optimizer": {"name": "sgd", "lr": 0.1, "clip_norm": 0.1},
    },
}  # fmt: skip


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_run_in_lockstep_ends_where_the_twin_does(tmp_path: Path, variant: str) -> None:
    settings = small(tmp_path, "rounds = 5", **{"rule": {"name": "full"}, **VARIANTS[variant]})
    real, virtual = in_loopback(settings, 3), simulate(of(settings, 3))
    assert Outcome.of(virtual).agrees(Outcome.of(real))
    assert summary_of(virtual)["rounds"] == summary_of(real)["rounds"] == [5] * 3
    assert summary_of(virtual)["samples"] == summary_of(real)["samples"]
    if "all-reduce" not in variant:
        last = [summary_of(folder)["per_rank"][2] for folder in (virtual, real)]
        assert last[0]["exchanges"] == last[1]["exchanges"]
        assert last[0]["bytes_sent"] == pytest.approx(last[1]["bytes_sent"], rel=0.2)


# What a simulation leaves behind


def keys_of(value: Any) -> set[str]:
    """All keys in a JSON value, at any depth."""
    if isinstance(value, dict):
        return set(value).union(*map(keys_of, value.values()))
    return set().union(*map(keys_of, value)) if isinstance(value, list) else set()


def test_the_folder_is_that_of_a_run(folder: Path) -> None:
    names = {path.name for path in folder.iterdir()}
    assert names == {"config.toml", "metrics.jsonl", "summary.json", "curves.png", *(f"trace-{rank}.jsonl" for rank in range(4))}
    summary = summary_of(folder)
    assert (summary["simulated"], summary["ranks"], summary["ended"]) == (True, 4, "samples")
    assert summary["started"].startswith("1970-01-01T00:00:00")
    assert 400 <= summary["samples"] < 400 + 4 * 2 * 8
    assert summary["samples"] == sum(rank["samples"] for rank in summary["per_rank"])
    assert config.load(folder / "config.toml").run.ranks == 4
    found = set().union(*(keys_of(json.loads(line)) for path in folder.glob("*.jsonl") for line in path.read_text().splitlines()))
    assert sorted(name for name in found | keys_of(summary) if f"`{name}`" not in DOCUMENTED) == []


def test_the_metrics_are_at_the_marks(folder: Path) -> None:
    lines, summary = read_metrics(folder), summary_of(folder)
    distance = 0.005 * spacing(int(summary["wall_seconds"] / 0.005), 8)
    assert [line.seconds for line in lines[:-1]] == pytest.approx([distance * mark for mark in range(1, len(lines))], abs=1e-6)
    assert lines[-1].seconds == summary["wall_seconds"]
    assert lines[-1].accuracy > lines[0].accuracy


def test_the_traces_add_up(folder: Path) -> None:
    for rank, result in enumerate(summary_of(folder)["per_rank"]):
        rounds = trace.read(folder / f"trace-{rank}.jsonl").rounds
        assert len(rounds) == result["rounds"]
        assert sum(line.compute for line in rounds) == pytest.approx(result["compute_seconds"], abs=1e-4)
        assert sum(line.wait for line in rounds) == pytest.approx(result["wait_seconds"], abs=1e-4)
        assert rounds[-1].closed == pytest.approx(result["ended_at"], abs=1e-6)
        assert sum(len(line.backups) for line in rounds) == pytest.approx(result["mean_backups"] * len(rounds))


@pytest.mark.parametrize("rule", [{"name": "dtur"}, {"name": "static_backup"}, ALLREDUCE])
@pytest.mark.parametrize("timing", [False, True])
def test_the_same_file_and_seed_are_the_same_bytes(tmp_path: Path, pictures: None, rule: dict[str, str], timing: bool) -> None:
    def files(seed: int) -> dict[str, bytes]:
        folder = simulated(tmp_path, rule=rule, run={"seed": seed}, timing=timing)
        return {path.name: path.read_bytes() for path in folder.iterdir()}

    first = files(1)
    assert first == files(1)
    assert first["summary.json"] != files(2)["summary.json"]
    assert len(first) == 4 + 4


def test_marks_are_those_of_the_twin(tmp_path: Path) -> None:
    settings = small(tmp_path, "rounds = 40", rule={"name": "full"}, evaluation={"every": 0.001, "marks": 8})
    real, virtual = (
        [line.seconds for line in read_metrics(run)] for run in (in_loopback(settings, 3), simulate(of(settings, 3)))
    )
    assert real[:-1] == virtual[:-1]
    assert 4 <= len(virtual) - 1 <= 8


# Timing alone


def test_timing_takes_as_long_as_training(tmp_path: Path) -> None:
    for rule in ({"name": "dtur"}, {"name": "static_backup"}, ALLREDUCE):
        trained, timed = (summary_of(simulated(tmp_path, rule=rule, timing=timing)) for timing in (False, True))
        differ = {"final", "consensus_distance", "targets"}
        assert {key for key in trained if trained[key] != timed[key]} <= differ
        assert timed["final"] == {"accuracy": None, "loss": None}
        assert timed["consensus_distance"] is None


def test_timing_needs_no_data_where_the_size_is_told(tmp_path: Path) -> None:
    changes: dict[str, Any] = {"data": {"name": "mnist", "dir": str(tmp_path)}}
    with pytest.raises(DataError) as caught:
        simulated(tmp_path / "runs", timing=True, **changes)
    assert "network.model_bytes" in caught.value.__notes__[0]
    folder = simulated(tmp_path / "runs", timing=True, network={"model_bytes": 1_000_000, "bandwidth": 1e8}, **changes)
    assert summary_of(folder)["per_rank"][0]["bytes_sent"] > 1_000_000
    assert min(line.wait for line in trace.read(folder / "trace-0.jsonl").rounds if line.exchanges) > 0.01


def test_slow_links_slow_the_run(tmp_path: Path) -> None:
    network: dict[str, Any] = {"latency": 1e-3, "bandwidth": 1e9}
    slow = {**network, "slow": [{"ranks": [1, 0], "factor": 30.0}]}
    quick, late = (
        summary_of(simulated(tmp_path, rule={"name": "full"}, network=keys, timing=True))["wall_seconds"]
        for keys in (network, slow)
    )
    assert late > 1.5 * quick


# How it ends


def test_stop_on_seconds(tmp_path: Path) -> None:
    for rule in ({"name": "dtur"}, {"name": "run_free"}, ALLREDUCE):
        summary = summary_of(simulated(tmp_path, "seconds = 0.03", rule=rule))
        assert summary["ended"] == "seconds"
        assert all(0.03 <= rank["ended_at"] < 0.08 for rank in summary["per_rank"])
        assert {rank["ended"] for rank in summary["per_rank"]} == {"seconds"}


@pytest.mark.parametrize("rule", [{"name": "dtur"}, ALLREDUCE])
def test_stop_at_a_target(tmp_path: Path, rule: dict[str, str]) -> None:
    folder = simulated(tmp_path, "seconds = 60, target = { value = 0.6 }", rule=rule, evaluation={"every": 0.02})
    summary, stop = summary_of(folder), json.loads((folder / watch.STOP).read_text())
    assert summary["ended"] == "target"
    assert {rank["ended"] for rank in summary["per_rank"]} == {"target"}
    assert stop["reached"] >= stop["value"] == 0.6
    assert summary["targets"][".6"] == pytest.approx(stop["seconds"])
    assert stop["seconds"] <= summary["wall_seconds"] < stop["seconds"] + 0.1


def test_all_reduce_ends_one_step_after_the_vote(tmp_path: Path) -> None:
    real, virtual = (summary_of(run(small(tmp_path, "samples = 160", rule=ALLREDUCE))) for run in
                     (in_loopback, lambda settings: simulate(of(settings, 4))))  # fmt: skip
    assert real["rounds"] == virtual["rounds"]
    assert real["samples"] == virtual["samples"]


def test_a_signal_ends_it_with_its_results(tmp_path: Path) -> None:
    seen: list[Status] = []

    def interrupt(status: Status) -> None:
        seen.append(status)
        if not status.evaluating:
            os.kill(os.getpid(), signal.SIGINT)

    summary = summary_of(simulate(of(small(tmp_path, "seconds = 600"), 3), report=interrupt))
    assert summary["ended"] == "interrupted"
    assert summary["wall_seconds"] < 600
    assert seen[-1].evaluating
    assert math.isfinite(seen[0].loss)


def test_no_trace(tmp_path: Path) -> None:
    names = {path.name for path in simulated(tmp_path, run={"trace": False}).iterdir()}
    assert names == {"config.toml", "metrics.jsonl", "summary.json", "curves.png"}


def test_one_rank(tmp_path: Path) -> None:
    for rule in ({"name": "dtur"}, ALLREDUCE):
        summary = summary_of(simulated(tmp_path, "samples = 80", 1, rule=rule, stragglers={"model": "constant", "seconds": 0.25}))
        assert summary["consensus_distance"] == 0.0
        assert summary["per_rank"][0]["bytes_sent"] == 0
        assert summary["wall_seconds"] == 0.25 * summary["rounds"][0]


# What goes wrong


@pytest.mark.parametrize("rule", [{"name": "dtur"}, ALLREDUCE])
def test_a_loss_that_is_no_number(tmp_path: Path, rule: dict[str, str]) -> None:
    huge = {"name": "sgd", "lr": 1e38}
    with pytest.raises(NonFiniteLoss, match=r"the loss of rank \d is (nan|inf) in round \d+; lower optimizer\.lr"):
        simulated(tmp_path, "rounds = 50", rule=rule, optimizer=huge)
    folder = simulated(tmp_path, "rounds = 12", rule=rule, optimizer=huge, run={"on_nan": "ignore"})
    assert summary_of(folder)["rounds"] == [12] * 4
    assert summary_of(folder)["final"]["loss"] is None


REPLAY = {"model": "replay", "durations": [[0.1], [0.2, 0.3]]}


@pytest.mark.parametrize(
    ("stop", "size", "timing", "changes", "said"),
    [
        ("rounds = 2", None, False, {}, r"run\.ranks: missing; a simulation starts no ranks"),
        ("rounds = 2", 2, False, {"stragglers": {"model": "none"}}, r"stragglers\.model = 'none': .*--set stragglers\.model="),
        ("target = { value = 0.5 }", 2, True, {}, r"run\.stop\.target: .*leave out --timing\nrun\.stop: nothing else would end"),
        ("rounds = 2", 2, False, {"rule": ALLREDUCE, "exchange": {"every": 2}}, r"'allreduce': .*only buffers applies"),
        ("rounds = 2", 3, False, {"stragglers": REPLAY}, r"stragglers\.durations: recorded for 2 ranks, expected 3"),
        ("rounds = 2", 2, False, {"network": {"slow": [{"ranks": [0, 2], "factor": 2.0}]}}, r"network\.slow: ranks \[0, 2\]"),
        ("rounds = 2", 2, False, {"model": {"name": "cnm"}}, "unknown model 'cnm'; did you mean 'cnn'"),
    ],
)  # fmt: skip
def test_what_cannot_be_simulated_is_refused_before_anything_is_written(
    tmp_path: Path, stop: str, size: int | None, timing: bool, changes: dict[str, Any], said: str
) -> None:
    settings = small(tmp_path / "runs", stop, **changes)
    with pytest.raises(ConfigError) as caught:
        simulate(settings if size is None else of(settings, size), timing=timing)
    assert re.search(said, str(caught.value), re.DOTALL), caught.value
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("seconds", [-0.1, math.nan])
def test_negative_and_undefined_times(tmp_path: Path, seconds: float) -> None:
    with pytest.raises(ValueError, match=r"seconds"):
        small(tmp_path, stragglers={"model": "constant", "seconds": seconds})
    with pytest.raises(ValueError, match=r"durations\[0\]\[1\]"):
        small(tmp_path, stragglers={"model": "replay", "durations": [[0.1, seconds]]})
    with pytest.raises(ValueError, match="latency"):
        small(tmp_path, network={"latency": seconds})


def test_steps_are_scaled_where_some_ranks_take_fewer(tmp_path: Path) -> None:
    slow = {"model": "persistent", "seconds": 0.001, "ranks": [0], "factor": 5}
    even = {"model": "constant", "seconds": 0.001}
    losses = {}
    for name, stragglers in (("slow", slow), ("even", even)):
        for scale in ("none", "participation"):
            changes = {"rule": {"name": "static_backup"}, "stragglers": stragglers, "exchange": {"step_scale": scale}}
            losses[name, scale] = [line.loss for line in read_metrics(simulated(tmp_path, "rounds = 40", **changes))]
    assert losses["even", "none"] == losses["even", "participation"]
    assert losses["slow", "none"] != losses["slow", "participation"]
