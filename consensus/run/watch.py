"""Rank 0's side of a target: starts the evaluator process, looks for its word, and takes over what it has evaluated."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from consensus.errors import ConsensusError
from consensus.run.evaluation import Evaluated
from consensus.run.folder import SNAPSHOTS

STOP = "stop.json"
"""Written into the run's folder when the target is reached."""

EVALUATED = "evaluated.jsonl"
"""Beside the snapshots: what the evaluator process has evaluated."""

_LAUNCHERS = ("OMPI_", "PMIX_", "PRTE_", "PMI_", "MPI_", "HYDRA_", "MV2_", "I_MPI_")

_PATIENCE = 60.0


class TargetWatch:
    """The evaluator process of a run whose end is a target.

    Parameters
    ----------
    run
        The run's folder.
    """

    def __init__(self, run: Path) -> None:
        self._stop = str(run / STOP)
        self._lines = run / SNAPSHOTS / EVALUATED
        # A session of its own: Ctrl-C is for the ranks, which then close the pipe.
        self._process = subprocess.Popen(
            [sys.executable, "-m", "consensus.run.evaluator", str(run)],
            stdin=subprocess.PIPE,
            env=environment(os.environ),
            start_new_session=True,
        )

    def reached(self) -> bool:
        """Whether the target is reached; costs a system call or two.

        Raises
        ------
        ConsensusError
            If the evaluator process has ended without saying so: the run might never end.
        """
        if os.path.exists(self._stop):
            return True
        if self._process.poll():
            raise ConsensusError(
                f"the process that evaluates the target ended with status {self._process.returncode}; its message is above. "
                "Stop on samples or seconds instead, or free memory"
            )
        return False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.finish()

    def finish(self) -> list[Evaluated]:
        """End the process, and return what it has evaluated. Safe to call twice."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            logging.getLogger("consensus").warning("the evaluator process did not end within %g s and was killed", _PATIENCE)
            self._process.kill()
            self._process.wait()
        lines = self._lines.read_text(encoding="utf-8").split("\n") if self._lines.exists() else [""]
        return [Evaluated(**json.loads(line)) for line in lines[:-1]]


def environment(variables: Mapping[str, str]) -> dict[str, str]:
    """``variables`` without a launcher's, so that the process is not taken for a rank, and with one thread."""
    return {name: value for name, value in variables.items() if not name.startswith(_LAUNCHERS)} | {"OMP_NUM_THREADS": "1"}
