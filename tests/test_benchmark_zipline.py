"""ZipLine's benchmark: the searches it is compared with, and what becomes of given times."""

from __future__ import annotations

import doctest

import pytest

from benchmarks import zipline as benchmark
from consensus.rules.zipline import zipline


def test_examples_in_docstrings():
    result = doctest.testmod(benchmark)
    assert result.attempted > 0
    assert result.failed == 0


@pytest.mark.parametrize("seed", range(5))
def test_the_other_searches_find_nothing_better(seed):
    predicted = benchmark.predictions(8, 20, seed)
    ours, full = zipline(predicted).spread, benchmark.full_grid_scan(predicted)
    assert ours <= full <= benchmark.grid_scan(predicted, benchmark.slowest(predicted))
    # Around an end of the best window no nearest end is further away than the window is long.
    assert full <= 2 * ours


def test_nothing_is_measured_that_takes_too_long(monkeypatch):
    monkeypatch.setattr(benchmark, "MOST_LOOKUPS", 50)
    (case,) = benchmark.run(benchmark.Scale(workers=(4,), ahead=(5,), passes=2))["cases"]
    assert set(case["seconds"]) == {"zipline", "rate", "grid"} == set(case["spreads"])
    assert [len(taken) for taken in case["seconds"].values()] == [2, 2, 2]


def test_a_case_is_told_in_milliseconds():
    seconds = {"zipline": [0.003], "rate": [0.004], "grid": [0.05]}
    case = {"workers": 1000, "ahead": 15, "seconds": seconds, "spreads": {"zipline": 2.0, "rate": 2.5, "grid": 3.0}}
    row = benchmark.report({"cases": [case, {**case, "seconds": {**seconds, "zipline": [0.03]}}]}).splitlines()[2:]
    assert row[0] == "| 1,000 | 15 | 3 (3 to 3) | 0.20 | met: < 20 | 4 | 50 | 1.50 | – | – | 253 | 77 |"
    assert "| missed: < 20 |" in row[1]
