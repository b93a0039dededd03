"""Graph files: every format round-trips, and damage is named with its line."""

from __future__ import annotations

from pathlib import Path

import networkx as nx
import numpy as np
import pytest

from consensus.errors import TopologyError
from consensus.topology import build, read_graph, write_edgelist

GRAPH = nx.petersen_graph()


def test_every_format_reads_the_same_graph(tmp_path: Path) -> None:
    matrix = nx.to_numpy_array(GRAPH, dtype=int)
    write_edgelist(build(GRAPH, 10), tmp_path / "g.edgelist", description="the Petersen graph", source="a test")
    nx.write_graphml(GRAPH, tmp_path / "g.graphml")
    np.save(tmp_path / "g.npy", matrix)
    np.savetxt(tmp_path / "g.csv", matrix, fmt="%d", delimiter=",")
    np.savetxt(tmp_path / "g.txt", matrix, fmt="%d")
    np.savetxt(tmp_path / "g.adj", matrix, fmt="%d")
    files = sorted(tmp_path.iterdir())
    assert len(files) == 6
    for file in files:
        assert set(build(str(file), 10).edges) == set(build(GRAPH, 10).edges), file.name


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.edgelist", "0 1\n1 x\n", "line 2: expected two node numbers"),
        ("a.edgelist", "# nothing\n", "holds no node"),
        ("a.csv", "0,1\n1\n", "line 2: expected 2 entries"),
        ("a.csv", "0,2\n2,0\n", "line 1: an adjacency matrix holds only 0 and 1, got '2'"),
        ("a.txt", "0 1\n0 0\n", r"entry \(0, 1\) is 1 and \(1, 0\) is 0"),
        ("a.txt", "0 1 0\n1 0 1\n", "square"),
        ("a.graphml", "<graphml>", "line 1: not well-formed XML"),
        ("a.npy", "no array", "not a NumPy array file"),
        ("a.gml", "graph []", "unknown format '.gml'"),
    ],
)
def test_damage_is_named(tmp_path: Path, name: str, content: str, message: str) -> None:
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(TopologyError, match=message):
        read_graph(path)


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(TopologyError, match="is the path right"):
        read_graph(tmp_path / "gone.edgelist")
    with pytest.raises(TopologyError, match="did you mean 'torus-16'"):
        build("trous-16.edgelist", 16)


def test_graphml_with_words_for_nodes(tmp_path: Path) -> None:
    nx.write_graphml(nx.Graph([("a", "b")]), tmp_path / "g.graphml")
    with pytest.raises(TopologyError, match="rank numbers"):
        read_graph(tmp_path / "g.graphml")
