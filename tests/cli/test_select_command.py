"""``consensus select``: from a run to a run that chooses by it, and what is refused."""

from __future__ import annotations

import json
import tempfile
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from consensus.cli import app, ending
from consensus.coding.system import Edge, System, Worker
from consensus.run import simulation
from tests.experiments import SMALL, summary_of

CODED = """
[network]
model_bytes = 100000
[coding]
workers_per_edge = [2, 3, 4]
parts = 18
"""


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulation, "draw_curves", lambda runs, path: path.touch())


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "run.toml"
    path.write_text(SMALL.format(stop="rounds = 60") + CODED, encoding="utf-8")
    return path


def simulated(file: Path, *arguments: str) -> Path:
    """The folder of a simulated run, of a folder of its own."""
    out = Path(tempfile.mkdtemp(dir=file.parent))
    said = call("sim", file, "--timing", "--quiet", "--ranks", "13", "--out", out, *arguments)
    assert said.exit_code == 0, said.output
    (folder,) = out.iterdir()
    return folder


def ranked(said: str) -> list[list[str]]:
    """The lines of the table of tolerances."""
    return [line.split() for line in said.splitlines() if line.split()[:1] in [[f"{place}."] for place in range(1, 6)]]


def test_from_a_run_to_one_that_chooses_by_it(file: Path) -> None:
    waits = ("--set", "stragglers.probability=0.1", "--set", "stragglers.factor=10")
    folder = simulated(file, "--set", "rule.name=uncoded", *waits)
    result = call("select", folder)
    assert result.exit_code == 0, result.output
    assert result.output == call("select", folder).output
    best = ranked(result.stdout)
    assert [line[1:4] for line in best][:1] == [["0", "1", "4"]]
    seconds = [float(line[4]) for line in best]
    assert (len(best), seconds) == (5, sorted(seconds))
    assert all(float(line[5]) < 1 for line in best if line[1:3] != ["0", "0"])
    nodes = [line.split() for line in result.stdout.splitlines() if "0.00" in line]
    assert [int(line[0]) for line in nodes] == [1, 4, 5, 2, 6, 7, 8, 3, 9, 10, 11, 12]
    assert sum(line[-1] == "yes" for line in nodes) == 3 + 1 + 2 + 3
    assert f"the system is in {folder / 'system.json'}" in result.stdout

    table = tomllib.loads(result.stdout[result.stdout.index("[rule]") :])
    assert table["coding"] == {"workers_per_edge": [2, 3, 4], "parts": 18, "system": str(folder / "system.json")}
    settings = ("--set", f"rule.name={table['rule']['name']}", "--set", f"coding.system={table['coding']['system']}")
    chosen = summary_of(simulated(file, *settings, *waits))
    assert (chosen["rule"]["name"], chosen["coding"]["load"]) == ("hgc-jncss", 4)
    assert chosen["coding"]["needed"] == {"master": 3, "edges": [1, 2, 3]}
    assert chosen["wall_seconds"] < summary_of(folder)["wall_seconds"]


def test_a_system_that_was_written_by_hand(tmp_path: Path) -> None:
    workers = [Worker(c=0.01, gamma=200.0)] * 4 + [Worker(c=0.1, gamma=20.0)]
    System([Edge(tau=0.01, workers=workers)] * 2).write(tmp_path / "mine.json")
    result = call("select", tmp_path / "mine.json")
    assert result.exit_code == 0, result.output
    assert "10 parts" in result.stdout
    assert ranked(result.stdout)[0][1:3] == ["0", "1"]
    assert f"the system is in {tmp_path / 'mine.json'}" in result.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["mine.json"]
    other = call("select", tmp_path / "mine.json", "--parts", "20", "--no-refine", "--out", tmp_path / "copy.json")
    assert "20 parts" in other.stdout
    assert "as long as expected" in other.stdout
    assert json.loads((tmp_path / "copy.json").read_text(encoding="utf-8")) == System.read(tmp_path / "mine.json").to_dict()


def test_what_busy_workers_do_is_said_and_goes_into_the_run_file(tmp_path: Path) -> None:
    """By chance somebody is always late. That can be made up for unless who is late stays behind."""
    path = tmp_path / "alike.json"
    System([Edge(workers=[Worker(c=0.001, gamma=25.0)] * 3)]).write(path)
    waits, drops = call("select", path), call("select", path, "--push", "interrupt")
    assert (ranked(waits.stdout)[0][1:3], ranked(drops.stdout)[0][1:3]) == (["0", "0"], ["0", "2"])
    assert "push" not in waits.stdout
    assert tomllib.loads(drops.stdout[drops.stdout.index("[rule]") :])["coding"]["push"] == "interrupt"
    refused = call("select", path, "--push", "pull")
    assert (refused.exit_code, refused.stdout) == (ending.WRONG_USE, "")
    assert "push = 'pull': expected 'wait', or 'interrupt'" in refused.stderr


def test_many_nodes_have_no_table(tmp_path: Path) -> None:
    System([Edge(workers=[Worker(c=0.01)] * 40)] * 2).write(tmp_path / "large.json")
    result = call("select", tmp_path / "large.json", "--no-refine")
    assert "2 edges, 80 workers" in result.stdout
    assert "1/gamma" not in result.stdout


def test_what_is_no_run_and_no_system(tmp_path: Path, file: Path) -> None:
    (tmp_path / "list.json").write_text("[1]")
    folder = simulated(file, "--set", "rule.name=flat", "--set", "coding.workers_per_edge=[4, 8]")
    both = tmp_path / "both"
    both.mkdir()
    for name in "ab":
        (both / name).mkdir()
        (both / name / "config.toml").write_text("")
    for source, words in [
        (tmp_path / "none.json", "No such file"),
        (tmp_path / "list.json", "expected a table"),
        (tmp_path / "nothing", "there is no such folder"),
        (file, "a file, expected the folder of a run"),
        (folder, "there are no edges to be measured"),
        (both, "2 runs, expected the folder of one"),
    ]:
        result = call("select", source)
        assert (result.exit_code, result.stdout) == (ending.WRONG_USE, "")
        assert words in result.stderr
    assert not (folder / "system.json").exists()


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    System([Edge(workers=[Worker(c=0.01)])]).write(tmp_path / "one.json")
    result = call("select", tmp_path / "one.json", "--out", tmp_path)
    assert result.exit_code == ending.WRONG_USE
    assert "cannot be written" in result.stderr
