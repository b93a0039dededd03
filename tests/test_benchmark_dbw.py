"""The benchmarks of dbw and elastic: that what is simulated is what it says, and what becomes of given outcomes."""

from __future__ import annotations

import doctest
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import dbw, elastic, served_simulated
from benchmarks.__main__ import mnist
from benchmarks.jobs import ROOT
from benchmarks.simulated import served
from benchmarks.simulated.served import Learner, Slowing, learn, one_thread, round_trips, train, versions
from consensus.errors import ProtocolError
from consensus.rules.rates import Constant
from consensus.rules.serving import build_server
from consensus.sim.kernel import Kernel
from consensus.timing import Stream


@pytest.fixture
def folder(mnist_dir: Path) -> Path:
    return mnist(mnist_dir)


@pytest.mark.parametrize("module", [served, elastic])
def test_examples(module: Any) -> None:
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0


def test_round_trips_take_a_second_on_average() -> None:
    for a in (0.0, 0.2, 1.0):
        stream = round_trips(a).stream(1, 1)
        drawn = [stream.next() for _ in range(4000)]
        assert np.mean(drawn) == pytest.approx(1.0, abs=0.06)
        assert min(drawn) >= 1.0 - a
        assert np.std(drawn) == pytest.approx(a, abs=0.06)


def test_a_worker_slows_down_from_some_moment_on() -> None:
    kernel = Kernel()
    stream = Slowing(Stream(iter([1.0, 2.0, 3.0])), kernel, after=5.0, factor=4.0)
    assert stream.next() == 1.0
    kernel.at(5.0, lambda _: None, None)
    kernel.run(6.0)
    assert [stream.next(), stream.next()] == [8.0, 12.0]


def test_what_is_learnt_does_not_depend_on_when(folder: Path) -> None:
    with one_thread():
        alone, whole = (Learner(folder, 16, 0.1, target=0.0, seed=1) for _ in range(2))
        learn(alone, dbw.WORKERS, 1.0, most=20)
        made = train(build_server("bsp"), dbw.streams(0.5, 1, None), whole, factor=Constant(), most=20)
    count = min(alone.updates, whole.updates) // served.EVERY + 1
    assert count == 5
    assert alone.losses[:count] == pytest.approx(whole.losses[:count], rel=1e-4)
    assert whole.losses[4] < 0.9 * whole.losses[0]
    timed = versions(build_server("bsp"), dbw.streams(0.5, 1, None), 20)
    assert timed[:21] == made.times[:21]
    assert set(made.counts[1:]) == {dbw.WORKERS}


def test_a_rule_that_takes_older_gradients_is_refused(folder: Path) -> None:
    learner = Learner(folder, 16, 0.1, target=0.0, seed=1)
    with pytest.raises(ProtocolError, match="older version"):
        train(build_server("asp"), dbw.streams(0.5, 1, None), learner, factor=Constant(), most=20, push="pull")


def test_a_small_run(folder: Path) -> None:
    result = dbw.run(dbw.QUICK, folder)
    text = dbw.report(result)
    assert text.count("| proportional | 16 |") == 4
    dynamic = [row for row in result["rows"] if row.get("rule") == "dbw"]
    assert len(dynamic) == 2
    for row in dynamic:
        assert row["counts"][:2] == [dbw.WORKERS] * 2
        assert min(row["counts"]) < dbw.WORKERS
        assert row["at"] == sorted(row["at"])
        assert 0.0 < next(iter(row["seconds"].values())) < math.inf


def test_a_small_run_of_the_scenarios_of_served(folder: Path) -> None:
    result = served_simulated.run(served_simulated.QUICK, folder)
    taken = {row["rule"]: row["seconds"]["0.6"] for row in result["rows"]}
    assert taken.keys() == {"k = 4", "k = 8", *served_simulated.DYNAMIC}
    assert all(0.03 < seconds < 30.0 for seconds in taken.values())
    text = served_simulated.report(result)
    assert f"| k = 8 | {taken['k = 8']:.2f} |" in text
    assert f"| dbw / all 8 | {taken['dbw'] / taken['k = 8']:.2f} | 0.67 |" in text


def test_workers_slow_down_after_so_many_steps() -> None:
    drawn = served_simulated.streams("slowing", 1)(Kernel())
    for worker, factor in ((0, 4.0), (7, 1.0)):
        taken = [drawn[worker].next() - served_simulated.OVERHEAD for _ in range(100)]
        assert np.mean(taken[50:]) / np.mean(taken[:50]) == pytest.approx(factor, rel=0.05)


def test_ratios_of_the_scenarios_are_of_one_seed() -> None:
    times = {"k = 4": (5.0, 6.0, 7.0), "k = 8": (10.0, 20.0, 30.0), "dbw": (5.0, 12.0, None)}
    rows = [
        {"scenario": "transient", "rule": rule, "seed": seed, "seconds": {"0.93": seconds}}
        for rule, by_seed in times.items()
        for seed, seconds in enumerate(by_seed)
    ]
    text = served_simulated.report({"judged": None, "rows": rows})
    assert "| dbw | 12.00 | 2.00 | 0.60 |" in text
    assert "| dbw / k = 4, the best fixed | 2.00 | 1.15 | missed | – |" in text
    assert "| dbw / all 8 | 0.60 | 0.67 | met | 0.30 |" in text


def made(**times: float) -> dict[str, Any]:
    told = {"batch": 16, "rate": "constant", "seed": 1, "slow_at": None, "updates": 100.0}
    rules = {"k1": ("k", 1), "k8": ("k", 8), "k16": ("k", 16)}
    rows = []
    for name, seconds in times.items():
        key, value = rules.get(name, ("rule", name))
        more = {} if key == "k" else {"at": [1.0, 2.0], "counts": [16, 1]}
        rows.append({**told, key: value, **more, "seconds": {"1.0": seconds, "0.2": seconds}})
    slowed = [{**row, "slow_at": 1.0, "seconds": {"0.2": 2 * row["seconds"]["0.2"]}} for row in rows if row.get("k") != 1]
    return {"target": 0.25, "rows": rows, "slowed": slowed}


def test_what_is_held_against_the_best_fixed_number() -> None:
    good = dbw.races(made(k1=100.0, k8=50.0, k16=90.0, dbw=55.0, blind=70.0)).splitlines()
    assert good[2] == "| constant | 16 | 0.2 | k = 8 | 50.0 | 90.0 | 70.0 | – | 55.0 | 1.10: met | 1.64 |"
    assert good[3].endswith("| 1.10: met | 1.64: met |")
    bad = dbw.races(made(k8=50.0, k16=90.0, dbw=65.0, blind=70.0)).splitlines()
    assert bad[3].endswith("| 1.30: missed | 1.38: missed |")


def test_what_was_best_before_the_slowdown_is_told() -> None:
    result = made(k1=10.0, k8=50.0, k16=90.0, dbw=45.0, blind=70.0)
    result["slowed"].append({**result["rows"][0], "seconds": {"0.2": 300.0}})
    line = dbw.slowdowns(result).splitlines()[2]
    assert line == "| constant | 16 | k = 8 | 100.0 | 300.0 | 180.0 | 140.0 | 90.0 | 0.90: met |"


def test_a_number_that_does_not_get_there_is_a_dash() -> None:
    result = made(k8=50.0, k16=math.inf, dbw=45.0)
    result["rows"][1]["updates"] = math.inf
    assert "| constant | 16 | 0.2 | k = 8 | 50.0 | – | – | – | 45.0 | 0.90: met | never |" in dbw.races(result)
    assert "| constant | 16 | 100 | – |" in dbw.updates(result)


def test_the_page_gets_its_tables_and_picture(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "dbw.md").read_text(encoding="utf-8")
    (tmp_path / "dbw.md").write_text(page, encoding="utf-8")
    dbw.publish(made(k8=50.0, k16=90.0, dbw=55.0, blind=70.0), tmp_path)
    assert "| 1.10: met |" in (tmp_path / "dbw.md").read_text(encoding="utf-8")
    assert (tmp_path / "images" / "dbw-choices.png").stat().st_size > 5000


@pytest.mark.parametrize("scale", [dbw.FULL, dbw.QUICK])
def test_all_workers_are_among_the_numbers(scale: dbw.Scale) -> None:
    assert scale.seeds.keys() == scale.numbers.keys()
    assert all(dbw.WORKERS in numbers for numbers in scale.numbers.values())
    assert dbw.MIXED in scale.spreads


def test_nobody_waits_under_asp_and_everybody_under_bsp() -> None:
    system = (4, 1.5, 0.0)
    assert elastic.throughput(system, 1, 2000, "asp") == pytest.approx(elastic.Noisy(*system).most(), rel=0.01)
    assert elastic.throughput(system, 1, 2000, "bsp") == pytest.approx(4 / 1.5, rel=0.01)


def test_elastic_is_held_against_the_design() -> None:
    row = {"system": [4, 1.5, 0.02], "rule": "elastic", "R": 15, "objective": "spread", "paces": [3.20, 3.24]}
    text = elastic.report({"rows": [row, {**row, "objective": "rate"}, {**row, "R": 60, "paces": [3.6, 3.6]}]})
    assert "| elastic, R = 15, spread | 3.22 ± 0.02 | 3.15 | +2.2%: met |" in text
    assert "| elastic, R = 15, rate | 3.22 ± 0.02 | – | – |" in text
    assert "| +13.9%: missed |" in text
