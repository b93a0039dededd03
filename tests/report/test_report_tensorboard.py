"""Scalars for TensorBoard, which may not be installed."""

from __future__ import annotations

import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
from made_runs import STARTED, in_step, write_run

from consensus.errors import ConfigError
from consensus.report.load import LoadedRun, load_run
from consensus.report.tensorboard import scalars, write_tensorboard


@pytest.fixture
def run(tmp_path: Path) -> LoadedRun:
    return load_run(write_run(tmp_path / "made-1", in_step(rounds=600)))


def test_scalars(run: LoadedRun) -> None:
    lines: dict[str, list[tuple[int, float]]] = {}
    for point in scalars(run):
        lines.setdefault(point.tag, []).append((point.step, point.value))
    assert lines["model/accuracy"][:2] == [(1000, 0.5), (2000, 0.75)]
    assert len(lines["compute/rank-3"]) == 500
    assert lines["compute/rank-3"][-1] == (600, pytest.approx(0.01))
    assert {tag.split("/")[0] for tag in lines} == {"model", "compute", "wait", "mix", "backups"}


def test_what_is_not_known_has_no_point(run: LoadedRun) -> None:
    unknown = replace(run, metrics=(replace(run.metrics[0], loss=float("nan")),), traces=())
    assert [point.tag for point in scalars(unknown)] == ["model/accuracy", "model/consensus_distance", "model/mean_backups"]


def test_the_error_without_the_package(run: LoadedRun, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ConfigError, match=r"pip install 'consensus-sgd\[tensorboard\]'"):
        write_tensorboard({"full": run}, tmp_path / "t")
    assert not (tmp_path / "t").exists()


@pytest.fixture
def installed() -> None:
    if find_spec("tensorboard") is None:
        pytest.skip("tensorboard is not installed; pip install 'consensus-sgd[tensorboard]'")


@pytest.mark.usefixtures("installed")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_what_is_written_is_read_by_tensorboard(run: LoadedRun, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    write_tensorboard({"static_backup b=2, seed 1": run, "../full": run}, tmp_path / "t")
    folders = sorted(path.name for path in (tmp_path / "t").iterdir())
    assert folders == ["..-full", "static_backup-b=2-seed-1"]
    read = EventAccumulator(str(tmp_path / "t" / folders[1]))
    read.Reload()
    first, *_ = read.Scalars("model/accuracy")
    assert (first.step, first.value, first.wall_time) == (1000, 0.5, pytest.approx(STARTED + 0.1))
    assert len(read.Scalars("wait/rank-0")) == 500


@pytest.mark.usefixtures("installed")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_place_that_cannot_be_a_folder(run: LoadedRun, tmp_path: Path) -> None:
    (tmp_path / "t").write_text("in the way")
    with pytest.raises(ConfigError, match="--tensorboard=FOLDER"):
        write_tensorboard({"full": run}, tmp_path / "t")
