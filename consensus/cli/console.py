"""Where commands print: colours where there is a terminal, and room for a table where there is none."""

from __future__ import annotations

import os
import sys

from rich.console import Console

from consensus.transport.launched import launched

_PLAIN_WIDTH = 120


def console(*, stderr: bool = False, terminal: bool | None = None) -> Console:
    """What to print with.

    Parameters
    ----------
    stderr : bool
        Print to standard error.
    terminal : bool, optional
        Whether there is a terminal, for a caller that knows. Otherwise it is looked for; behind a launcher there is none, for
        Open MPI gives its ranks a pseudo-terminal even if its own output goes to a file.
    """
    if terminal is None:
        terminal = not launched() and (sys.stderr if stderr else sys.stdout).isatty()
    width = None if terminal or "COLUMNS" in os.environ else _PLAIN_WIDTH
    return Console(stderr=stderr, highlight=False, emoji=False, force_terminal=terminal, width=width)
