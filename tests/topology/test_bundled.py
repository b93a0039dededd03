"""The graphs that come with the package, and the command that shows them."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from consensus import resources
from consensus.cli.topology import app
from consensus.errors import TopologyError
from consensus.topology import read_graph, validate
from consensus.topology.files import header
from consensus.topology.readme import updated

README = Path(__file__).parents[2] / "topologies" / "README.md"


@pytest.mark.parametrize("name", resources.names("topologies"))
def test_every_file_is_usable_and_says_where_it_comes_from(name: str) -> None:
    path = resources.find("topologies", name)
    graph = read_graph(path)
    assert validate(graph, graph.number_of_nodes()).number_of_nodes() == int(name.rpartition("-")[2])
    assert any(line.startswith("source: ") for line in header(path))


def test_readme_table_is_up_to_date() -> None:
    text = README.read_text(encoding="utf-8")
    assert updated(text) == text


def test_show_prints_the_numbers() -> None:
    result = CliRunner().invoke(app, ["show", "hypercube", "-n", "16"])
    assert result.exit_code == 0
    assert "0.4 (Metropolis weights)" in result.stdout
    assert "Hamiltonian path" in result.stdout


def test_list_names_families_and_files() -> None:
    result = CliRunner().invoke(app, ["list"])
    assert result.exit_code == 0
    assert "watts_strogatz" in result.stdout
    assert "petersen-10" in result.stdout


def test_draw_writes_a_picture(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["draw", "random_regular", "-n", "10", "--set", "degree=3", "-o", str(tmp_path / "g.png")])
    assert result.exit_code == 0
    assert (tmp_path / "g.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", "ring"], "say how many ranks"),
        (["show", "rnig", "-n", "8"], "did you mean 'ring'"),
        (["show", "torus-16", "--set", "rows=2"], "only families have parameters"),
        (["show", "ring", "-n", "8", "--set", "rows"], "KEY=VALUE"),
    ],
)
def test_bad_requests(arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(app, arguments)
    assert isinstance(result.exception, TopologyError)
    assert message in str(result.exception)
