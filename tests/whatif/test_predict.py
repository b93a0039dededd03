"""Predictions where the answer is known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import networkx as nx
import pytest
from made_runs import MIX
from recorded_runs import ring_run

from consensus.config.schema import WaitRule
from consensus.report.load import LoadedRun
from consensus.timing import Constant
from consensus.whatif.alternatives import recorded
from consensus.whatif.fit import fit
from consensus.whatif.predict import Pace, Setting, measured, predict, samples_per_round

SAMPLES = 4 * 32 * 200.0
ROUND = 0.010 + MIX + 0.002


def under(setting: Setting, rule: str, **parameters: int) -> Setting:
    config = setting.config.model_copy(update={"rule": WaitRule(name=rule, **parameters)})
    return replace(setting, rule=rule, config=config)


def pace(run: LoadedRun, setting: Setting | None = None, seeds: range = range(1, 4)) -> Pace:
    return predict(fit(run), setting or recorded(run), SAMPLES, 32.0, seeds)


def test_a_run_in_step_is_predicted_exactly(tmp_path: Path) -> None:
    run = ring_run(tmp_path / "run", finished=False)
    found = pace(run)
    assert found.samples_per_second == pytest.approx(4 * 32 / ROUND, rel=1e-3)
    assert found.seconds == pytest.approx(200 * ROUND, rel=1e-3)
    assert found.open_seconds == pytest.approx(0.002)
    assert (found.backups, found.spread) == (0.0, pytest.approx(0.0, abs=1e-9))
    before = measured(run, fit(run), SAMPLES)
    assert before.samples_per_second == pytest.approx(found.samples_per_second, rel=3e-3)
    assert (before.open_seconds, before.backups, before.contraction) == (pytest.approx(0.002), 0.0, None)


def test_clocks_that_are_apart_change_nothing(tmp_path: Path) -> None:
    apart = ring_run(tmp_path / "apart", ahead=[0.006, 0.0, 0.004, 0.001])
    assert pace(apart).samples_per_second == pytest.approx(pace(ring_run(tmp_path / "run")).samples_per_second, rel=2e-3)


def test_a_slow_rank_slows_those_who_wait_for_it(tmp_path: Path) -> None:
    run = ring_run(tmp_path / "run", compute=lambda rank, k: 0.1 if rank == 3 else 0.01)
    full = pace(run)
    assert full.samples_per_second == pytest.approx(4 * 32 / (0.1 + MIX + 0.002), rel=1e-2)
    # With a backup each, its neighbours have rank 1 to exchange with; only rank 3 itself needs one of them.
    backup = pace(run, under(recorded(run), "static_backup", b=1))
    expected = 3 * 32 / ROUND + 32 / 0.1
    assert backup.samples_per_second == pytest.approx(expected, rel=0.1)


def test_a_slow_link(tmp_path: Path) -> None:
    run = ring_run(tmp_path / "run", transfer=lambda edge, k: 0.050 if edge == (1, 2) else 0.002)
    assert pace(run).samples_per_second == pytest.approx(4 * 32 / (0.010 + MIX + 0.050), rel=1e-2)
    without: nx.Graph[int] = nx.path_graph([2, 3, 0, 1])
    found = pace(run, replace(recorded(run), graph=without))
    assert found.samples_per_second == pytest.approx(4 * 32 / ROUND, rel=1e-2)


def test_stragglers_that_come_together_stay_together(tmp_path: Path) -> None:
    together = ring_run(tmp_path / "together", compute=lambda rank, k: 0.1 if k % 10 == 0 else 0.01)
    in_turn = ring_run(tmp_path / "in-turn", compute=lambda rank, k: 0.1 if k % 10 == 2 * rank else 0.01)
    mean = (9 * ROUND + 0.1 + MIX + 0.002) / 10
    assert pace(together).samples_per_second == pytest.approx(4 * 32 / mean, rel=0.03)
    # Under full, one slow rank is as bad as four.
    assert pace(in_turn).samples_per_second < 0.5 * pace(together).samples_per_second


def test_a_model_of_steps_for_more_ranks(tmp_path: Path) -> None:
    run = ring_run(tmp_path / "run")
    setting = replace(recorded(run), graph=nx.cycle_graph(8), compute=Constant(0.05))
    assert pace(run, setting).samples_per_second == pytest.approx(8 * 32 / (0.05 + MIX + 0.002), rel=1e-2)


def test_a_seed_makes_the_same_numbers(tmp_path: Path) -> None:
    run = ring_run(tmp_path / "run", compute=lambda rank, k: 0.1 if (7 * rank + k) % 11 == 0 else 0.01)
    setting = under(recorded(run), "dtur")
    first, again, other = (pace(run, setting, seeds) for seeds in (range(1, 4), range(1, 4), range(4, 7)))
    assert first == again
    assert first != other
    assert first.spread > 0


def test_long_runs_are_reckoned_from_their_pace(tmp_path: Path) -> None:
    run = ring_run(tmp_path / "run")
    found = predict(fit(run), recorded(run), 1e9, 32.0, [1])
    assert found.seconds == pytest.approx(1e9 / (4 * 32) * ROUND, rel=1e-3)


def test_samples_of_a_round(tmp_path: Path) -> None:
    finished, unfinished = ring_run(tmp_path / "run"), ring_run(tmp_path / "open", finished=False)
    assert samples_per_round(finished) == pytest.approx(5000 / (4 * 41))
    assert samples_per_round(unfinished) == 32
