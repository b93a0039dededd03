"""Runs with a parameter server or with coded gradients that go on from checkpoints."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from consensus.checkpoint.store import Store
from consensus.config import RunConfig
from consensus.errors import ConfigError, DeadRanks
from consensus.rules.serving import SERVER_RULES
from consensus.run import experiment, simulation
from consensus.run.checkpoints import FOLDER, LATEST, find, way_on
from consensus.run.position import take_up
from consensus.run.prepare import prepare
from consensus.run.service import Service
from consensus.run.simulation import simulate
from consensus.transport import loopback
from tests.checkpointed_runs import models, near, run
from tests.experiments import small, summary_of

MOMENTUM = {"lr": 0.3, "momentum": 0.9, "scheduler": {"name": "exponentiallr", "gamma": 0.9}}
CODE = {"workers_per_edge": [1, 2], "parts": 3, "payload": "float64"}
SHORT = {"ssp": {"s": 1}, "elastic": {"R": 3}}


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (simulation, experiment):
        monkeypatch.setattr(module, "draw_curves", lambda runs, path: path.touch())


def served(out: Path, rounds: int = 0, rule: str = "bsp", stop: str = "", **changes: Any) -> RunConfig:
    tables = {"optimizer": MOMENTUM, "checkpoint": {"every": "3 rounds"}, **changes}
    return small(out, stop or f"rounds = {rounds}", rule={"name": rule, **SHORT.get(rule, {})}, **tables)


def coded(out: Path, rounds: int, scheme: str = "hgc", **changes: Any) -> RunConfig:
    coding = {**CODE, **changes.pop("coding", {})}
    return served(out, rounds, scheme, coding=coding, data={"batch": 5}, **changes)


def forget_last(folder: Path) -> None:
    """As if the job had been killed: there are no last files."""
    for path in (folder / FOLDER).glob("*last*"):
        shutil.rmtree(path)


@pytest.mark.parametrize(
    ("changes", "size"),
    [
        ({}, 4),
        ({"server": {"push": "pull"}}, 4),
        ({"server": {"servers": 2}}, 5),
        ({"model": {"name": "cnn_bn"}, "exchange": {"buffers": "average"}, "data": {"limit": 50}}, 3),
        ({"model": {"name": "cnn_bn"}, "exchange": {"buffers": "local"}, "data": {"limit": 50}, "server": {"servers": 2}}, 4),
    ],
    ids=["wait", "pull", "two-servers", "buffers-averaged", "buffers-local-two-servers"],
)
def test_under_bsp_a_run_in_two_halves_is_one_run(tmp_path: Path, changes: dict[str, Any], size: int) -> None:
    whole = run(served(tmp_path / "whole", 8, **changes), size)
    half = run(served(tmp_path / "halves", 5, **changes), size)
    rest = run(served(tmp_path / "halves", 8, **changes), size, resume=str(half))
    # Workers have all of the model, and each the buffers and counters of its own batches.
    near(models(whole, size - 2, size - 1), models(rest, size - 2, size - 1))
    ends = [summary_of(folder) for folder in (whole, rest)]
    assert ends[0]["rounds"] == ends[1]["rounds"] == [8] * size
    assert ends[0]["samples"] == ends[1]["samples"]
    assert ends[0]["server"] == ends[1]["server"]
    assert ends[0]["final"] == pytest.approx(ends[1]["final"], rel=1e-4)
    assert ends[1]["resumed"] == {"run": str(half), "set": "checkpoint-0001-00000002", "ranks": size}
    assert ends[1]["wall_seconds"] == pytest.approx(ends[0]["wall_seconds"], rel=0.25)


def test_a_run_that_was_killed_goes_on_from_its_last_set(tmp_path: Path) -> None:
    changes, size = {"server": {"servers": 2}}, 5
    whole = run(served(tmp_path / "whole", 8, **changes), size)
    killed = run(served(tmp_path / "killed", 7, **changes), size)
    forget_last(killed)
    rest = run(served(tmp_path / "killed", 8, **changes), size, resume=str(killed))
    assert summary_of(rest)["resumed"]["set"] == "checkpoint-0001-00000002"
    assert summary_of(rest)["server"]["updates"] == 8
    near(models(whole, size - 1), models(rest, size - 1))


@pytest.mark.parametrize("rule", [rule for rule in SERVER_RULES if rule != "bsp"])
def test_other_rules_go_on_and_learn(tmp_path: Path, rule: str) -> None:
    settings: dict[str, Any] = {"optimizer": {"lr": 0.1}, "checkpoint": {"every": 0.02}, "data": {"limit": 192}}
    half = run(served(tmp_path, 8, rule, **settings))
    rest = run(served(tmp_path, 16, rule, **settings), resume=LATEST)
    before, after = summary_of(half), summary_of(rest)
    assert after["resumed"]["run"] == str(half)
    assert after["rounds"][1:] == [16] * 3
    assert after["server"]["updates"] == after["rounds"][0] > before["server"]["updates"]
    assert after["server"]["gradients"] > before["server"]["gradients"]
    assert after["samples"] == 2 * before["samples"] == 3 * 16 * 8
    assert after["final"]["loss"] < before["final"]["loss"]


def test_all_write_at_about_one_version_and_go_on_from_the_servers(tmp_path: Path) -> None:
    """Under asp a worker takes a third of the steps that the server makes updates."""
    settings = served(tmp_path, 30, "asp", checkpoint={"every": "15 rounds", "keep": 9})
    folder = run(settings)
    forget_last(folder)
    store = Store(folder / FOLDER, 0, 1)
    newest = store.newest()
    assert newest is not None
    versions = [header.rounds for header in store.headers(newest).values()]
    assert newest.number >= 4
    assert versions[0] == 15 * newest.number
    assert all(0 <= version - versions[0] < 15 for version in versions)
    assert len(set(versions)) > 1
    found = find(settings, str(folder), 4)
    assert found is not None
    positions = loopback.run(4, lambda rank: take_up(found, settings, prepare(settings, rank.rank, 4), rank))
    (server,) = models(folder, 0)
    for position in positions:
        assert position.training is not None
        assert position.engine["version"] == versions[0]
        assert all(torch.equal(position.training["model"][name], server[name]) for name in server)


@pytest.mark.parametrize(("servers", "size"), [(1, 4), (2, 6)])
def test_others_start_from_the_servers_model_and_say_so(
    tmp_path: Path, servers: int, size: int, caplog: pytest.LogCaptureFixture
) -> None:
    ranks = 3 + servers
    half = run(served(tmp_path, 6, server={"servers": servers}), ranks)
    settings = served(tmp_path, 7, optimizer={"lr": 0.0}, server={"servers": 3 - servers})
    with caplog.at_level(logging.WARNING):
        rest = run(settings, size, resume=str(half))
    assert f"of {ranks} ranks, {ranks} of them whole, and now there are {size}: all start from the server's model" in caplog.text
    near(models(half, ranks - 1), models(rest, size - 1))
    before, after = summary_of(half), summary_of(rest)
    workers = size - (3 - servers)
    assert after["samples"] == before["samples"] + workers * 8
    assert after["server"]["gradients"] == before["server"]["gradients"] + workers
    assert after["per_rank"][0]["samples"] == 0
    assert after["server"]["updates"] == before["server"]["updates"] + 1
    assert after["rounds"] == [7] * size


def test_a_finished_run_has_nothing_left_to_do(tmp_path: Path) -> None:
    for settings, size in ((served(tmp_path / "served", 6), 4), (coded(tmp_path / "coded", 6), 6)):
        done = run(settings, size)
        again = run(settings, size, resume=str(done))
        assert summary_of(again)["rounds"][0] == 6
        assert summary_of(again)["final"] == summary_of(done)["final"]
        near(models(done, 0), models(again, 0))


def test_coded_gradients_go_on_as_if_nothing_had_been(tmp_path: Path) -> None:
    """Stragglers are drawn in both, so other workers are late; the model is that of the exact gradients all the same."""
    whole = run(coded(tmp_path / "whole", 8), 6)
    half = run(coded(tmp_path / "halves", 7), 6)
    forget_last(half)
    rest = run(coded(tmp_path / "halves", 8), 6, resume=LATEST)
    near(models(whole, 0), models(rest, 0))
    ends = [summary_of(folder) for folder in (whole, rest)]
    for key in ("updates", "parts"):
        assert ends[0]["coding"][key] == ends[1]["coding"][key]
    assert ends[0]["samples"] == ends[1]["samples"]
    assert ends[1]["rounds"][0] == 8
    assert ends[1]["resumed"] == {"run": str(half), "set": "checkpoint-0001-00000002", "ranks": 6}


def test_any_layout_goes_on_with_coded_gradients_of_as_many_parts(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    whole = run(coded(tmp_path / "whole", 8), 6)
    half = run(coded(tmp_path / "halves", 5), 6)
    rest = run(coded(tmp_path / "halves", 8, "flat", coding={"workers_per_edge": [4]}), 5, resume=str(half))
    near(models(whole, 0), models(rest, 0))
    assert not caplog.records
    run(coded(tmp_path / "other", 8, coding={"parts": 6}), 6, resume=str(half))
    assert "had its data in 3 parts, and now there are 6" in caplog.text


def test_checkpoints_of_another_kind(tmp_path: Path) -> None:
    half = run(served(tmp_path, 3))
    for other, whom in ((served(tmp_path, 3, "full"), "neighbours"), (coded(tmp_path, 3), "coded gradients")):
        words = rf"was a run with a parameter server \(rule 'bsp'\), and one with {whom} .* --set rule.name=bsp"
        for name in (str(half), LATEST):
            with pytest.raises(ConfigError, match=words):
                find(other, name, 4)
    for size in (4, 3):
        with pytest.raises(ConfigError, match=rf"model.name was 'logistic' in {half}, is '2nn': .* --set model.name=logistic"):
            run(served(tmp_path, 9, model={"name": "2nn"}), size, resume=str(half))
    assert list(tmp_path.iterdir()) == [half]


def test_how_to_go_on(tmp_path: Path) -> None:
    settings = served(tmp_path, 4)
    folder = run(settings)
    told = way_on(settings, folder)
    newest = folder / FOLDER / "checkpoint-0001-00000002"
    assert told.endswith(f"{newest}; to go on from it: consensus run {folder}/config.toml --resume {folder}")
    (folder / FOLDER / "checkpoint-0001-last" / "rank-00001.ckpt").unlink()
    assert "checkpoint-0001-00000001" in way_on(settings, folder)
    found = find(settings, str(folder), 4)
    fresh = tmp_path / "fresh"
    assert way_on(settings, fresh, found).endswith(f"to do so again: consensus run {fresh}/config.toml --resume {folder}")
    shutil.rmtree(folder / FOLDER)
    assert "No checkpoint of" in way_on(settings, folder)
    assert "has no checkpoints to go on from" in way_on(small(tmp_path, rule={"name": "bsp"}), folder)


def test_survivors_of_a_server_name_the_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    serve = Service.run

    def die(service: Service) -> float:
        serve(service)
        raise DeadRanks("rank 0 cannot go on")

    monkeypatch.setattr(Service, "run", die)
    with pytest.raises(DeadRanks, match="cannot go on. The newest complete checkpoint is .*-00000003; to go on .* --resume"):
        run(served(tmp_path, 8))


def test_a_simulation_writes_none(tmp_path: Path) -> None:
    for settings, size in ((served(tmp_path, 4), 4), (coded(tmp_path, 4), 6)):
        folder = simulate(settings.model_copy(update={"run": settings.run.model_copy(update={"ranks": size})}))
        assert not (folder / FOLDER).exists()
