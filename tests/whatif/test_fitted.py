"""A run's model, and runs that have none."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from made_runs import write_run
from recorded_runs import ring_run, rings

from consensus import config as run_files
from consensus.errors import ConfigError
from consensus.report.load import load_run
from consensus.whatif.fit import FEWEST_ROUNDS, Fitted, fit


@pytest.fixture
def fitted(tmp_path: Path) -> Fitted:
    return fit(ring_run(tmp_path / "run", transfer=lambda edge, k: 0.010 if edge == (1, 2) else 0.002))


def test_a_slow_link_is_found(fitted: Fitted) -> None:
    assert {edge: float(own.mean()) for edge, own in fitted.works.items()} == pytest.approx(
        {(0, 1): 0.002, (0, 3): 0.002, (1, 2): 0.010, (2, 3): 0.002}
    )
    assert fitted.work == pytest.approx(0.002)
    assert (fitted.latency, fitted.ranks, fitted.sharing.unlimited) == (0.0, 4, True)


def test_edges_without_a_record_are_like_the_median_one(fitted: Fitted) -> None:
    works = fitted.works_on([(0, 2), (1, 2)], seed=3)
    assert list(islice(works[0, 2], 100)) == pytest.approx([0.002] * 100)
    assert list(islice(works[1, 2], 100)) == pytest.approx([0.010] * 100)


def test_works_come_back_in_order(tmp_path: Path) -> None:
    fitted = fit(ring_run(tmp_path / "run", transfer=lambda edge, k: 0.001 * k))
    own = fitted.works[0, 1]
    found = list(islice(fitted.works_on([(0, 1)], seed=1)[0, 1], 2 * len(own)))
    start = int(np.argmin(np.abs(own - found[0])))
    assert found == pytest.approx(np.tile(own, 3)[start : start + 2 * len(own)].tolist())


def test_latency_is_half_of_what_an_agreement_takes(tmp_path: Path) -> None:
    run = ring_run(tmp_path / "run")
    for trace in run.traces:
        trace.rounds[:] = [
            type(record)(
                record.round, record.opened - 0.001, record.closed, record.compute, record.wait, record.mix, record.exchanges,
                record.backups, record.reason,
            )
            for record in trace.rounds
        ]  # fmt: skip
    assert fit(run).latency == pytest.approx(0.0005)


def test_a_run_under_allreduce(tmp_path: Path) -> None:
    run = ring_run(tmp_path / "run", rule="allreduce")
    with pytest.raises(ConfigError, match="all-reduce, which exchanges over no edges.*record a run under any wait rule"):
        fit(run)


def test_a_run_of_a_few_rounds(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"rank 0 has 9 rounds, expected {FEWEST_ROUNDS} or more"):
        fit(ring_run(tmp_path / "run", rounds=9))
    assert fit(ring_run(tmp_path / "longer", rounds=FEWEST_ROUNDS)).ranks == 4


def test_a_run_without_traces(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", rings())
    for path in folder.glob("trace-*"):
        path.unlink()
    written = run_files.loads((folder / "config.toml").read_text(encoding="utf-8"))
    off = written.model_copy(update={"run": written.run.model_copy(update={"trace": False})})
    (folder / "config.toml").write_text(run_files.dumps(off), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"run.trace was off.*record it with run.trace = true"):
        fit(load_run(folder))


def test_a_run_without_exchanges(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no exchange in the traces of both its ends"):
        fit(ring_run(tmp_path / "run", unused=lambda k: [(0, 1), (0, 3), (1, 2), (2, 3)]))
