"""What a run shows while it goes on."""

from __future__ import annotations

import sys

import pytest

from consensus.cli import options
from consensus.cli.options import Mode
from consensus.cli.progress import fraction, show
from consensus.config import RunConfig, loads
from consensus.run.status import Status


def config(stop: str) -> RunConfig:
    return loads(f"[run]\nstop = {stop}\n")


def status(seconds: float, samples: int = 100, rounds: int = 10, evaluating: bool = False) -> Status:
    return Status(seconds, samples, None, rounds, 0.5, 1.5, evaluating)


def test_plain_lines_come_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    with show(Mode.LINES, config("{ seconds = 9 }")) as report:
        assert report is not None
        for tenth in range(50):
            report(status(tenth / 10))
        report(status(5.0, evaluating=True))
        report(status(5.1, evaluating=True))
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(",")[0] for line in lines] == [
        "run: 2.0 s",
        "run: 4.0 s",
        "run: 5.0 s of training; evaluating the averaged models",
    ]
    assert "\x1b" not in "".join(lines)


def test_a_resumed_run_tells_of_what_it_has_done_and_not_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    with show(Mode.LINES, config("{ seconds = 9 }")) as report:
        assert report is not None
        for tenth in range(123, 150):
            report(status(tenth / 10))
    assert [line.split(",")[0] for line in capsys.readouterr().out.splitlines()] == ["run: 14.0 s"]


def test_a_bar_is_drawn_and_goes_away(capsys: pytest.CaptureFixture[str]) -> None:
    with show(Mode.LIVE, config("{ samples = 200 }")) as report:
        assert report is not None
        report(status(1.0))
        report(status(2.0, evaluating=True))
    out = capsys.readouterr().out
    assert "evaluating" in out
    assert out.endswith("\x1b[2K")


def test_off_is_silent() -> None:
    with show(Mode.OFF, config("{ seconds = 9 }")) as report:
        assert report is None


@pytest.mark.parametrize(
    ("stop", "expected"),
    [
        ("{ samples = 200 }", 0.5),
        ("{ seconds = 4 }", 0.75),
        ("{ rounds = 100 }", 0.1),
        ("{ samples = 200, seconds = 4 }", 0.75),
        ("{ samples = 50 }", 1.0),
        ("{ target = { value = 0.9 } }", None),
    ],
)
def test_how_far_it_is(stop: str, expected: float | None) -> None:
    assert fraction(status(3.0), config(stop)) == expected


@pytest.mark.parametrize(
    ("mode", "wanted", "terminal", "launched", "expected"),
    [
        (Mode.AUTO, True, True, False, Mode.LIVE),
        (Mode.AUTO, True, False, False, Mode.LINES),
        # A launcher's pseudo-terminal is none.
        (Mode.AUTO, True, True, True, Mode.LINES),
        (Mode.LIVE, True, False, True, Mode.LIVE),
        (Mode.LIVE, False, True, False, Mode.OFF),
    ],
)
def test_what_auto_comes_to(
    monkeypatch: pytest.MonkeyPatch, mode: Mode, wanted: bool, terminal: bool, launched: bool, expected: Mode
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    monkeypatch.setattr(options, "launched", lambda: launched)
    assert mode.resolved(wanted) is expected
