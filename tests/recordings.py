"""Recorded runs for tests, and the bytes of their logs."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from consensus.protocol.neighbour import NeighbourEngine
from consensus.protocol.rounds import RoundRecord
from consensus.recording.encoding import MESSAGE_FORMS
from consensus.recording.folder import file_name
from consensus.recording.writer import BLOCK_FORM, MAGIC, VERSION_FORM, EventWriter
from consensus.transport.base import Transport
from consensus.transport.loopback import run
from tests.support.wire import Adjacency, Wire
from tests.worlds import EVERY_RULE, attached_point, descend, numbers, random_graph, slowed

HEAD = len(MAGIC) + VERSION_FORM.size
READY = next(code for code, kind, _ in MESSAGE_FORMS if kind.__name__ == "Ready")


def train(
    transport: Transport, folder: Path, rule: str = "dtur", weights: str = "static", seconds: float = 1e-3
) -> list[RoundRecord]:
    """What a rank does in a recorded run of two sessions, an average over all ranks between them."""
    with EventWriter(folder / file_name(transport.rank), run="a run") as recorder:
        handle, records = attached_point(
            slowed(transport, 1, seconds=seconds),
            lr=0.1,
            topology=random_graph(transport.size, 5),
            rule=EVERY_RULE[rule],
            weights=weights,
            recorder=recorder,
        )
        recorder.set_clock(transport.now(), 1.7e9)
        with handle:
            descend(handle, 5 + 2 * transport.rank, numbers(transport.rank))
            handle.average()
            descend(handle, 9, numbers(transport.rank))
    return records


def in_loopback(folder: Path, size: int = 5, **options: Any) -> list[list[RoundRecord]]:
    """Every rank's rounds in such a run on the deterministic twin."""
    return run(size, lambda transport: train(transport, folder, **options), seed=2)


def on_the_wire(
    folder: Path, adjacency: Adjacency, rule: Any, *, limit: float = 1e9, everyone: bool = True, **options: Any
) -> Wire:
    """A recorded run of real engines on a fake wire, where ranks may die."""
    net = Wire(adjacency, rule, everyone=everyone, **options)
    writers = [EventWriter(folder / file_name(rank), run="a wire", limit=limit) for rank in range(net.n)]
    for engine, writer in zip(net.engines, writers, strict=True):
        writer.begin(engine, weights=options.get("weights", "static"), everyone=everyone)
    net.observers.append(lambda rank, event, commands: writers[rank].record(net.now, event, commands))
    net.run()
    for writer in writers:
        writer.close()
    return net


def blocks(data: bytes) -> list[bytes]:
    """The data in a log's blocks, the header first."""
    found, at = [], HEAD
    while at < len(data):
        length, _, _ = BLOCK_FORM.unpack_from(data, at)
        at += BLOCK_FORM.size + length
        found.append(data[at - length : at])
    return found


def rewrite(path: Path, edit: Callable[[list[bytes]], Sequence[bytes]]) -> None:
    """Change a log's blocks as somebody would who gets the checksums right."""
    data = path.read_bytes()
    new = [
        BLOCK_FORM.pack(len(block), len(block) ^ 0xFFFFFFFF, zlib.crc32(block)) + block for block in edit(blocks(data))
    ]
    path.write_bytes(data[:HEAD] + b"".join(new))


def fresh(rule: Any, size: int = 3) -> NeighbourEngine:
    """Rank 0's engine in the middle of a star."""
    hub = tuple(range(1, size))
    return NeighbourEngine(0, {0: hub, **dict.fromkeys(hub, (0,))}, rule)
