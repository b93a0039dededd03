"""Memory on large pages, where the system has them.

A simulation of thousands of ranks spends its time on memory that no cache holds, a part of that on looking up where it is: the
processor remembers some thousand pages of 4 KiB, a tenth of such a network. Python takes its memory in pieces that are too small
to be given pages of 2 MiB, so it is moved there once it is filled. What that is worth: the benchmark ``simulator``.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from pathlib import Path

_SYSTEM = Path("/sys/kernel/mm/transparent_hugepage")
_MAPS = Path("/proc/self/maps")

_COLLAPSE = 25
"""MADV_COLLAPSE of Linux 6.1, which Python's mmap module does not name."""


def enlarge(system: Path = _SYSTEM) -> int:
    """Move this process's private memory to large pages, as far as it can be.

    Nothing that the memory holds changes. Nothing is done on other systems than Linux, by a kernel that does not know how, and
    where the administrator has switched large pages off.

    Parameters
    ----------
    system : Path
        Where the kernel tells of large pages.

    Returns
    -------
    int
        Bytes that are on large pages now.
    """
    try:
        size = int((system / "hpage_pmd_size").read_text())
        allowed = "[never]" not in (system / "enabled").read_text()
        regions = [*_private(_MAPS.read_text())]
    except (OSError, ValueError):
        return 0
    if not allowed:
        return 0
    advise = ctypes.CDLL(None).madvise
    advise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    pages = (page for low, high in regions for page in range(-(-low // size) * size, high - size + 1, size))
    return sum(size for page in pages if advise(page, size, _COLLAPSE) == 0)


def _private(maps: str) -> Iterator[tuple[int, int]]:
    """Yield where writable memory begins and ends that is no file's and no stack."""
    for line in maps.splitlines():
        addresses, rights, _, _, _, *name = line.split(maxsplit=5)
        if rights == "rw-p" and name in ([], ["[heap]"]):
            low, high = addresses.split("-")
            yield int(low, 16), int(high, 16)
