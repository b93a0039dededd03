"""Graphs in files: edge lists, GraphML, adjacency matrices."""

from __future__ import annotations

import re
import types
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import networkx as nx
import numpy as np

from consensus import resources
from consensus.errors import TopologyError
from consensus.names import suggestion


def read_graph(path: str | Path) -> nx.Graph[Any]:
    """Read a graph; its suffix names the format.

    Parameters
    ----------
    path
        ``.edgelist``: two node numbers a line, ``#`` begins a comment (a networkx attribute dictionary at the end of a line is
        skipped; a single number is a node alone). ``.graphml``: node ids that are numbers, or numbers after one ``n``.
        ``.npy``, ``.csv``, ``.txt``, ``.adj``: adjacency matrix of zeros and ones, in text one row a line, comma- or
        blank-separated.

    Returns
    -------
    networkx.Graph
        As written; :func:`consensus.topology.validate` says whether ranks can average on it.

    Raises
    ------
    TopologyError
        If the file is missing, of another format, or damaged; the message gives the line.
    """
    path = Path(path)
    if path.suffix not in _READERS:
        raise TopologyError(f"{path}: unknown format {path.suffix!r}; expected one of {', '.join(_READERS)}")
    try:
        return _READERS[path.suffix](path)
    except OSError as error:
        raise TopologyError(f"cannot read the topology file {path}: {error.strerror or error}; is the path right?") from None
    except UnicodeDecodeError as error:
        raise TopologyError(f"{path}: not a text file ({error.reason} at byte {error.start})") from None


def locate(name: str) -> Path | None:
    """Path of the graph file that a user means by ``name``, or None if there is neither such a file nor a bundled one.

    Raises
    ------
    TopologyError
        If ``name`` is plainly a path (it has a graph file's suffix or a directory), and nothing is there.
    """
    if Path(name).is_file() or name.removesuffix(".edgelist") in resources.names("topologies"):
        return resources.find("topologies", name)
    if Path(name).suffix in _READERS or Path(name).name != name:
        raise TopologyError(
            f"no topology file {name!r}; bundled names: {suggestion(Path(name).stem, resources.names('topologies'))}"
        )
    return None


def write_edgelist(graph: nx.Graph[int], path: str | Path, *, description: str, source: str) -> None:
    """Write ``graph`` as an edge list whose header says where it comes from.

    Parameters
    ----------
    graph
        On nodes 0 .. n-1. Attributes are not written.
    path
        File to write, ``.edgelist``.
    description
        What the graph is; one line of the header or several.
    source
        One line: the call that generates it, or the publication.
    """
    comments = [*description.splitlines(), f"nodes: {graph.number_of_nodes()}", f"source: {source}"]
    edges = sorted((min(edge), max(edge)) for edge in graph.edges())
    rows = [f"{i} {j}" for i, j in edges] or [str(node) for node in graph.nodes]
    Path(path).write_text("".join(f"# {line}\n" for line in comments) + "".join(f"{row}\n" for row in rows), encoding="utf-8")


def header(path: str | Path) -> list[str]:
    """Comment lines at the top of an edge list, without their ``#``."""
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    count = next((index for index, line in enumerate(lines) if not line.startswith("#")), len(lines))
    return [line.removeprefix("#").strip() for line in lines[:count]]


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """(where, content) of each line that has content besides a comment."""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        content = line.split("#", 1)[0].strip()
        if content:
            yield f"{path}, line {number}", content


_EDGE = re.compile(r"(\d+)(?:\s+(\d+)(?:\s*\{.*\})?)?")


def _read_edgelist(path: Path) -> nx.Graph[Any]:
    graph: nx.Graph[Any] = nx.Graph()
    for where, line in _lines(path):
        match = _EDGE.fullmatch(line)
        if match is None:
            raise TopologyError(
                f"{where}: expected two node numbers, as in '3 7', got {line!r:.60}; weights and names are not read"
            )
        numbers = [int(text) for text in match.groups() if text is not None]
        graph.add_node(numbers[0])
        if len(numbers) == 2:
            graph.add_edge(*numbers)
    return _not_empty(graph, path)


def _read_graphml(path: Path) -> nx.Graph[Any]:
    try:
        graph = nx.read_graphml(path)
    except ElementTree.ParseError as error:
        raise TopologyError(f"{path}, line {error.position[0]}: not well-formed XML ({error}); is the file truncated?") from None
    except (nx.NetworkXError, KeyError, ValueError) as error:
        raise TopologyError(f"{path}: not a GraphML graph ({error})") from None
    # Many programs write their node numbers as n0, n1 ...
    odd = [node for node in graph.nodes if not re.fullmatch(r"n?\d+", str(node))]
    if odd:
        raise TopologyError(
            f"{path}: node ids must be rank numbers, got {odd[0]!r}; "
            "relabel with nx.convert_node_labels_to_integers(graph) and write again"
        )
    numbers = {node: int(str(node).removeprefix("n")) for node in graph.nodes}
    if len(set(numbers.values())) < len(numbers):
        raise TopologyError(
            f"{path}: two node ids stand for the same number, such as '1' and 'n1'; give each node its own number"
        )
    return _not_empty(nx.relabel_nodes(graph, numbers), path)


def _read_text_matrix(path: Path) -> nx.Graph[Any]:
    rows: list[list[int]] = []
    for where, line in _lines(path):
        words = [word.strip() for word in line.split(",")] if "," in line else line.split()
        bad = next((word for word in words if word not in {"0", "1"}), None)
        if bad is not None:
            raise TopologyError(f"{where}: an adjacency matrix holds only 0 and 1, got {bad!r}")
        if rows and len(words) != len(rows[0]):
            raise TopologyError(f"{where}: expected {len(rows[0])} entries as in the first row, got {len(words)}")
        rows.append([int(word) for word in words])
    return _from_matrix(np.array(rows, dtype=np.int8), path)


def _read_npy(path: Path) -> nx.Graph[Any]:
    try:
        matrix = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise TopologyError(f"{path}: not a NumPy array file ({error}); write it with np.save(path, matrix)") from None
    if not isinstance(matrix, np.ndarray):
        raise TopologyError(f"{path}: expected one array, got an archive; write it with np.save(path, matrix)")
    if not np.isin(matrix, (0, 1)).all():
        raise TopologyError(f"{path}: an adjacency matrix holds only 0 and 1, got {matrix[~np.isin(matrix, (0, 1))].flat[0]}")
    return _from_matrix(matrix.astype(np.int8), path)


def _from_matrix(matrix: np.ndarray[Any, np.dtype[np.int8]], path: Path) -> nx.Graph[Any]:
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        shape = " x ".join(str(length) for length in matrix.shape)
        raise TopologyError(f"{path}: expected a square adjacency matrix, one row and column a rank, got shape {shape}")
    one_way = np.argwhere(matrix != matrix.T)
    if len(one_way):
        i, j = one_way[0]
        entries = f"entry ({i}, {j}) is {matrix[i, j]} and ({j}, {i}) is {matrix[j, i]}"
        raise TopologyError(f"{path}: edges go both ways, but {entries}; make the matrix symmetric")
    graph: nx.Graph[Any] = nx.Graph()
    graph.add_nodes_from(range(len(matrix)))
    graph.add_edges_from((int(i), int(j)) for i, j in np.argwhere(matrix))
    return _not_empty(graph, path)


def _not_empty(graph: nx.Graph[Any], path: Path) -> nx.Graph[Any]:
    if graph.number_of_nodes() == 0:
        raise TopologyError(f"{path}: the file holds no node; expected a graph of at least one")
    return graph


_READERS: Mapping[str, Callable[[Path], nx.Graph[Any]]] = types.MappingProxyType(
    {
        ".edgelist": _read_edgelist,
        ".graphml": _read_graphml,
        ".npy": _read_npy,
        ".csv": _read_text_matrix,
        ".txt": _read_text_matrix,
        ".adj": _read_text_matrix,
    }
)
