"""Which rank died, as the launcher tells it, and what to do then.

Open MPI's launcher names the rank, on standard error, and exits with 128 + the signal, as shells do. MPICH's exits with the
signal's number and tells the process and the host, but no rank, on standard output, where nobody reads along. Where the library
lets a job outlive its ranks, the launcher is silent, and the survivors say what has to be said.
"""

from __future__ import annotations

import re
import signal
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from consensus.cli.supervise import Outcome
from consensus.launcher import Launch, vendor
from consensus.run.checkpoints import Found, way_on
from consensus.run.folder import runs_of

if TYPE_CHECKING:
    from consensus.config import RunConfig

_NOTICED = re.compile(
    r"process rank (?P<rank>\d+) with PID (?P<pid>\d+) on node (?P<node>\S+)\s+exited\s+on\s+signal\s+(?P<signal>\d+)"
)
_SHELL = 128


def died(outcome: Outcome, mpich: bool = False) -> str | None:
    r"""Who died of which signal, in words; None if it was not a signal that ended the job.

    Parameters
    ----------
    outcome : Outcome
        Of a job whose standard error was kept; ranks that were killed because another one had failed are not meant.
    mpich : bool
        Whether MPICH's launcher started it.

    Examples
    --------
    >>> told = "prterun noticed that process rank 2 with PID 24437 on node n7 exited on\nsignal 9 (Killed)."
    >>> died(Outcome(137, told))
    'rank 2 (process 24437 on n7) died of signal 9 (SIGKILL)'
    >>> died(Outcome(9), mpich=True), died(Outcome(1)), died(Outcome(130))
    ('a rank died of signal 9 (SIGKILL)', None, None)
    """
    if outcome.interrupted or outcome.killed:
        return None
    noticed = _NOTICED.search(outcome.errors)
    if noticed is not None:
        return f"rank {noticed['rank']} (process {noticed['pid']} on {noticed['node']}) died of {_named(int(noticed['signal']))}"
    number = outcome.code - (0 if mpich else _SHELL)
    # Ranks that end with an error of their own do so with 1 or 2.
    known = number > 2 and number in set(signal.Signals)
    return f"a rank{'' if mpich else ', or the launcher,'} died of {_named(number)}" if known else None


def _named(number: int) -> str:
    with suppress(ValueError):
        return f"signal {number} ({signal.Signals(number).name})"
    return f"signal {number}"


class Aftermath:
    """Says which rank died, and how to go on; made before the job is started.

    Parameters
    ----------
    config : RunConfig
        Of the run.
    found : Found, optional
        What it goes on from.
    """

    def __init__(self, config: RunConfig, found: Found | None = None) -> None:
        self._config, self._found = config, found
        self._before = runs_of(config)

    def told(self, launch: Launch, outcome: Outcome) -> str | None:
        """What to say of a job that has ended; None if no rank died and took it along."""
        mpich = vendor(Path(launch.argv[0])).name == "MPICH" if outcome.code else False
        who = died(outcome, mpich)
        if who is None:
            return None
        fresh = [run for run in runs_of(self._config) if run not in self._before]
        further = way_on(self._config, fresh[-1], self._found) if fresh else "The run had not begun"
        return f"{who}, and that ended the run. {further}"
