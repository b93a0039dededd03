"""The page in a real browser: all charts are drawn, nothing is complained about, and nothing is asked of a network."""

from __future__ import annotations

import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
from made_runs import in_step, ring, write_run

from consensus.report.html import render
from consensus.report.load import load_run

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")

# Everything but files fails to resolve, and the profile's own traffic is off.
OFFLINE = ("--host-resolver-rules=MAP * ~NOTFOUND", "--disable-background-networking", "--no-first-run", "--disable-extensions")


@pytest.fixture(scope="module")
def browser() -> str:
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(f"no browser: none of {', '.join(BROWSERS)} is on PATH")
    return found


class Drawn(HTMLParser):
    """How many drawings each chart has, and the titles of its buttons."""

    def __init__(self, dom: str) -> None:
        super().__init__()
        self.drawings: dict[str, int] = {}
        self.buttons: set[str] = set()
        self._chart = ""
        self.feed(dom)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {name: value or "" for name, value in attrs}
        classes = attributes.get("class", "").split()
        if "chart" in classes:
            self._chart = attributes["id"]
            self.drawings[self._chart] = 0
        elif tag == "svg" and "main-svg" in classes:
            self.drawings[self._chart] += 1
        elif "modebar-btn" in classes:
            self.buttons.add(attributes.get("data-title", "").lower())


@pytest.mark.slow
def test_all_charts_are_drawn_without_complaint(browser: str, tmp_path: Path) -> None:
    full = write_run(tmp_path / "full", in_step(rounds=30, unused=lambda k: [(0, 1)] if k % 3 else []))
    baseline = write_run(tmp_path / "all", in_step(rounds=30, unused=lambda k: ring(4)), rule="allreduce")
    unfinished = write_run(tmp_path / "dtur", in_step(rounds=30), rule="dtur", finished=False)
    page = tmp_path / "report.html"
    source = render([load_run(folder) for folder in (full, baseline, unfinished)])
    page.write_text(source, encoding="utf-8")
    expected = re.findall(r'<div class="chart" id="([^"]+)"', source)
    command = [browser, "--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}", *OFFLINE]
    command += ["--enable-logging=stderr", "--v=0", "--virtual-time-budget=30000", "--dump-dom", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90)
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stderr.splitlines() if "CONSOLE" in line] == []
    drawn = Drawn(done.stdout)
    assert len(expected) == 10
    assert list(drawn.drawings) == expected
    assert all(drawn.drawings.values()), drawn.drawings
    assert drawn.buttons == {"download plot as a png", "zoom", "pan", "reset axes"}
