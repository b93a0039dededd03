"""Small systems to explore in every way, and the command that does it.

Run ``python -m consensus.sim.explore`` for the small systems, ``--large`` for those that take minutes; see
:mod:`consensus.sim.explorer` for what is explored and how.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Collection, Mapping
from typing import TypeAlias

from consensus.rules import build
from consensus.sim.any_time import AnyTime
from consensus.sim.explorer import Explorer
from consensus.types import Rank

Adjacency: TypeAlias = Mapping[Rank, Collection[Rank]]


def _ring(n: int) -> Adjacency:
    return {i: sorted({(i - 1) % n, (i + 1) % n} - {i}) for i in range(n)}


def _path(n: int) -> Adjacency:
    return {i: [j for j in (i - 1, i + 1) if 0 <= j < n] for i in range(n)}


SMALL: dict[str, Explorer] = {
    "2 ranks x 3 rounds, any rule": Explorer(_path(2), 3, AnyTime()),
    "2 ranks x 2 rounds, any rule, a death": Explorer(_path(2), 2, AnyTime(), deaths=1),
    "2 ranks x 2 rounds, any rule, early leaves": Explorer(_path(2), 2, AnyTime(), leaves=2),
    "path of 3 x 1 round, any rule": Explorer(_path(3), 1, AnyTime()),
    "path of 3 x 1 round, any rule, an early leave": Explorer(_path(3), 1, AnyTime(), leaves=1, reduce=True),
    "path of 3 x 1 round, any rule, a death told to all": Explorer(_path(3), 1, AnyTime(), deaths=1, everyone=True, reduce=True),
    "triangle x 1 round, any rule": Explorer(_ring(3), 1, AnyTime(), reduce=True),
    "path of 3 x 2 rounds, full, active weights": Explorer(_path(3), 2, build("full"), weights="active"),
    "path of 3 x 2 rounds, static_backup": Explorer(_path(3), 2, build("static_backup"), reduce=True),
    "2 ranks x 3 rounds, dtur, a death": Explorer(_path(2), 3, build("dtur"), deaths=1),
    "2 ranks x 3 rounds, dtur, active weights": Explorer(_path(2), 3, build("dtur"), weights="active"),
    "path of 3 x 1 round, dtur": Explorer(_path(3), 1, build("dtur"), reduce=True),
    "path of 3 x 1 round, dtur, active weights": Explorer(_path(3), 1, build("dtur"), weights="active", reduce=True),
    "path of 3 x 1 round, pathsearch": Explorer(_path(3), 1, build("pathsearch"), reduce=True),
    "triangle x 1 round, dtur": Explorer(_ring(3), 1, build("dtur"), reduce=True),
    "path of 3 x 2 rounds, gap": Explorer(_path(3), 2, build("gap", window=1), reduce=True),
}
"""Systems small enough for every test run."""

LARGE: dict[str, Explorer] = {
    "triangle x 1 round, any rule": Explorer(_ring(3), 1, AnyTime()),
    "triangle x 1 round, any rule, an early leave": Explorer(_ring(3), 1, AnyTime(), leaves=1, reduce=True),
    "triangle x 1 round, any rule, a death told to all": Explorer(_ring(3), 1, AnyTime(), deaths=1, everyone=True, reduce=True),
    "path of 3 x 2 rounds, any rule": Explorer(_path(3), 2, AnyTime()),
    "triangle x 2 rounds, any rule": Explorer(_ring(3), 2, AnyTime(), reduce=True),
    "path of 3 x 3 rounds, any rule": Explorer(_path(3), 3, AnyTime(), reduce=True),
    "square x 1 round, any rule": Explorer(_ring(4), 1, AnyTime(), reduce=True),
    "path of 3 x 1 round, dtur": Explorer(_path(3), 1, build("dtur")),
    "path of 3 x 1 round, dtur, a death": Explorer(_path(3), 1, build("dtur"), deaths=1, reduce=True),
    "path of 3 x 2 rounds, pathsearch": Explorer(_path(3), 2, build("pathsearch"), reduce=True),
    "triangle x 2 rounds, dtur": Explorer(_ring(3), 2, build("dtur"), reduce=True),
    "triangle x 2 rounds, dtur, active weights": Explorer(_ring(3), 2, build("dtur"), weights="active", reduce=True),
    "triangle x 2 rounds, gap": Explorer(_ring(3), 2, build("gap", window=1), reduce=True),
    "square x 1 round, static_backup": Explorer(_ring(4), 1, build("static_backup"), reduce=True),
    "square x 2 rounds, full, active weights": Explorer(_ring(4), 2, build("full"), weights="active", reduce=True),
}
"""Systems that take up to a minute or so each."""


def main(arguments: list[str] | None = None) -> None:
    """Explore the small systems, or with ``--large`` the large ones, and print how many states each has."""
    parser = argparse.ArgumentParser(prog="python -m consensus.sim.explore", description="Visit every state of small systems.")
    parser.add_argument("--large", action="store_true", help="the systems that take minutes each")
    systems = LARGE if parser.parse_args(arguments).large else SMALL
    for name, explorer in systems.items():
        begin = time.perf_counter()
        states = explorer.run()
        seconds = time.perf_counter() - begin
        print(f"{name}: {states:,} states, no deadlock, no asymmetric exchange, nothing left over ({seconds:.1f} s)", flush=True)


if __name__ == "__main__":
    main()
