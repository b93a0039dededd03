"""Checkpoints on a real disk that is full, and on one that is read-only: nothing is lost, and one warning is given."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ALONE = ["unshare", "--user", "--map-root-user", "--mount"]


def test_a_disk_that_is_full_and_then_read_only(tmp_path: Path) -> None:
    if shutil.which("unshare") is None or subprocess.run([*ALONE, "true"], capture_output=True).returncode:
        pytest.skip("a disk can only be mounted where processes may have namespaces of their own (unshare --user --mount)")
    argv = [*ALONE, sys.executable, "-m", "tests.support.small_disk", str(tmp_path)]
    done = subprocess.run(argv, cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    full, read_only, well = map(json.loads, done.stdout.splitlines())
    assert full == {"disk": "full", "written": [False] * 4, "same": True, "newest": [1, 2]}
    assert read_only == {"disk": "read-only", "written": [False] * 4, "same": True, "newest": [1, 2]}
    assert well == {"disk": "well", "written": [True] * 2, "newest": [1, 7]}
    warnings = [line for line in done.stderr.splitlines() if "no checkpoint was written" in line]
    assert len(warnings) == 2, "one of each rank's store until it succeeds again"
    assert all("No space left on device" in line for line in warnings)
