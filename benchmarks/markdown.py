"""Tables, and the places in a document where they go."""

from __future__ import annotations

from collections.abc import Sequence

from consensus.errors import ConfigError


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table, the first column to the left and the others to the right; None is a dash.

    Examples
    --------
    >>> print(table(["rule", "s"], [["full", 7.5], ["ddp", None]]), end="")
    | rule | s |
    |---|---:|
    | full | 7.5 |
    | ddp | – |
    """
    cells = [[("–" if cell is None else str(cell)) for cell in row] for row in rows]
    lines = [list(header), ["---", *["---:"] * (len(header) - 1)]]
    text = ["| " + " | ".join(lines[0]) + " |", "|" + "|".join(lines[1]) + "|"]
    return "\n".join([*text, *("| " + " | ".join(row) + " |" for row in cells)]) + "\n"


def verdict(met: bool | None) -> str:
    """A word for a target that is met, missed, or cannot be judged."""
    return {True: "met", False: "missed", None: "not known"}[met]


def begin(name: str) -> str:
    """The line before what is generated."""
    return f"<!-- {name}: begin; written by python -m benchmarks {name} -->"


def end(name: str) -> str:
    """The line after it."""
    return f"<!-- {name}: end -->"


def replaced(text: str, name: str, generated: str) -> str:
    """``text`` with what stands between the markers of ``name`` replaced.

    Raises
    ------
    ConfigError
        If the markers are missing.

    Examples
    --------
    >>> document = "a" + begin("cpu") + "old" + end("cpu") + "z"
    >>> replaced(document, "cpu", "new").replace(begin("cpu"), "<").replace(end("cpu"), ">")
    'a<\\n\\nnew\\n\\n>z'
    """
    before, first, rest = text.partition(begin(name))
    _, last, after = rest.partition(end(name))
    if not first or not last:
        raise ConfigError(f"expected the lines {begin(name)!r} and {end(name)!r}; add them where the table of {name} belongs")
    return f"{before}{first}\n\n{generated.strip()}\n\n{last}{after}"
