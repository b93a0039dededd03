"""The page: complete, self-contained, and proof against what users call their runs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from made_runs import in_step, ring, write_run

from consensus.report import html
from consensus.report.html import render
from consensus.report.load import load_run
from consensus.trace import Trace


class Elements(HTMLParser):
    """All elements of a page, and its text outside scripts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._silent = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        self._silent = tag in ("script", "style")

    def handle_endtag(self, tag: str) -> None:
        self._silent = False

    def handle_data(self, data: str) -> None:
        self.text += "" if self._silent else data

    def charts(self) -> list[str | None]:
        return [attributes["id"] for _, attributes in self.found if attributes.get("class") == "chart"]


def rendered(*folders: Path) -> Elements:
    return Elements(render([load_run(folder) for folder in folders]))


def test_one_run(tmp_path: Path) -> None:
    page = rendered(write_run(tmp_path / "made-1", in_step(rounds=12, compute=lambda rank, k: 0.03 if rank == 1 else 0.01)))
    assert page.charts() == ["quality", "disagreement", "run-0-time-split", "run-0-backups", "run-0-network"]
    assert "Rank 1: compute is slow, always (3.0 times the typical step)" in page.text
    assert "consensus 9.8.7" in page.text
    assert "simulated" not in page.text
    assert "not come to its end" not in page.text


def test_several_runs_are_overlaid_and_then_told_one_by_one(tmp_path: Path) -> None:
    full = write_run(tmp_path / "full", in_step(rounds=12))
    baseline = write_run(tmp_path / "all", in_step(rounds=12, unused=lambda k: ring(4)), rule="allreduce")
    page = rendered(full, baseline)
    assert page.charts() == [
        "quality", "disagreement", "time-split", "run-0-time-split", "run-0-backups", "run-0-network", "run-1-time-split"
    ]  # fmt: skip
    assert "No models were exchanged over edges" in page.text


def test_a_simulated_run_says_so(tmp_path: Path) -> None:
    assert "a simulated run" in rendered(write_run(tmp_path / "made-1", in_step(rounds=12), simulated=True)).text


@pytest.mark.parametrize("rounds", [0, 1, 12])
def test_an_unfinished_run_says_so(tmp_path: Path, rounds: int) -> None:
    page = rendered(write_run(tmp_path / "made-1", in_step(rounds=rounds), finished=False))
    assert "not come to its end" in page.text
    assert "no run has evaluated its model" in page.text
    assert ("The traces hold no rounds yet" in page.text) == (rounds == 0)
    assert ("run-0-time-split" in page.charts()) == (rounds > 0)


def test_ranks_of_which_one_has_closed_no_round_yet(tmp_path: Path) -> None:
    first, *others = in_step(rounds=12)
    page = rendered(write_run(tmp_path / "made-1", [Trace(0, first.started, []), *others], finished=False))
    assert "run-0-network" in page.charts()


def test_a_graph_of_too_many_ranks_is_not_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(html, "DRAWABLE", 3)
    page = rendered(write_run(tmp_path / "made-1", in_step(rounds=12)))
    assert "it has 4 ranks, and over 3" in page.text
    assert "run-0-network" not in page.charts()


def addresses(page: Elements) -> Iterator[str]:
    for _, attributes in page.found:
        yield from (value or "" for name, value in attributes.items() if name in ("src", "href", "action", "data", "srcset"))


def test_the_page_refers_to_nothing_outside(tmp_path: Path) -> None:
    page = rendered(write_run(tmp_path / "made-1", in_step(rounds=12)))
    assert list(addresses(page)) == ["data:,"]
    (policy,) = [attributes["content"] for _, attributes in page.found if "http-equiv" in attributes]
    assert policy is not None
    assert policy.startswith("default-src 'none';")
    assert "http" not in policy


NASTY = '</script><img src="https://example.org/x.png" onerror="alert(1)">&amp;'


def test_names_are_text_and_nothing_else(tmp_path: Path) -> None:
    # Two folders alike in all but their names, which therefore are the runs' labels.
    name = NASTY.replace("/", "∕")
    folders = [write_run(tmp_path / name, in_step(rounds=12)), write_run(tmp_path / "plain", in_step(rounds=12))]
    source = render([load_run(folder) for folder in folders])
    page = Elements(source)
    assert name in page.text
    assert [tag for tag, _ in page.found if tag == "img"] == []
    assert page.charts()[-1] == "run-1-network"


def test_a_reason_or_a_graph_cannot_end_the_script(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "made-1", in_step(rounds=12))
    config = folder / "config.toml"
    config.write_text(config.read_text().replace('kind = "ring"', f"file = {json.dumps(NASTY)}"))
    source = render([load_run(folder)])
    assert NASTY in Elements(source).text
    assert NASTY not in source


def test_chart_data_are_json(tmp_path: Path) -> None:
    source = render([load_run(write_run(tmp_path / "made-1", in_step(rounds=12)))])
    figures = [json.loads(text) for text in re.findall(r'<script type="application/json">(.*?)</script>', source)]
    assert len(figures) == 5
    assert all(figure["data"] and figure["layout"]["height"] for figure in figures)


@pytest.mark.slow
def test_a_long_run_of_many_ranks_stays_small(tmp_path: Path) -> None:
    run = load_run(write_run(tmp_path / "made-1", in_step(16, rounds=1)))
    traces = in_step(16, rounds=20_000, unused=lambda k: [(k % 15, k % 15 + 1)])
    page = render([replace(run, traces=tuple(traces))])
    assert "run-0-network" in Elements(page).charts()
    assert len(page) < 6_000_000
