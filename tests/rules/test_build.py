"""Rules by name, and what is said when the name or a parameter is wrong."""

from __future__ import annotations

from typing import Any

import pytest

from consensus.errors import ConfigError
from consensus.rules import RULES, build


@pytest.mark.parametrize("name", RULES)
def test_every_rule_has_defaults(name: str) -> None:
    rule = build(name)
    assert rule.name == name
    assert build(name) == rule
    assert hash(build(name)) == hash(rule)


@pytest.mark.parametrize(
    ("name", "parameters", "words"),
    [
        ("dtru", {}, "did you mean 'dtur'"),
        ("magic", {}, "unknown rule 'magic'"),
        ("static_backup", {"c": 1}, "no parameter 'c'"),
        ("gap", {"windw": 3}, "did you mean 'window'"),
        ("dtur", {"b": 1}, "it takes none"),
        ("static_backup", {"b": 1.5}, "b = 1.5, expected int"),
        ("static_backup", {"b": True}, "b = True, expected int"),
        ("static_backup", {"b": -1}, "b = -1"),
        ("gap", {"quorum": 0}, "quorum = 0"),
        ("gap", {"quorum": "half"}, "quorum = 'half'"),
        ("gap", {"window": 0}, "window = 0"),
        ("patience", {"window": 0}, "window = 0"),
        ("patience", {"patience": -1}, "patience = -1"),
        ("patience", {"patience": float("nan")}, "patience = nan"),
        ("patience", {"share": 1.5}, "share = 1.5"),
        ("deadline", {"seconds": 0}, "seconds = 0"),
        ("deadline", {"seconds": float("nan")}, "seconds = nan"),
        ("deadline", {"seconds": float("inf")}, "seconds = inf"),
        ("deadline", {"seconds": "soon"}, "seconds = 'soon'"),
    ],
)
def test_mistakes_are_named(name: str, parameters: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        build(name, **parameters)


def test_whole_seconds_will_do() -> None:
    assert build("deadline", seconds=1) == build("deadline", seconds=1.0)


def test_quorum_may_be_left_open() -> None:
    assert build("gap", quorum=None) == build("gap")
