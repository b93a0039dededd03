"""``consensus run`` as a rank that may be doomed, for the stress test of deaths: the arguments are a run file and who dies."""

from __future__ import annotations

import json
import os
import sys

from consensus.cli import main as command
from tests.support.fates import Fate, meet


def main() -> None:
    """Be that rank."""
    file, deaths = sys.argv[1], json.loads(sys.argv[2])
    if fate := deaths.get(os.environ["OMPI_COMM_WORLD_RANK"]):
        meet(Fate(*fate))
    sys.argv = ["consensus", "run", file, "--quiet"]
    command()
