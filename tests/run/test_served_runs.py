"""Experiments with a parameter server: on the in-process twin, on the virtual clock, and against the baseline that they equal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from consensus import trace
from consensus.cli.contest import Contest
from consensus.cli.entrants import entrants
from consensus.config import RunConfig
from consensus.errors import ConfigError
from consensus.report.load import load_run
from consensus.report.words import facts
from consensus.rules.serving import SERVER_RULES
from consensus.run import experiment, simulation
from consensus.run.prepare import check_names
from consensus.run.results import read_metrics
from consensus.run.rows import mean_backups, trainers
from consensus.run.simulation import simulate
from tests.experiments import in_loopback, small, summary_of
from tests.ranks import ROOT

DOCUMENTED = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
SHORT = {"ssp": {"s": 1}, "elastic": {"R": 3}}

every_rule = pytest.mark.parametrize("rule", SERVER_RULES)


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (simulation, experiment):
        monkeypatch.setattr(module, "draw_curves", lambda runs, path: path.touch())


def served(out: Path, rule: str, stop: str = "rounds = 6", **changes: dict[str, Any]) -> RunConfig:
    return small(out, stop, rule={"name": rule, **SHORT.get(rule, {})}, **changes)


def of(settings: RunConfig, size: int) -> RunConfig:
    return settings.model_copy(update={"run": settings.run.model_copy(update={"ranks": size})})


@every_rule
def test_a_run(tmp_path: Path, rule: str) -> None:
    folder = in_loopback(served(tmp_path, rule))
    summary = summary_of(folder)
    told = [summary[key] for key in ("architecture", "topology", "ended")]
    assert [summary["rule"]["name"], *told] == [rule, "server", None, "rounds"]
    assert summary["rounds"][1:] == [6, 6, 6]
    server = summary["server"]
    assert set(server) == {"servers", "push", "updates", "gradients", "discarded", "rejected"}
    assert all(f"`{key}`" in DOCUMENTED for key in ("server", *server))
    assert server["updates"] == summary["rounds"][0] > 0
    assert server["rejected"] == {}
    # A gradient whose worker stopped right after may not have counted as one that came.
    assert sum(server["discarded"].values()) <= 18
    assert summary["samples"] == 3 * 6 * 8
    assert (summary["consensus_distance"], summary["per_rank"][0]["samples"]) == (0.0, 0)
    updates = trace.read(folder / "trace-0.jsonl").rounds
    assert len(updates) == server["updates"]
    assert all(0 <= update.opened <= update.closed for update in updates)
    assert all({exchange[0] for exchange in update.exchanges} <= {1, 2, 3} for update in updates)
    assert [len(trace.read(folder / f"trace-{rank}.jsonl").rounds) for rank in (1, 2, 3)] == [6, 6, 6]
    assert not list(folder.glob("events-*"))
    lines = read_metrics(folder)
    assert lines[-1].rounds == server["updates"]
    assert lines[-1].samples == 8 * server["gradients"]
    run = load_run(folder)
    assert run.edges == {(0, 1), (0, 2), (0, 3)}
    assert facts(run)["topology"] == "a parameter server"


@every_rule
def test_a_simulation_is_a_function_of_its_seed(tmp_path: Path, rule: str) -> None:
    folders = [simulate(of(served(tmp_path / name, rule), 5)) for name in "ab"]
    for name in ("metrics.jsonl", "trace-0.jsonl", "trace-4.jsonl"):
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()
    summary = summary_of(folders[0])
    assert summary["simulated"]
    assert summary["rounds"][1:] == [6] * 4


def test_bsp_is_all_reduce_of_the_workers_wherever_it_runs(tmp_path: Path) -> None:
    """The mean of the same workers' gradients on the same samples, so data and stragglers go by the worker."""
    optimizer = {"lr": 0.3, "momentum": 0.5, "clip_norm": 0.5}
    baseline = summary_of(simulate(of(small(tmp_path, rule={"name": "allreduce"}, optimizer=optimizer), 3)))
    loss = pytest.approx(baseline["final"]["loss"], rel=1e-5)
    simulated = summary_of(simulate(of(served(tmp_path, "bsp", optimizer=optimizer), 4)))
    assert simulated["final"]["loss"] == loss
    assert summary_of(in_loopback(served(tmp_path, "bsp", optimizer=optimizer)))["final"]["loss"] == loss
    compute = [[row["compute_seconds"] for row in rows] for rows in (baseline["per_rank"], trainers(simulated))]
    assert compute[0] == pytest.approx(compute[1])


def test_shards_hold_the_same_model_wherever_it_runs(tmp_path: Path) -> None:
    one = summary_of(simulate(of(served(tmp_path, "bsp"), 4)))
    loss = pytest.approx(one["final"]["loss"], rel=1e-6)
    shared = served(tmp_path, "bsp", server={"servers": 3})
    assert summary_of(simulate(of(shared, 6)))["final"]["loss"] == loss
    summary = summary_of(in_loopback(shared, 6))
    assert summary["final"]["loss"] == loss
    assert summary["rounds"][:3] == [6, 6, 6]
    assert len(trainers(summary)) == summary["server"]["servers"] == 3


@pytest.mark.parametrize("buffers", ["average", "local"])
def test_batch_norm_and_a_scheduler(tmp_path: Path, buffers: str) -> None:
    """The served model is judged with statistics of the workers' batches."""
    changes = {"exchange": {"buffers": buffers}, "optimizer": {"scheduler": {"name": "exponentiallr", "gamma": 0.9}}}
    for run in (lambda settings: simulate(of(settings, 3)), lambda settings: in_loopback(settings, 3)):
        summary = summary_of(run(served(tmp_path, "asp", "rounds = 3", **changes)))
        assert summary["final"]["loss"] < 4


def test_averaged_statistics_cannot_be_shared_out(tmp_path: Path) -> None:
    """It is said before a rank is started, and in the simulator in the same words."""
    settings = served(tmp_path, "bsp", model={"name": "cnn_bn"}, server={"servers": 2})
    for refusing in (lambda: check_names(settings, 4), lambda: simulate(of(settings, 4))):
        with pytest.raises(ConfigError, match=r"servers = 2: averaged buffers"):
            refusing()


def test_backups_are_the_servers(tmp_path: Path) -> None:
    settings = small(tmp_path, rule={"name": "backup", "b": 2}, server={"push": "interrupt"})
    summary = summary_of(simulate(of(settings, 6)))
    assert mean_backups(summary) == summary["per_rank"][0]["mean_backups"] == pytest.approx(2, abs=0.5)


@pytest.mark.parametrize("stop", ["samples", "seconds"])
def test_what_ends_it(tmp_path: Path, stop: str) -> None:
    condition = {"samples": "samples = 300, seconds = 1000", "seconds": "seconds = 0.05"}[stop]
    for folder in (in_loopback(served(tmp_path, "dbw", condition)), simulate(of(served(tmp_path, "dbw", condition), 4))):
        assert summary_of(folder)["ended"] == stop


def test_a_target_that_the_server_knows_to_be_reached_ends_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Reached:
        def __init__(self, run: Path) -> None:
            self.questions = 0

        def __enter__(self) -> Reached:
            return self

        def __exit__(self, *error: object) -> None:
            pass

        def reached(self) -> bool:
            self.questions += 1
            return self.questions >= 50

        def finish(self) -> list[Any]:
            return []

    monkeypatch.setattr(experiment, "TargetWatch", Reached)
    summary = summary_of(in_loopback(served(tmp_path, "bsp", "seconds = 1000, target = { value = 0.5 }")))
    assert summary["ended"] == "target"
    assert max(summary["rounds"]) < 100


def test_timing_alone(tmp_path: Path) -> None:
    summary = summary_of(simulate(of(served(tmp_path, "backup"), 5), timing=True))
    assert summary["final"] == {"accuracy": None, "loss": None}
    assert summary["samples"] == 4 * 6 * 8
    with pytest.raises(ConfigError, match="rule.name = 'dbw': decides by losses and gradients; leave out --timing"):
        simulate(of(served(tmp_path, "dbw"), 5), timing=True)


def test_in_a_comparison_a_server_comes_on_top(tmp_path: Path) -> None:
    contest = Contest("digits", entrants("full,bsp,dbw"), ["run.ranks=4", f"run.out={tmp_path}"], 1)
    assert [(config.run.ranks, config.workers(config.run.ranks or 0)) for config in contest.configs()] == [(4, 4), (5, 4), (5, 4)]
    contest = Contest("digits", entrants("full,bsp"), ["run.ranks=4", "run.name=x"], 1)
    assert json.dumps(contest.settings(tmp_path, contest.entrants[1], 3)).count("run.ranks=5") == 1


@pytest.mark.parametrize(
    ("changes", "size", "words"),
    [
        ({"rule": {"name": "bsp"}}, 1, "server.servers = 1 with 1 rank: expected one rank or more that works"),
        ({"rule": {"name": "backup", "b": 3}}, 4, "rule: backup: b = 3 with 3 workers, expected at most 2"),
        ({"rule": {"name": "bsp"}, "server": {"servers": 4}}, 4, "server.servers = 4 with 4 ranks"),
    ],
)
def test_too_few_ranks(tmp_path: Path, changes: dict[str, Any], size: int, words: str) -> None:
    with pytest.raises(ConfigError) as refused:
        small(tmp_path, **changes).check(size)
    assert words in str(refused.value)
