"""Runs that go on from checkpoints: to the bit where that is promised, and in words where it is not."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from consensus.checkpoint.store import Store
from consensus.config import RunConfig
from consensus.errors import ConfigError
from consensus.run import experiment
from consensus.run.checkpoints import FOLDER, LATEST, find
from consensus.run.results import read_metrics
from tests.checkpointed_runs import models, near, run
from tests.experiments import small, summary_of

EVERY = {"every": "3 rounds"}


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(experiment, "draw_curves", lambda runs, path: path.touch())


def same(one: list[dict[str, torch.Tensor]], other: list[dict[str, torch.Tensor]]) -> bool:
    return all(torch.equal(a[name], b[name]) for a, b in zip(one, other, strict=True) for name in a)


def config(out: Path, rounds: int = 0, rule: str = "full", stop: str = "", **changes: Any) -> RunConfig:
    optimizer = {"lr": 0.3, "momentum": 0.9, "scheduler": {"name": "exponentiallr", "gamma": 0.9}}
    return small(out, stop or f"rounds = {rounds}", rule={"name": rule}, optimizer=optimizer, checkpoint=EVERY, **changes)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"exchange": {"order": "combine-adapt"}},
        {"exchange": {"every": 2}},
        {"exchange": {"order": "combine-adapt", "every": 2, "buffers": "local"}},
        {"rule": "allreduce"},
    ],
    ids=["full", "combine-adapt", "every-2", "combine-adapt-every-2", "allreduce"],
)
@pytest.mark.parametrize("size", [2, 4])
def test_a_run_in_two_halves_is_one_run(tmp_path: Path, changes: dict[str, Any], size: int) -> None:
    """To the bit with one neighbour; models of several are summed up in the order in which they come, which is chance."""
    whole = run(config(tmp_path / "whole", 8, **changes), size)
    half = run(config(tmp_path / "halves", 5, **changes), size)
    rest = run(config(tmp_path / "halves", 8, **changes), size, resume=str(half))
    if size == 2 or changes.get("rule") == "allreduce":
        assert same(models(whole, *range(size)), models(rest, *range(size)))
    near(models(whole, *range(size)), models(rest, *range(size)))
    ends = [summary_of(folder) for folder in (whole, rest)]
    assert ends[0]["rounds"] == ends[1]["rounds"] == [8] * size
    assert ends[0]["samples"] == ends[1]["samples"]
    assert ends[0]["final"] == pytest.approx(ends[1]["final"], rel=1e-4)
    assert ends[1]["resumed"] == {"run": str(half), "set": "checkpoint-0001-00000002", "ranks": size}
    assert ends[0]["resumed"] is None
    # Steps are as slow as they would have been, so the clock goes on as well.
    assert ends[1]["wall_seconds"] == pytest.approx(ends[0]["wall_seconds"], rel=0.25)


def test_a_run_that_was_killed_goes_on_from_its_last_set(tmp_path: Path) -> None:
    whole = run(config(tmp_path / "whole", 8))
    killed = run(config(tmp_path / "killed", 7))
    # As if it had been killed in its seventh round: there are no last files, and what was not finished is not there.
    for path in (killed / FOLDER).glob("*last*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    rest = run(config(tmp_path / "killed", 8), resume=str(killed))
    assert summary_of(rest)["resumed"]["set"] == "checkpoint-0001-00000002"
    near(models(whole, *range(4)), models(rest, *range(4)))


@pytest.mark.parametrize("rule", ["dtur", "static_backup", "gap"])
def test_other_rules_go_on_and_learn(tmp_path: Path, rule: str) -> None:
    half = run(config(tmp_path, 9, rule))
    rest = summary_of(run(config(tmp_path, 18, rule), resume=LATEST))
    assert rest["rounds"] == [18] * 4
    assert rest["resumed"]["run"] == str(half)
    assert rest["final"]["loss"] < summary_of(half)["final"]["loss"]


@pytest.mark.parametrize("size", [4, 3])
def test_samples_count_on(tmp_path: Path, size: int) -> None:
    half = run(config(tmp_path, 9))
    summary = summary_of(run(config(tmp_path, stop="samples = 480"), size, resume=str(half)))
    assert summary_of(half)["samples"] < 300
    assert summary["ended"] == "samples"
    # A rank hears of the others' last steps while it takes its own.
    assert 480 <= summary["samples"] <= 480 + 3 * size * 8


def test_a_finished_run_has_nothing_left_to_do(tmp_path: Path) -> None:
    done = run(config(tmp_path, 6))
    for size in (4, 2):
        again = run(config(tmp_path, 6), size, resume=str(done))
        assert summary_of(again)["rounds"] == [6] * size
        assert summary_of(again)["final"] == pytest.approx(summary_of(done)["final"], rel=1e-5)
        assert models(again, *range(size))  # it can be gone on from


def test_marks_of_before_are_the_earlier_runs(tmp_path: Path) -> None:
    half = run(config(tmp_path, 5))
    rest = run(config(tmp_path, 10), resume=str(half))
    resumed_at = summary_of(half)["wall_seconds"]
    assert len(read_metrics(half)) > 2
    assert min(line.seconds for line in read_metrics(rest)) >= resumed_at - 0.005


@pytest.mark.parametrize("size", [2, 6])
def test_another_number_of_ranks_starts_from_the_mean_and_says_so(
    tmp_path: Path, size: int, caplog: pytest.LogCaptureFixture
) -> None:
    half = run(config(tmp_path, 6))
    were = models(half, *range(4))
    mean = {name: np.mean([model[name].numpy().astype(float) for model in were], axis=0) for name in were[0]}
    settings = small(tmp_path, "rounds = 7", rule={"name": "full"}, optimizer={"lr": 0.0}, checkpoint=EVERY)
    with caplog.at_level(logging.WARNING):
        rest = run(settings, size, resume=str(half))
    assert f"checkpoints of 4 ranks, 4 of them whole, and now there are {size}: all start from the mean" in caplog.text
    assert "mean of the models, after 6 rounds; optimizers" in caplog.text
    for model in models(rest, *range(size)):
        for name, value in model.items():
            np.testing.assert_allclose(value.numpy(), mean[name], rtol=1e-6, atol=1e-7)
    # A budget of rounds is one of the whole chain.
    assert summary_of(rest)["samples"] == summary_of(half)["samples"] + size * 8
    assert summary_of(rest)["rounds"] == [7] * size


def test_a_damaged_file_costs_one_interval(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    half = run(config(tmp_path, 7))
    store = Store(half / FOLDER, 0, 1)
    newest = store.newest()
    victim = max((half / FOLDER).rglob("*00002*"), key=lambda path: path.stat().st_mtime)
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 4
    victim.write_bytes(bytes(data))
    with caplog.at_level(logging.WARNING):
        found = find(config(tmp_path, 8), str(half), 4)
    assert found is not None
    assert newest is not None
    assert found.moment < newest
    assert victim.name in caplog.text
    assert summary_of(run(config(tmp_path, 9), resume=str(half)))["rounds"] == [9] * 4


def test_what_cannot_be_gone_on_from(tmp_path: Path) -> None:
    assert find(config(tmp_path, 3), LATEST, 4) is None
    assert summary_of(run(config(tmp_path, 3), resume=LATEST))["resumed"] is None
    without = run(small(tmp_path, "rounds = 2"))
    with pytest.raises(ConfigError, match="no complete set of checkpoints in .*checkpoint.every set, or 'latest'"):
        run(config(tmp_path, 3), resume=str(without))
    with pytest.raises(ConfigError, match="no complete set"):
        find(config(tmp_path, 3), str(tmp_path / "nowhere"), 4)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"checkpoint": {"every": "3 ronds"}}, "unknown unit 'ronds'"),
        ({"checkpoint": {"every": "60 s"}, "rule": {"name": "allreduce"}}, "all ranks have to write after the same step"),
        (
            {"checkpoint": {"every": "60 s"}, "rule": {"name": "bsp"}, "server": {"servers": 2}},
            "2 servers have a share of the model each and have to write after the same update; give rounds",
        ),
    ],
)
def test_bad_sections(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        small(tmp_path, **changes)
