"""MPI jobs: a specification goes to all ranks, a result comes back from rank 0."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from consensus import launcher
from consensus.errors import LaunchError

ROOT = Path(__file__).resolve().parent.parent

_GRACE = 10.0


def launch(module: str, ranks: int, specification: dict[str, Any], *, limit: float) -> Any:
    """Run ``benchmarks.ranks.MODULE`` as MPI ranks.

    Parameters
    ----------
    module
        Name of the module.
    ranks
        How many.
    specification
        What :func:`benchmarks.ranks.entry.serve` hands to the module's function; JSON.
    limit
        Seconds after which the job is ended.

    Returns
    -------
    object
        What the function returned on rank 0.

    Raises
    ------
    LaunchError
        If the job fails or does not end in time.
    """
    with tempfile.TemporaryDirectory(prefix="benchmark-") as name:
        given, result = Path(name, "specification.json"), Path(name, "result.json")
        given.write_text(json.dumps(specification), encoding="utf-8")
        # Ranks import this folder's package, wherever the command was given.
        path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        program = ["-m", f"benchmarks.ranks.{module}", str(given), str(result)]
        job = launcher.command(ranks, program, environment={**os.environ, "PYTHONPATH": path})
        code = _wait(subprocess.Popen(job.argv, env=job.env, stdin=subprocess.DEVNULL), limit)
        if code is None:
            raise LaunchError(f"benchmarks.ranks.{module} on {ranks} ranks did not end within {limit:g} s and was stopped")
        if code or not result.exists():
            raise LaunchError(f"benchmarks.ranks.{module} on {ranks} ranks ended with status {code}; its message is above")
        return json.loads(result.read_text(encoding="utf-8"))


def _wait(job: subprocess.Popen[bytes], limit: float) -> int | None:
    try:
        return job.wait(limit)
    except subprocess.TimeoutExpired:
        return None
    finally:
        if job.poll() is None:
            job.terminate()
            try:
                job.wait(_GRACE)
            except subprocess.TimeoutExpired:
                job.kill()
                job.wait()


def say(line: str) -> None:
    """Print a line of progress at once."""
    print(line, file=sys.stderr, flush=True)
