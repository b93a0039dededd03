"""Which run ``--resume`` goes on from, and what it refuses before anything is made."""

from __future__ import annotations

import dataclasses
import logging
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from consensus.config import RunConfig
from consensus.errors import CheckpointError, ConfigError
from consensus.run import experiment
from consensus.run.checkpoints import FOLDER, LATEST, find
from consensus.run.position import take_up
from consensus.run.prepare import prepare
from consensus.transport import loopback
from tests.checkpointed_runs import run
from tests.experiments import small

RANKS = 2
OPTIMIZER = {"lr": 0.3, "momentum": 0.9, "scheduler": {"name": "cosineannealinglr", "T_max": 20}}


def config(out: Path, optimizer: dict[str, Any] | None = None, rounds: int = 3) -> RunConfig:
    optimizer = OPTIMIZER if optimizer is None else optimizer
    return small(out, f"rounds = {rounds}", rule={"name": "full"}, optimizer=optimizer, checkpoint={"every": "2 rounds"})


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run with checkpoints; not to be changed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiment, "draw_curves", lambda runs, path: path.touch())
        return run(config(tmp_path_factory.mktemp("runs")), RANKS)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"lr": 0.1}, "optimizer.lr was 0.3, is 0.1, but the optimizer of"),
        ({"weight_decay": 0.1, "nesterov": True}, "optimizer.nesterov was False, is True; optimizer.weight_decay was 0, is 0.1"),
        ({"scheduler": {"name": "cosineannealinglr", "T_max": 40}}, "optimizer.scheduler.T_max was 20, is 40"),
        ({"scheduler": {"name": "exponentiallr", "gamma": 0.9}}, "name was 'cosineannealinglr', is 'exponentiallr', but"),
        ({"scheduler": None}, "optimizer.scheduler.name was 'cosineannealinglr', is None"),
        ({"name": "adamw", "momentum": None, "scheduler": None}, "name was 'sgd', is 'adamw'; optimizer.scheduler.name was"),
    ],
)
def test_another_optimizer_does_not_go_on(earlier: Path, tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    optimizer = {key: value for key, value in {**OPTIMIZER, **changes}.items() if value is not None}
    for name in (str(earlier), LATEST):
        with pytest.raises(ConfigError, match=f"--resume {name}: .*{words}.* as it was; give .*config.toml, or begin anew"):
            find(config(earlier.parent, optimizer), name, RANKS)
    with pytest.raises(ConfigError, match=words):
        run(config(tmp_path / "none", optimizer), RANKS, resume=str(earlier))
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("changes", "size"),
    [
        ({"weight_decay": 0.0, "name": "SGD", "clip_norm": 1.0}, RANKS),  # of the optimizer nothing is changed
        ({"lr": 0.1, "scheduler": {"name": "exponentiallr", "gamma": 0.9}}, RANKS + 1),  # all optimizers start afresh
    ],
)
def test_what_may_change(earlier: Path, changes: dict[str, Any], size: int) -> None:
    assert find(config(earlier.parent, {**OPTIMIZER, **changes}, rounds=9), str(earlier), size) is not None


def test_the_latest_is_the_newest_of_the_very_name(earlier: Path, tmp_path: Path) -> None:
    names = ["small-20260301-120000-2", "small-20260301-120000-10", "small-20260201-120000", "small-big-20260401-120000"]
    for name in names:
        shutil.copytree(earlier, tmp_path / name)
    os.utime(tmp_path / names[2] / FOLDER)
    for other in ("small-20260501-120000", "small-20260501-120000-old"):
        (tmp_path / other).mkdir()
    found = find(config(tmp_path), LATEST, RANKS)
    assert found is not None
    assert found.run.name == names[1]
    shutil.rmtree(tmp_path / names[1])
    found = find(config(tmp_path), LATEST, RANKS)
    assert found is not None
    assert found.run.name == names[0]


def test_sets_that_are_all_damaged(earlier: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    copy = shutil.copytree(earlier, tmp_path / earlier.name)
    for path in (copy / FOLDER).rglob("*.ckpt"):
        path.write_bytes(path.read_bytes()[:-1])
    words = "none of the sets of checkpoints .* each is damaged, as the warnings say, .* begin anew without --resume"
    with caplog.at_level(logging.WARNING), pytest.raises(ConfigError, match=words):
        find(config(tmp_path), str(copy), RANKS)
    assert "truncated" in caplog.text


def test_what_is_found_out_later_names_the_set_in_one_line(earlier: Path, tmp_path: Path) -> None:
    settings = config(tmp_path)
    found = find(settings, str(earlier), RANKS)
    assert found is not None
    task = prepare(settings, 0, RANKS)
    position, _ = loopback.run(RANKS, lambda rank: take_up(found, settings, task, rank))
    data = settings.data.model_copy(update={"batch": 4})
    with pytest.raises(ConfigError, match=f"{found.run}/checkpoints/checkpoint-0001-00000002: .* with batch_size = 8, but"):
        position.restore(prepare(settings.model_copy(update={"data": data}), 0, RANKS))
    wider = dataclasses.replace(task, model=torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.Linear(32, 10)))
    with pytest.raises(CheckpointError, match=r"checkpoint-0001-00000002: the model's state does not fit [^\n]{0,400}$"):
        position.restore(wider)
