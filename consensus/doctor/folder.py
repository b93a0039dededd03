"""Whether a folder is fit for runs and their checkpoints: all ranks see it, can write to it, and how long that takes."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp

from consensus.checkpoint.atomic import replacing
from consensus.doctor.check import Check, State
from consensus.transport.base import Transport
from consensus.types import Rank, Seconds

FILE_BYTES = 64 << 20
"""Size of the file that each rank writes."""

TOTAL_BYTES = 1 << 30
"""Of all ranks' files together, at most: with many ranks files are smaller."""

FREE_BYTES = 4 << 30
"""With less free space the disk is said to be nearly full. Runs are small, their checkpoints as large as the model is."""

SLOW: Seconds = 5.0
"""If a file takes longer, a folder is said to be slow."""

PATIENCE: Seconds = 5.0
"""For what rank 0 wrote to be seen from other hosts; network file systems look again after a few seconds."""

IN_MEMORY = ("tmpfs", "ramfs")
"""File systems that are gone when the machine stops, and take memory from the ranks."""


@dataclass(frozen=True)
class FolderReport:
    """What ranks found.

    Attributes
    ----------
    path : str
        The folder.
    kind : str
        Its file system, as rank 0 sees it; empty if that cannot be told.
    free : int
        Bytes there is room for; 0 if that is not known.
    size : int
        Bytes that each rank wrote.
    hosts : list of str
        By rank.
    blind : list of int
        Ranks that do not see what rank 0 writes.
    problems : list of str
        By rank: why it cannot write, or nothing; rank 0's alone if it could not begin.
    seconds : list of float
        By rank: how long it took to write a file, all at once, to the disk and not only to memory, and to rename it.
    """

    path: str
    kind: str
    free: int
    size: int
    hosts: list[str]
    blind: list[Rank]
    problems: list[str]
    seconds: list[Seconds]


def try_folder(transport: Transport, path: Path) -> FolderReport:
    """Write to a folder from all ranks, as checkpoints are written. Collective. What is written is removed.

    Parameters
    ----------
    transport : Transport
        Of the ranks, not connected.
    path : Path
        The folder; it need not exist, and does not afterwards if it did not before.
    """
    with ExitStack() as cleaning:
        made, problem, kind, free = "", "", "", 0
        if transport.rank == 0:
            try:
                made = str(cleaning.enter_context(_folder_in(path)).absolute())
                kind, free = file_system(path), shutil.disk_usage(path).free
            except OSError as error:
                problem = error.strerror or str(error)
        places = transport.gather((socket.gethostname(), made, problem, kind, free))
        hosts = [host for host, *_ in places]
        _, made, problem, kind, free = places[0]
        if problem:
            return FolderReport(str(path), kind, free, 0, hosts, [], [problem], [])
        seen = _seen(transport, Path(made))
        size = min(FILE_BYTES, TOTAL_BYTES // transport.size, free // (4 * transport.size))
        problem, seconds = _write(transport, Path(made), size) if seen else ("", 0.0)
        found = transport.gather((seen, problem, seconds))  # nobody removes anything before
    blind = [rank for rank, (sees, _, _) in enumerate(found) if not sees]
    return FolderReport(str(path), kind, free, size, hosts, blind, [row[1] for row in found], [row[2] for row in found])


@contextmanager
def _folder_in(path: Path) -> Iterator[Path]:
    """A folder of its own in ``path``, which is made if need be; afterwards both are as they were."""
    new = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        path.mkdir(parents=True, exist_ok=True)
        own = Path(mkdtemp(prefix=".doctor-", dir=path))
        try:
            yield own
        finally:
            shutil.rmtree(own, ignore_errors=True)
    finally:
        with suppress(OSError):  # somebody else uses it by now
            for folder in new:
                folder.rmdir()


def _seen(transport: Transport, folder: Path) -> bool:
    waited = 0.0
    while not folder.is_dir():
        if waited >= PATIENCE:
            return False
        transport.sleep(0.1)
        waited += 0.1
    return True


def _write(transport: Transport, folder: Path, size: int) -> tuple[str, Seconds]:
    block = os.urandom(min(size, 1 << 20))  # zeros might be stored as none
    began = transport.now()
    try:
        with replacing(folder / str(transport.rank)) as file:
            for start in range(0, size, 1 << 20):
                file.write(block[: size - start])
    except OSError as error:
        return error.strerror or str(error), 0.0
    return "", transport.now() - began


def file_system(path: Path, table: Path = Path("/proc/self/mountinfo")) -> str:
    """The kind of file system that ``path`` is on, as Linux calls it; empty where that cannot be told.

    Parameters
    ----------
    path : Path
        Something that exists.
    table : Path
        What Linux says is mounted.
    """
    try:
        lines = table.read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    device = path.stat().st_dev
    for line in reversed(lines):
        before, _, after = line.partition(" - ")
        if before.split()[2] == f"{os.major(device)}:{os.minor(device)}":
            return after.split()[0]
    return ""


def check_folder(report: FolderReport) -> Check:
    """Judge what :func:`try_folder` found."""
    name, elsewhere = "folder for runs", "give another one: consensus doctor --out FOLDER, and run.out in the run file"
    failed = [rank for rank, problem in enumerate(report.problems) if problem]
    if failed:
        who = "" if len(report.hosts) == 1 else f", rank {failed[0]} on {report.hosts[failed[0]]}"
        return Check(name, State.FAIL, f"{report.path} cannot be written to: {report.problems[failed[0]]}{who}", elsewhere)
    if report.blind:
        hosts = ", ".join(dict.fromkeys(report.hosts[rank] for rank in report.blind))
        found = f"{report.path} is not the same folder everywhere: what {report.hosts[0]} writes is not seen on {hosts}"
        return Check(name, State.FAIL, found, f"{elsewhere}, on a file system that all hosts share")
    slowest = max(report.seconds)
    many = len(report.hosts)
    written = f"{'a file' if many == 1 else f'{many} files at once'} of {report.size / 1e6:.0f} MB"
    kind = f" ({report.kind})" if report.kind else ""
    found = f"{report.path}{kind}: {report.free / 1e9:.0f} GB free; {written} took {slowest:.2f} s to be on disk"
    advice = list(_advice(report, slowest))
    return Check(name, State.WARN if advice else State.OK, found, "; ".join(advice))


def _advice(report: FolderReport, slowest: Seconds) -> Iterator[str]:
    if report.kind in IN_MEMORY:
        yield "it is in memory: checkpoints there do not outlive the machine; give a folder on a disk with --out"
    if report.free < FREE_BYTES:
        yield "little room is left: by default checkpoints keep two sets of all ranks' models and optimizers"
    if slowest > SLOW:
        yield "writing is slow, and ranks stop for it: let checkpoint.every be minutes"
