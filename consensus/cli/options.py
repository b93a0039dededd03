"""Options that several commands have, and the words for them; light, since every command's help needs it."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from consensus.transport.launched import launched


class Mode(StrEnum):
    """How to show progress."""

    AUTO = "auto"
    LIVE = "live"
    LINES = "lines"
    OFF = "off"

    def resolved(self, wanted: bool = True) -> Mode:
        """What to do in this process: OFF unless wanted; a live bar by default where this process has a terminal."""
        if not wanted:
            return Mode.OFF
        if self is not Mode.AUTO:
            return self
        # A launcher may give its ranks a pseudo-terminal whatever its own output is: there a terminal proves nothing.
        return Mode.LIVE if sys.stdout.isatty() and not launched() else Mode.LINES


RunFile = Annotated[
    str, typer.Argument(metavar="FILE", help="A run file, or the name of one that comes with the package.", show_default=False)
]
DataDir = Annotated[
    Path | None, typer.Option("--data-dir", help="Where the data set's files are, in place of data.dir.", show_default=False)
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Change a key of the run file, as in rule.name=full; repeatable.", show_default=False
    ),
]
Ranks = Annotated[int | None, typer.Option("--ranks", min=1, help="How many ranks, in place of run.ranks.", show_default=False)]
Progress = Annotated[Mode, typer.Option("--progress", help="Show progress as a live bar, as plain lines, or not at all.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")]
Hostfile = Annotated[
    Path | None,
    typer.Option("--hostfile", help="Hosts to run on, one a line, in the format of the MPI library.", show_default=False),
]
Mpirun = Annotated[
    str | None,
    typer.Option("--mpirun", help="The launcher to use, in place of the one that belongs to the library.", show_default=False),
]
MpiOptions = Annotated[
    list[str] | None,
    typer.Option("--mpi-option", metavar="OPTION", help="A further option for mpirun; repeatable.", show_default=False),
]
LostAfter = Annotated[
    float | None,
    typer.Option(
        "--lost-after", metavar="SECONDS", min=1, show_default=False,
        help="Count ranks as dead that are not heard of for so long, as after a crash of their host; needs Open MPI 5.",
    ),
]  # fmt: skip


def words(options: list[str] | None) -> list[str]:
    """The words of options that were given as one text each, as in ``--mpi-option '--mca btl_tcp_if_include eth0'``."""
    return [word for option in options or [] for word in option.split()]
