"""A system: its numbers, what it refuses, and its way into a file and back."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from consensus.coding.system import Edge, Node, System, Worker
from consensus.errors import ConfigError

WORKER = {"c": 0.02, "gamma": 60.0, "tau": 0.01, "p": 0.1}


def table(**worker: object) -> dict[str, Any]:
    edge = {"tau": 0.1, "p": 0.2}
    return {"edges": [{**edge, "workers": [WORKER]}, {**edge, "workers": [WORKER, {**WORKER, **worker}]}]}


def test_means() -> None:
    worker = Worker(**WORKER)
    assert worker.mean(load=8) == pytest.approx(8 * (0.02 + 1 / 60) + 2 * 0.01 / 0.9)
    assert Edge(tau=0.3, p=0.25, workers=[worker]).mean_transfers == pytest.approx(0.8)
    assert Worker(c=0.5).mean(load=4) == 2.0


def test_it_survives_strict_json() -> None:
    measured = Worker(c=0.0, gamma=1, measured=[0.5, 0.25, 3])
    system = System([Edge(tau=0.1, workers=[Worker(**WORKER), measured]), Edge(workers=[Worker(c=1)])])
    text = json.dumps(system.to_dict(), allow_nan=False)
    assert System.from_dict(json.loads(text)) == system
    assert hash(System.from_dict(json.loads(text))) == hash(system)


def test_it_survives_a_file(tmp_path: Path) -> None:
    system = System([Edge(tau=0.1, workers=[Worker(**WORKER), Worker(c=0.0, measured=[0.5, 0.25])]), Edge(workers=[Worker(c=1)])])
    system.write(tmp_path / "system.json")
    assert System.read(tmp_path / "system.json") == system
    assert len((tmp_path / "system.json").read_text(encoding="utf-8").splitlines()) == 4


@pytest.mark.parametrize(
    ("text", "words"), [("[1]", "list: expected a table"), ("{", "no system can be read"), ('{"edges": []}', "edges is empty")]
)
def test_a_file_that_holds_no_system(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "system.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=rf"system\.json: .*{words}"):
        System.read(path)
    with pytest.raises(ConfigError, match="No such file"):
        System.read(tmp_path / "none.json")
    with pytest.raises(ConfigError, match="cannot be written"):
        System([Edge(workers=[Worker(c=1)])]).write(tmp_path)


def test_measured_times_ascend_and_are_only_there_if_there_are_any() -> None:
    worker = Worker(c=0.5, measured=[2, 1.0, 1.5])
    assert worker.measured == (1.0, 1.5, 2.0)
    assert worker.mean_part == 0.5
    edge = System([Edge(workers=[worker])]).to_dict()["edges"][0]
    assert edge["workers"] == [{"tau": 0.0, "p": 0.0, "c": 0.5, "measured": [1.0, 1.5, 2.0]}]


def test_an_infinite_gamma_is_left_out() -> None:
    assert System([Edge(workers=[Worker(c=1)])]).to_dict() == {
        "edges": [{"tau": 0.0, "p": 0.0, "workers": [{"tau": 0.0, "p": 0.0, "c": 1.0}]}]
    }


@pytest.mark.parametrize(
    ("name", "value", "expectation"),
    [
        ("c", -0.1, "seconds"),
        ("c", math.nan, "seconds"),
        ("c", math.inf, "seconds"),
        ("c", "0.1", "seconds"),
        ("gamma", 0.0, "above 0"),
        ("gamma", -1.0, "above 0"),
        ("gamma", math.nan, "above 0"),
        ("tau", -1e-9, "seconds"),
        ("tau", True, "seconds"),
        ("p", 1.0, "from 0 to below 1"),
        ("p", -0.1, "from 0 to below 1"),
        ("p", math.nan, "from 0 to below 1"),
        ("measured", 3, "a list of seconds"),
        ("measured", "12", "a list of seconds"),
    ],
)
def test_a_number_out_of_range(name: str, value: object, expectation: str) -> None:
    with pytest.raises(ConfigError, match=rf"Worker: {name} = {value!r}: expected .*{expectation}"):
        Worker(**{**WORKER, name: value})  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=rf"System: edges\[1\]\.workers\[1\]\.{name} = {value!r}: expected .*{expectation}"):
        System.from_dict(table(**{name: value}))


@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf, "1", None])
def test_a_measured_time_that_is_none(value: object) -> None:
    with pytest.raises(ConfigError, match=rf"workers\[1\]\.measured\[2\] = {value!r}: expected .*seconds"):
        System.from_dict(table(measured=[0.1, 0.2, value]))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({}, "edges = None: expected a list of tables"),
        ({"edges": []}, "edges is empty"),
        ({"edges": "abc"}, "edges = 'abc': expected a list"),
        ({"edges": [3]}, "expected a list of tables"),
        ({"edges": [{"workers": []}]}, r"edges\[0\]\.workers is empty"),
        ({"edges": [{"tau": 0.1}]}, r"edges\[0\]\.workers = None: expected a list"),
        ({"edges": [{"workers": [{"gamma": 3}]}]}, r"edges\[0\]\.workers\[0\]\.c: missing"),
        ({"edges": [{"workers": [WORKER], "tao": 1}]}, "tao = 1: unknown key; did you mean 'tau'"),
        ({**table(), "edge": 1}, "edge = 1: unknown key; did you mean 'edges'"),
    ],
)
def test_a_table_that_is_none(data: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        System.from_dict(data)


def test_all_that_is_wrong_is_told_at_once_and_nothing_else() -> None:
    data = table(p=1.5, c=-1)
    data["edges"][1]["tau"] = math.nan
    data["edges"][0]["workers"] = 5
    with pytest.raises(ConfigError) as caught:
        System.from_dict(data)
    places = [line.removeprefix("System: ").split(" = ")[0] for line in str(caught.value).splitlines()]
    assert sorted(places) == ["edges[0].workers", "edges[1].tau", "edges[1].workers[1].c", "edges[1].workers[1].p"]


def test_empty() -> None:
    with pytest.raises(ConfigError, match="System: edges is empty"):
        System([])
    with pytest.raises(ConfigError, match="Edge: workers is empty"):
        Edge(workers=[])


def test_a_link_of_no_seconds_takes_none() -> None:
    assert Node().mean_transfers == 0.0
