"""Damage done at random, always the same: run files, messages, traces. ``FUZZ=10`` does ten times as much."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from typing import Any

TIMES = int(os.environ.get("FUZZ", "1"))

VALUES: tuple[Any, ...] = (
    0, 1, -1, 2, 3, 7, 10**30, 0.0, -0.5, 0.5, 1e-300, 1e300, True, False, "", "x", "ring", "hgc", "dtur", "bsp", "0", "60 s",
    "\u0000", "é" * 50,
    [], [1], [0, 1], [1, "a"], {}, {"name": "x"}, {"kind": "ring"}, {"a": {"b": []}}, [[1, 2], [3]], {"1": 0.5},
)  # fmt: skip


def corrupted(data: bytes, times: int, seed: int) -> Iterator[bytes]:
    """``data`` with bytes changed, cut out, doubled or cut off."""
    draw = random.Random(seed)

    def flip(data: bytearray) -> None:
        data[draw.randrange(len(data))] = draw.randrange(256)

    def remove(data: bytearray) -> None:
        at = draw.randrange(len(data))
        del data[at : at + draw.randint(1, 20)]

    def double(data: bytearray) -> None:
        at = draw.randrange(len(data))
        data[at:at] = data[at : at + draw.randint(1, 20)]

    def cut(data: bytearray) -> None:
        del data[draw.randrange(len(data)) :]

    ways: tuple[Callable[[bytearray], None], ...] = (flip, flip, remove, double, cut)
    for _ in range(times):
        changed = bytearray(data)
        for _ in range(draw.randint(1, 4)):
            if changed:
                draw.choice(ways)(changed)
        yield bytes(changed)


def rewired(table: dict[str, Any], known: dict[str, list[str]], times: int, seed: int) -> Iterator[dict[str, Any]]:
    """Nested tables in which some keys have other values, are missing, or are new; ``known`` are the keys of each section."""
    draw = random.Random(seed)
    for _ in range(times):
        changed = {name: dict(keys) if isinstance(keys, dict) else keys for name, keys in table.items()}
        for _ in range(draw.randint(1, 4)):
            section = draw.choice([*known, "nonsense"])
            if draw.random() < 0.1:
                changed[section] = draw.choice(VALUES)
                continue
            keys = changed.get(section)
            if not isinstance(keys, dict):
                keys = changed[section] = {}
            key = draw.choice([*known.get(section, []), "nonsense", "name"])
            if draw.random() < 0.2:
                keys.pop(key, None)
            else:
                keys[key] = draw.choice(VALUES)
        yield changed
