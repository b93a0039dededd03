"""Run files that somebody wrote in great haste: a message for each, a traceback for none."""

from __future__ import annotations

import contextlib
from typing import Any

import tomli_w

from consensus.config import RunConfig, loads
from consensus.errors import ConfigError
from tests.fuzz import TIMES, corrupted, rewired

VALID = """
[run]
name = "fuzz"
ranks = 8
stop = { samples = 1000, target = { value = 0.9 } }
[topology]
kind = "random_regular"
degree = 3
[rule]
name = "static_backup"
b = 1
[exchange]
order = "combine-adapt"
every = 2
[stragglers]
model = "transient"
seconds = 0.01
probability = 0.1
factor = 5
[network]
latency = 1e-4
slow = [{ ranks = [0, 1], factor = 3 }]
[data]
name = "digits"
partition = { dirichlet = 0.3 }
[optimizer]
name = "sgd"
lr = 0.1
scheduler = { name = "steplr", step_size = 3 }
[checkpoint]
every = "10 rounds"
"""
SIZES = (0, 1, 2, 3, 8, 13)


def judge(text: str, number: int) -> bool:
    """Whether ``text`` is a run file; anything but a word to its author is an error."""
    with contextlib.suppress(ConfigError):
        config = loads(text)
        config.check(SIZES[number % len(SIZES)])
        return True
    return False


def test_bytes_at_random() -> None:
    found = [
        judge(data.decode("utf-8", "replace"), number) for number, data in enumerate(corrupted(VALID.encode(), 1500 * TIMES, 1))
    ]
    assert 0 < sum(found) < len(found)


def sections() -> dict[str, list[str]]:
    known: dict[str, list[str]] = {}
    for name, field in RunConfig.model_fields.items():
        kind = field.annotation
        known[name] = list(getattr(kind, "model_fields", {}))
    return known


def test_values_at_random() -> None:
    base: dict[str, Any] = loads(VALID).model_dump(exclude_unset=True, by_alias=True)
    found = [judge(tomli_w.dumps(table), number) for number, table in enumerate(rewired(base, sections(), 1000 * TIMES, 2))]
    assert 0 < sum(found) < len(found)


def test_architectures_at_random() -> None:
    for seed, rule in enumerate(("bsp", "elastic", "hgc", "flat", "hgc-jncss"), 3):
        base: dict[str, Any] = {"run": {"stop": {"rounds": 3}}, "rule": {"name": rule}}
        found = [judge(tomli_w.dumps(table), number) for number, table in enumerate(rewired(base, sections(), 200 * TIMES, seed))]
        assert sum(found) < len(found)
