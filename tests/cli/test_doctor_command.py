"""Which ranks the doctor starts."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from consensus.cli.doctor import _wanted
from consensus.errors import ConfigError

SYSTEM = Path("system.json")


def test_as_many_as_were_asked_for() -> None:
    assert _wanted(7, None, None) == 7
    assert 2 <= _wanted(None, None, None) <= 4
    assert _wanted(5, SYSTEM, None) == 5
    assert _wanted(None, SYSTEM, "2,2") == 7
    assert _wanted(7, SYSTEM, "2, 2") == 7


@pytest.mark.parametrize(
    ("ranks", "measure", "workers_per_edge", "said"),
    [
        (None, SYSTEM, None, "how many ranks?"),
        (2, SYSTEM, None, "2 ranks are too few"),
        (5, SYSTEM, "2,2", "takes 7 ranks"),
        (None, SYSTEM, "2,x", "expected the number of workers of each edge"),
        (None, SYSTEM, "2,0", "expected the number of workers of each edge"),
        (4, None, "2,2", "add --measure FILE"),
    ],
)
def test_what_cannot_be_measured(ranks: int | None, measure: Path | None, workers_per_edge: str | None, said: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        _wanted(ranks, measure, workers_per_edge)
