"""Large pages: memory is what it was, and where there are none nothing happens."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from consensus.sim.pages import _private, enlarge


def huge_bytes() -> int:
    """How much of this process's memory is on large pages."""
    return 1024 * int(re.findall(r"^AnonHugePages: +(\d+) kB", Path("/proc/self/smaps_rollup").read_text(), re.MULTILINE)[0])


def test_memory_is_moved_and_holds_what_it_held() -> None:
    numbers = np.arange(4 << 20)
    words = [f"word {number}" for number in range(100_000)]
    moved = enlarge()
    if not moved:
        pytest.skip("this system has no large pages, or none to give (Linux 6.1, transparent huge pages)")
    assert huge_bytes() >= moved // 2  # memory that is given back to the system leaves them
    assert np.array_equal(numbers, np.arange(4 << 20))
    assert words == [f"word {number}" for number in range(100_000)]


@pytest.mark.parametrize(
    "told",
    [{}, {"enabled": "always"}, {"hpage_pmd_size": "2097152", "enabled": "always madvise [never]"}, {"hpage_pmd_size": "large"}],
    ids=["not Linux", "an old kernel", "switched off", "unknown"],
)
def test_without_large_pages_nothing_is_done(tmp_path: Path, told: dict[str, str]) -> None:
    for name, text in told.items():
        (tmp_path / name).write_text(text)
    assert enlarge(tmp_path) == 0


def test_files_and_stacks_are_left_alone() -> None:
    maps = """\
5581e000-5582e000 r--p 00000000 08:01 1234                       /usr/bin/python3.11
5583e000-5584e000 rw-p 00000000 08:01 1234                       /usr/bin/python3.11
5590e000-5595e000 rw-p 00000000 00:00 0                          [heap]
7f000000-7f200000 rw-p 00000000 00:00 0
7f300000-7f400000 rw-s 00000000 00:01 99                         /dev/shm/a segment (deleted)
7fff0000-7fff8000 rw-p 00000000 00:00 0                          [stack]
"""
    assert [*_private(maps)] == [(0x5590E000, 0x5595E000), (0x7F000000, 0x7F200000)]
