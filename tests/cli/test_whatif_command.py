"""``consensus whatif``: what it prints, writes, and refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from made_runs import write_run
from recorded_runs import rings
from typer.testing import CliRunner, Result

from consensus.cli import app, ending
from consensus.trace import VERSION


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["whatif", *(str(argument) for argument in arguments)])


def traces() -> list:
    return rings(compute=lambda rank, k: 0.1 if (7 * rank + k) % 11 == 0 else 0.01)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "made-1", traces())


def test_the_table_and_the_file(run: Path, tmp_path: Path) -> None:
    result = call(run, "--json", tmp_path / "answer.json", "--starts", "2")
    assert result.exit_code == 0, result.output
    lines = [line.split() for line in result.stdout.splitlines()]
    measured, simulated = (next(line for line in lines if line[:1] == [word]) for word in ("measured", "simulated"))
    assert measured[1:4] == simulated[1:4] == ["full", "ring", "4"]
    ranked = [line for line in lines if line[:1] and line[0].endswith(".") and line[0][0].isdigit()]
    seconds = [float(line[-5]) for line in ranked]
    assert seconds == sorted(seconds)
    assert {line[1] for line in ranked} >= {"static_backup:b=1", "dtur", "pathsearch", "gap"}
    assert "% off the measured one" in result.stdout
    assert "which do not slow each other down" in result.stdout
    answer = json.loads((tmp_path / "answer.json").read_text(encoding="utf-8"))
    assert [row["rule"] for row in answer["alternatives"]] == [line[1] for line in ranked]
    for row, line in zip(answer["alternatives"], ranked, strict=True):
        first, last = row["places"]
        assert line[0] == (f"{first}." if first == last else f"{first}-{last}.")
    assert "Rows that share places are about equal: their paces differ by less than 5 %" in result.stdout
    assert abs(answer["error"]) < 0.05
    assert answer["model"]["swap_seconds"] == pytest.approx(0.002)
    assert answer["measured"]["pace"]["contraction"] is None
    assert answer["simulated"]["pace"]["contraction"] > 0


def test_the_same_run_gives_the_same_words(run: Path) -> None:
    assert call(run, "--rule", "dtur", "--starts", "1").stdout == call(run, "--rule", "dtur", "--starts", "1").stdout


def test_what_is_asked_for_is_combined(run: Path, tmp_path: Path) -> None:
    rules = ("--rule", "dtur,gap:quorum=1:window=5", "--rule", "full")
    steps = ("--stragglers", "transient:seconds=0.01:probability=0.1:factor=5")
    result = call(
        run, *rules, "--topology", "path", "--ranks", "4", "--ranks", "6", *steps, "--samples", "9999", "--json", tmp_path / "a"
    )
    assert result.exit_code == 0, result.output
    answer = json.loads((tmp_path / "a").read_text(encoding="utf-8"))
    found = {(row["rule"], row["topology"], row["ranks"]) for row in answer["alternatives"]}
    assert found == {(rule, "path", n) for rule in ("dtur", "gap:quorum=1:window=5", "full") for n in (4, 6)}
    assert answer["samples"] == 9999


def test_a_run_that_goes_on(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "made-1", traces(), finished=False)
    last = folder / "trace-2.jsonl"
    last.write_bytes(last.read_bytes()[:-9])
    result = call(folder, "--rule", "dtur")
    assert result.exit_code == 0, result.output
    assert "The run has not come to its end" in result.stdout
    assert "The trace of rank 2 ends in the middle of a line" in result.stdout


def test_a_simulation_says_so(tmp_path: Path) -> None:
    assert (
        "The run is a simulation itself." in call(write_run(tmp_path / "sim", traces(), simulated=True), "--rule", "dtur").stdout
    )


def _newer(run: Path) -> str:
    path = run / "trace-1.jsonl"
    path.write_text(path.read_text().replace(f'"version": {VERSION}', '"version": 99', 1))
    return "a trace of version 99"


def _cut(run: Path) -> str:
    path = run / "trace-1.jsonl"
    path.write_bytes(path.read_bytes()[:-9])
    return "is cut off"


def _mixed(run: Path) -> str:
    (run / "trace-1.jsonl").write_bytes((run / "trace-2.jsonl").read_bytes())
    return "the files of several runs are mixed"


@pytest.mark.parametrize("spoil", [_newer, _cut, _mixed])
def test_traces_that_cannot_be_used(run: Path, spoil) -> None:
    words = spoil(run)
    result = call(run)
    assert result.exit_code == ending.WRONG_USE
    assert words in " ".join(result.stderr.split())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--ranks", "8"], "as in --stragglers transient"),
        (["--rule", "dtru"], "did you mean 'dtur'"),
        (["--rule", "gap:quorum"], "expected NAME or NAME:KEY=VALUE, as in static_backup:b=2"),
        (["--topology", "ring,ring"], "ring twice"),
        (["--stragglers", "constant:second=1"], "did you mean 'seconds'"),
        (["--json", "no/such/folder/file.json"], "give another file: --json FILE"),
    ],
)
def test_options_that_cannot_be(run: Path, options: list[str], words: str) -> None:
    result = call(run, "--starts", "1", *options)
    assert result.exit_code == ending.WRONG_USE
    assert words in " ".join(result.stderr.split())


def test_several_runs(run: Path, tmp_path: Path) -> None:
    write_run(tmp_path / "made-2", traces())
    result = call(tmp_path)
    assert result.exit_code == ending.WRONG_USE
    assert "2 runs, expected the folder of one" in " ".join(result.stderr.split())
