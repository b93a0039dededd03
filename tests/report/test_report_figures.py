"""What the figures show, as numbers."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from made_runs import MIX, in_step, metrics, ring

from consensus.report.columns import columns
from consensus.report.figures import backups, curves, network, time_split
from consensus.run.results import Metrics
from consensus.types import Edge, Round

LINES = [Metrics(**metrics(k)) for k in range(1, 6)]


def half(k: Round) -> list[Edge]:
    """Edge 0 - 1 is used in every other round."""
    return [(0, 1)] if k % 2 else []


def test_quality_overlays_runs_on_both_axes() -> None:
    figure = curves.quality({"a": LINES, "b": LINES[:3]})
    assert figure is not None
    assert [(trace.name, len(trace.x)) for trace in figure.data] == [("a", 5), ("b", 3)] * 4
    assert [trace.showlegend for trace in figure.data] == [True, True, *[False] * 6]
    assert list(figure.data[0].x) == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])
    assert list(figure.data[2].x) == [1000, 2000, 3000, 4000, 5000]
    assert list(figure.data[4].y) == [line.loss for line in LINES]
    assert figure.layout.yaxis3.type == "log"


def test_what_has_no_logarithm_or_is_no_number_is_a_gap() -> None:
    lines = [replace(LINES[0], loss=math.nan), replace(LINES[1], consensus_distance=0.0), *LINES[2:]]
    quality, distance = curves.quality({"a": lines}), curves.disagreement({"a": lines})
    assert quality is not None
    assert distance is not None
    assert quality.data[2].y[:2] == (None, LINES[1].loss)
    assert distance.data[0].y[:3] == (0.1, None, 0.1)


def test_distances_that_are_all_zero_need_no_logarithm() -> None:
    figure = curves.disagreement({"a": [replace(line, consensus_distance=0.0) for line in LINES]})
    assert figure is not None
    assert figure.layout.yaxis.type is None
    assert set(figure.data[0].y) == {0.0}


def test_nothing_known_is_no_figure() -> None:
    assert curves.quality({"a": [replace(line, accuracy=math.nan, loss=math.nan) for line in LINES]}) is None
    assert curves.quality({}) is None
    assert curves.disagreement({"a": []}) is None


def test_long_lines_are_thinned_and_keep_their_end() -> None:
    figure = curves.quality({"a": [replace(LINES[0], seconds=float(k)) for k in range(5000)]})
    assert figure is not None
    assert len(figure.data[0].x) <= 1000
    assert figure.data[0].x[-1] == 4999


def test_names_are_shown_as_they_are() -> None:
    figure = curves.quality({"<b>bold</b>": LINES})
    assert figure is not None
    assert figure.data[0].name == "&lt;b&gt;bold&lt;/b&gt;"


def test_time_split_adds_up() -> None:
    (trace, *_) = in_step(rounds=10)
    parts = time_split.split(columns(trace))
    assert parts["mix"] == pytest.approx(10 * MIX)
    assert sum(parts.values()) == pytest.approx(trace.rounds[-1].closed)
    figure = time_split.time_split([columns(trace)])
    assert {bar.name: float(bar.y[0]) for bar in figure.data} == pytest.approx(parts, abs=1e-6)
    assert sum(float(bar.customdata[0]) for bar in figure.data) == pytest.approx(100, abs=0.2)


def test_time_split_of_runs_is_the_mean_over_ranks() -> None:
    ranks = [columns(trace) for trace in in_step(compute=lambda rank, k: 0.01 * (rank + 1))]
    figure = time_split.time_split_of_runs({"a": ranks, "none": [columns(trace) for trace in in_step(rounds=0)]})
    assert figure.data[0].y.tolist() == pytest.approx([41 * 0.025, 0])
    assert list(figure.data[0].x) == ["a", "none"]


def test_backups_are_means_over_bins_of_time() -> None:
    ranks = [columns(trace) for trace in in_step(rounds=60, unused=half)]
    centres, means = backups.binned(ranks, ranks[0].closed[-1])
    assert means.shape == (4, 20)
    assert centres[0] == pytest.approx(ranks[0].closed[-1] / 40)
    assert np.nanmean(means, axis=1) == pytest.approx([0.5, 0.5, 0, 0], abs=0.05)


def test_a_time_without_rounds_is_blank() -> None:
    ranks = [columns(trace) for trace in in_step(rounds=60, compute=lambda rank, k: 1.0 if k == 30 else 0.01)]
    _, means = backups.binned(ranks, ranks[0].closed[-1])
    assert np.isnan(means[:, 8]).all()
    assert not np.isnan(means[:, 0]).any()


def test_long_runs_have_no_more_bins() -> None:
    ranks = [columns(trace) for trace in in_step(2, rounds=3000)]
    assert backups.binned(ranks, ranks[0].closed[-1])[1].shape == (2, backups.BINS)


def test_no_backups_at_all_are_the_light_end_of_the_scale() -> None:
    figure = backups.backups([columns(trace) for trace in in_step()], 1.0)
    assert (figure.data[0].zmin, figure.data[0].zmax) == (0, 1)


def test_use_of_edges_in_both_directions() -> None:
    used = network.uses(in_step(rounds=40, unused=half))
    assert used[0, 1] == used[1, 0] == network.Use(20, 20)
    assert used[1, 2] == network.Use(40, 0)
    assert (used[0, 1].share, used[2, 1].share, network.Use(0, 0).share) == (0.5, 1.0, 0.0)


def test_the_drawn_graph_has_all_edges_and_tells_of_both_ends() -> None:
    figure = network.network(in_step(rounds=40, unused=half), [*ring(4), (0, 2)])
    *lines, middles, nodes = figure.data
    assert len(lines) == 3  # never, half and always
    told = dict(zip([*sorted([*ring(4), (0, 2)])], middles.customdata, strict=True))
    assert told[0, 1].split("<br>") == [
        "rank 0: with 1 in 50.0 % of its rounds (20), 1 was its backup in 20",
        "rank 1: with 0 in 50.0 % of its rounds (20), 0 was its backup in 20",
    ]
    assert told[0, 2].startswith("rank 0: with 2 in 0.0 %")
    assert nodes.customdata[0] == "rank 0: 40 rounds, 0.50 backups a round"
    assert list(nodes.text) == ["0", "1", "2", "3"]
