"""Writes checkpoints until it is killed: forks one writer per line of input, a folder, so that torch is loaded once.

For each it says ``writer PID``, then the number of every set that is complete, and ``ended`` when the writer is gone.
"""

from __future__ import annotations

import itertools
import os
import sys
from pathlib import Path

import torch

from consensus.checkpoint.store import Store, latest_start

RANKS = 2
NUMEL = 20_000


def say(line: str) -> None:
    """Print a line whole or not at all: a writer may be killed between two parts of it."""
    os.write(1, f"{line}\n".encode())


def write(folder: Path) -> None:
    say(f"writer {os.getpid()}")
    start = latest_start(folder) + 1
    stores = [Store(folder, rank, RANKS, keep=2, start=start) for rank in range(RANKS)]
    for number in itertools.count(1):
        for rank, store in enumerate(stores):
            value = float(1000 * start + number)
            store.write(number, {"start": start, "number": number, "rank": rank, "weight": torch.full((NUMEL,), value)})
        say(f"{start} {number}")


def main() -> None:
    torch.set_num_threads(1)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            write(Path(line.strip()))
        os.waitpid(child, 0)
        say("ended")


if __name__ == "__main__":
    main()
