"""The table of the bundled topologies: ``python -m consensus.topology.readme [README.md]``.

Without an argument it prints the table; with one it rewrites the table between the two markers in that file.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from consensus import resources
from consensus.errors import ConfigError
from consensus.topology.files import header, read_graph
from consensus.topology.summary import summarise
from consensus.topology.validity import validate

BEGIN = "<!-- table: begin; written by python -m consensus.topology.readme -->"
END = "<!-- table: end -->"


def table() -> str:
    """Markdown table of the bundled topologies, one row each."""
    rows = [
        "| name | what | n | edges | degrees | diameter | spectral gap | backbone |",
        "|---|---|---:|---:|---:|---:|---:|---|",
    ]
    for name in resources.names("topologies"):
        path = resources.find("topologies", name)
        graph = read_graph(path)
        s = summarise(validate(graph, graph.number_of_nodes()))
        gap = f"{s.spectral_gap:.4f}"
        rows.append(f"| {name} | {header(path)[0]} | {s.nodes} | {s.edges} | {s.degrees} | {s.diameter} | {gap} | {s.backbone} |")
    return "\n".join(rows) + "\n"


def updated(text: str) -> str:
    """``text`` with what stands between the markers replaced by the current table.

    Raises
    ------
    ConfigError
        If the markers are missing.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ConfigError(f"expected the lines {BEGIN!r} and {END!r} around the table; add them where it belongs")
    return f"{before}{BEGIN}\n\n{table()}\n{END}{after}"


def main(arguments: Sequence[str]) -> None:
    """Print the table, or rewrite it in the files named."""
    if not arguments:
        print(table(), end="")
    for name in arguments:
        path = Path(name)
        path.write_text(updated(path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
