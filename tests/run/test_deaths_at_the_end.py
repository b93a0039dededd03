"""A rank that dies while the results are made leaves its part to the others."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from consensus.run import experiment
from consensus.run.evaluation import Evaluated
from consensus.run.stops import Ended
from consensus.run.summary import RankResult
from tests.experiments import small, summary_of

RESULT = RankResult(48, 6, 0.0, 0.0, 0.0, 6, 0.0, 0, None, Ended.ROUNDS, 0.012)


class Widow:
    """Rank 1 of two; the other one dies in a given collective call, and so does not take part in it."""

    rank, size = 1, 2

    def __init__(self, dies_in: int) -> None:
        self._left = dies_in
        self.members = [0, 1]
        self.asked: list[int | None] = []

    def gather(self, item: Any) -> list[Any]:
        self._left -= 1
        if self._left == 0:
            self.members = [1]
        other = (0, RESULT) if isinstance(item, tuple) else [evaluated(None)] if item else item
        return [other, item] if 0 in self.members else [item]

    def mark(self, folder: Any, mark: int | None) -> Evaluated:
        self.asked.append(mark)
        return evaluated(mark)


def evaluated(mark: int | None) -> Evaluated:
    return Evaluated(mark, 96, 12, 0, 0.5, 1.0, 0.1)


@pytest.mark.parametrize(("dies_in", "asked"), [(4, [1, None]), (5, [1])], ids=["evaluating", "writing"])
def test_the_others_do_what_is_left(tmp_path: Path, dies_in: int, asked: list[int | None]) -> None:
    widow: Any = Widow(dies_in)
    site = experiment._Site(small(tmp_path, evaluation={"every": 0.01}), widow, None)
    site.folder = tmp_path
    (tmp_path / "snapshots").mkdir()
    experiment._evaluate(site, experiment._Trained(RESULT, widow, [], frozenset()), datetime.now(UTC))
    assert widow.asked[: len(asked)] == asked
    assert summary_of(tmp_path)["final"]["accuracy"] == 0.5
    assert not (tmp_path / "snapshots").exists()
