"""The benchmarks of coded gradients: that what is simulated is what it says, and what becomes of given outcomes."""

from __future__ import annotations

import doctest
import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import coded, coding_cost
from benchmarks.simulated import coded as simulated
from benchmarks.simulated import coded_race
from benchmarks.simulated.coded import SHIFT, WORKERS, Links, Regime, part_weights, simulate, streams, without
from benchmarks.simulated.coded_race import Race
from benchmarks.simulated.coded_training import Learner, Lesson, deviation
from benchmarks.simulated.served import one_thread
from consensus.coding import construct
from consensus.coding.layout import Layout
from consensus.coding.system import Edge, System, Worker
from consensus.errors import ConsensusError

STILL = System([Edge(workers=[Worker(c=0.5, tau=0.25)] * 2, tau=0.125)] * 3)
"""Nothing is random here."""

DIGITS = Lesson("digits", "2nn", batch=4, lr=0.2)


@pytest.mark.parametrize("module", [simulated, coded_race, coded, coding_cost])
def test_examples(module: Any) -> None:
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0


# -- the system -----------------------------------------------------------------------------------------------------------


def test_links_take_transmissions_and_messages_nothing() -> None:
    system = System([Edge(workers=[Worker(c=0.1, tau=2.0, p=0.5)], tau=3.0)])
    relayed = Links(system, Layout((1,)), seed=1)
    assert relayed.duration(0, 1, 1) == relayed.duration(1, 0, 1) == 3.0
    drawn = [relayed.duration(1, 2, 1) for _ in range(2000)]
    assert set(drawn) >= {2.0, 4.0, 6.0}
    assert np.mean(drawn) == pytest.approx(4.0, rel=0.1)
    assert relayed.duration(1, 2, 0) == 0.0
    direct = Links(system, Layout((1,), relayed=False), seed=1)
    both = [direct.duration(1, 0, 1) for _ in range(2000)]
    assert min(both) == 5.0
    assert np.mean(both) == pytest.approx(7.0, rel=0.1)


def test_steps_take_their_parts() -> None:
    own = [Worker(c=0.25), Worker(c=0.25, gamma=10.0)]
    steady, shaky = streams(System([Edge(workers=own)]), [3, 4], seed=1)
    assert [steady.next(), steady.next()] == [0.75, 0.75]
    drawn = [shaky.next() for _ in range(2000)]
    assert min(drawn) >= 1.0
    assert np.mean(drawn) == pytest.approx(4 * 0.35, rel=0.05)


def test_an_iteration_takes_what_the_nodes_take() -> None:
    code = construct("uncoded", STILL.workers_per_edge, 6, 0, 0)
    made = simulate(code, STILL, 4, seed=1)
    # At first the weights are there; then they go down to the workers, and vectors up to the master.
    first, every = 0.5 + 0.25 + 0.125, 0.5 + 2 * (0.25 + 0.125)
    assert made.times == pytest.approx([first + every * update for update in range(4)])
    assert made.used == [{0: [0, 1], 1: [0, 1], 2: [0, 1]}] * 4
    assert made.pace == pytest.approx(made.times[-1] / 4)


@pytest.mark.parametrize("scheme", [*coded.EXACT, "greedy"])
def test_updates_are_exact_but_for_greedy(scheme: str) -> None:
    code = construct(scheme, WORKERS, 34, 1, 1)
    made = simulate(code, Regime().system(), 12, seed=1)
    assert made.times == sorted(made.times)
    weights = np.array([part_weights(code, used) for used in made.used])
    assert weights.shape == (12, 34)
    if scheme == "greedy":
        assert (weights == 0).any(axis=1).all()
        assert weights.sum(axis=1) == pytest.approx(34)
    else:
        assert weights == pytest.approx(np.ones((12, 34)), abs=1e-9)


def test_regimes() -> None:
    assert sum(worker.c > SHIFT for edge in Regime(share=0.3).system().edges for worker in edge.workers) == 10
    halves, whole = (Regime(parts=parts).system().edges[0].workers[0] for parts in (2, 1))
    assert halves.mean_part * 2 == pytest.approx(whole.mean_part)
    assert math.isinf(Regime(scatter=0.0).system().edges[0].workers[0].gamma)
    passing = Regime(passing=True, share=0.05)
    worker = passing.system().edges[3].workers[10]
    assert worker.mean_part == pytest.approx((0.95 + 0.05 * 10) * 0.012, rel=0.02)
    steps = streams(passing.system(), [1] * 34, seed=1)[0]
    assert np.mean([steps.next() > 0.08 for _ in range(4000)]) == pytest.approx(0.05, abs=0.01)
    assert without(passing.system()).workers_per_edge == WORKERS
    assert without(Regime(slow=1.0).system()).workers_per_edge == WORKERS
    assert without(Regime().system()).workers_per_edge == (5, 6, 7, 9)


def test_a_race_tries_what_it_may() -> None:
    race = Race(Regime(), updates=10, trial=10, tried=2, seed=1)
    assert race.best("uncoded") == (0, 0)
    assert race.best("edge") in {(0, 0), (1, 0), (2, 0), (3, 0)}
    flat, chosen = race.measure("flat", "flat", race.best("flat")), race.selected()
    assert race._flat_load((0, 2)) == construct("flat", WORKERS, 34, 0, 2).load
    assert 2 * flat.code.load <= 34
    assert math.isnan(flat.model)
    assert flat.told()["model"] is None
    assert (chosen.tolerance, chosen.label) == ((race.selection.edge_stragglers, race.selection.worker_stragglers), "hgc-jncss")
    assert chosen.model == pytest.approx(race.selection.expected, rel=0.05)
    dropped = race.dropped(chosen=False)
    assert dropped.code.parts == 34
    assert dropped.code.workers_per_edge == (5, 7, 9)


# -- the training ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["hgc", "greedy"])
def test_it_learns_what_real_models_learn(scheme: str) -> None:
    config = DIGITS.config((2, 2, 2), 6, seed=1, data_dir=None)
    with one_thread():
        assert deviation(config, construct(scheme, (2, 2, 2), 6, 1, 1), STILL, updates=3) < 1e-5


def test_other_gradients_are_other_losses() -> None:
    config = DIGITS.config((2, 2, 2), 6, seed=1, data_dir=None)
    learners = [Learner(config), Learner(config)]
    with one_thread():
        for learner, first in zip(learners, (1.0, 0.0), strict=True):
            for _ in range(2):
                learner.update(np.array([first, 1.0, 1.0, 1.0, 1.0, 1.0]))
    assert learners[0].losses[1] != pytest.approx(learners[1].losses[1], rel=1e-3)


def test_too_few_updates_are_refused() -> None:
    with pytest.raises(ConsensusError, match="updates = 5: expected 60 or more"):
        coded.run(replace(coded.QUICK, updates=5), {"digits": None})


def test_files_of_the_full_run_are_run_files() -> None:
    for subject in coded.FULL.subjects:
        config = subject.lesson.config(WORKERS, 34, 1, Path("data"))
        config.check(39)
        assert subject.updates <= coded.FULL.updates
        assert subject.updates % subject.every == 0


# -- what is made of it ---------------------------------------------------------------------------------------------------


def scheme_row(label: str, seconds: float, tolerance: tuple[int, int] = (0, 0), **more: Any) -> dict[str, Any]:
    scheme = "hgc" if label == "hgc-jncss" else label.partition(",")[0]
    kept = {"load": 1, "kappa": 1.0, "kappa_exact": True, "model": None, "every": 1}
    at = [seconds * update for update in range(1, 9)]
    return {"label": label, "scheme": scheme, "tolerance": list(tolerance), **kept, "seconds": seconds, "at": at, **more}


@pytest.fixture
def result() -> Mapping[str, Any]:
    curve = [0.2, 0.5, 0.8, 0.8]
    learnt = {
        "data": "digits", "partition": "iid", "every": 2, "updates": 8, "accuracies": [0.45], "exact": curve,
        "greedy": [{"tolerance": [1, 1], "accuracy": [0.1, 0.4, 0.4, 0.4]}], "deviation": {"hgc": 1e-7, "greedy": 1e-3},
    }  # fmt: skip
    rows = [scheme_row("uncoded", 1.0), scheme_row("hgc-jncss", 0.25, (1, 1)), scheme_row("greedy", 0.1, (1, 1))]
    best = {"worker, best": 0.5, "edge, best": 0.5, "flat, best": 0.4, "hgc": 0.8}
    rows += [scheme_row(label, seconds, (0, 1)) for label, seconds in best.items()]
    regime = {"regime": {"slow": 20.0}, "uncoded": 1.0, "dropped": 0.125, "chosen": {"tolerance": [1, 1], "seconds": 0.2}}
    regimes = [{**regime, "best": {"scheme": "flat", "tolerance": [0, 1], "seconds": seconds}} for seconds in (0.2, 0.1)]
    made = {"schemes": rows, "regimes": regimes, "lessons": [learnt], "inexact": 1e-14}
    return dict(json.loads(json.dumps(made)))


def test_tables(result: dict[str, Any]) -> None:
    text = coded.report(result)
    assert "| uncoded | 0, 0 | 1 | 1 | 1.000 | – | 1.00 | 4.0 |" in text
    assert "| hgc-jncss | 1, 1 | 1 | 1 | 0.250 | – | 4.00 | 1.0 |" in text
    assert "| greedy | 1, 1 | 1 | – | 0.100 | – | 10.00 | – |" in text
    assert "| uncoded / hgc-jncss, s/update | 4.00 | >= 2 | met |" in text
    assert "| hgc-jncss / best other exact scheme: flat, best (0, 1) | 0.625 | <= 1.03 | met |" in text
    assert "real greedy models and of the training, relative difference | 1e-03 | <= 0.0001 | missed |" in text
    assert "| flat (0, 1) | 2.000: missed | 8.00 |" in text
    assert "at least 4.37 times in 2 (at most 5.00 times), and within 3% of the best other exact scheme in 1." in text
    assert "| digits, parts alike | greedy (1, 1) | 8 | 0.400 |" in text


def test_a_missed_gain_is_shown(result: dict[str, Any]) -> None:
    result["schemes"][1]["seconds"] = 0.6
    text = coded.verdicts(result)
    assert "| 1.67 | >= 2 | missed |" in text
    assert "| 1.500 | <= 1.03 | missed |" in text


def test_pictures(result: dict[str, Any], tmp_path: Path) -> None:
    (picture,) = coded.draw(result, tmp_path / "figures")
    assert picture.name == "coded-digits-iid.png"
    assert picture.stat().st_size > 1000


def test_what_coding_adds_is_summed_up() -> None:
    pieces = {"extra": [1e-4], "taken": [1e-4], "edge": [2e-4], "master": [1e-4], "cold": [3e-3], "warm": [1e-5]}
    cases = [
        {"workers": [2, 3], "batch": batch, "load": 4, "seconds": {**pieces, "gradients": [own], "encoded": [1.1 * own]}}
        for batch, own in ((16, 5e-3), (256, 20e-3))
    ]
    few, many = coding_cost.report({"cases": cases}).splitlines()[2:]
    assert "| 4.0% | 4.0% | 2.0% | 10.0% (10.0% to 10.0%) | missed | 1.100 | 3.00 | 10 |" in few
    assert "| 1.0% | 1.0% | 0.5% | 2.5% (2.5% to 2.5%) | met |" in many


def test_costs_are_measured() -> None:
    with one_thread():
        seconds = coding_cost.measure((2, 2), 4, blocks=2)
    assert {*coding_cost.PIECES, "gradients", "encoded", "cold", "warm", "around", "nothing"} == set(seconds)
    assert all(len(values) == 2 for values in seconds.values())
    assert seconds["extra"] == [whole - less for whole, less in zip(seconds["around"], seconds["nothing"], strict=True)]
    assert min(seconds["gradients"]) > 0

