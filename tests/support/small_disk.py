"""A disk of 256 KiB gets full, is then read-only, then well again: for a process in a namespace of its own, which may mount."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from consensus.checkpoint.store import Store

KIBIBYTES = 256


def main() -> None:
    """Print what each attempt at writing came to, and what was there afterwards."""
    folder = Path(sys.argv[1])
    _mount("-t", "tmpfs", "-o", f"size={KIBIBYTES}k", "none", folder)
    stores = [Store(folder, rank, 2) for rank in (0, 1)]
    for number in (1, 2):
        for store in stores:
            assert store.write(number, torch.zeros(10))
    before = _contents(folder)
    too_much = torch.zeros(KIBIBYTES * 1024)
    tell("full", [store.write(number, too_much) for number in (3, 4) for store in stores], before, folder)
    with _read_only(folder):
        tell("read-only", [store.write(number, torch.zeros(10)) for number in (5, 6) for store in stores], before, folder)
    written = [store.write(7, torch.zeros(10)) for store in stores]
    print(json.dumps({"disk": "well", "written": written, "newest": stores[0].newest()}))


def tell(disk: str, written: list[bool], before: dict[str, bytes], folder: Path) -> None:
    """Print a line of JSON: whether anything is other than it was, and the newest set."""
    same = _contents(folder) == before
    print(json.dumps({"disk": disk, "written": written, "same": same, "newest": Store(folder, 0, 2).newest()}))


def _contents(folder: Path) -> dict[str, bytes]:
    """All files, and folders as if they were empty ones."""
    return {str(path): path.read_bytes() if path.is_file() else b"" for path in folder.rglob("*")}


@contextmanager
def _read_only(folder: Path) -> Iterator[None]:
    _mount("-o", "remount,ro", folder)
    yield
    _mount("-o", "remount,rw", folder)


def _mount(*arguments: str | Path) -> None:
    subprocess.run(["mount", *map(str, arguments)], check=True)


if __name__ == "__main__":
    main()
