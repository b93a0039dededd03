"""Names that users type."""

from __future__ import annotations

import pytest

from consensus.errors import ConfigError
from consensus.names import lookup


def test_a_known_name_is_found() -> None:
    assert lookup("fruit", "apple", {"apple": 1, "pear": 2}) == 1


@pytest.mark.parametrize("typed", ["aple", "APPLE"])
def test_a_misspelt_name_suggests_the_nearest(typed: str) -> None:
    with pytest.raises(ConfigError, match=f"unknown fruit '{typed}'; did you mean 'apple'\\? Known: apple, pear"):
        lookup("fruit", typed, {"apple": 1, "pear": 2})


def test_a_far_name_lists_all() -> None:
    with pytest.raises(ConfigError, match="unknown fruit 'zzz'; known: apple, pear"):
        lookup("fruit", "zzz", {"apple": 1, "pear": 2})
