"""A rank that dies before the others train: they know who is left, and nobody goes on from a model that was never trained."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from consensus.alike import start_alike
from consensus.config import RunConfig
from consensus.errors import ConfigError, DeadRanks
from consensus.run import experiment
from consensus.run.folder import agree_on_folder
from consensus.transport import loopback
from tests.checkpointed_runs import run
from tests.experiments import small, summary_of


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(experiment, "draw_curves", lambda runs, path: path.touch())


def config(out: Path, rounds: int) -> RunConfig:
    return small(out, f"rounds = {rounds}", rule={"name": "allreduce"}, checkpoint={"every": "2 rounds"})


class Proxy:
    """A rank of the in-process twin, but for what is overridden."""

    def __init__(self, transport: Any) -> None:
        self.inner = transport

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


class Survivor(Proxy):
    """A rank of three, of which rank 1 died before the first collective call; there are two threads."""

    size = 3
    members = (0, 2)

    @property
    def rank(self) -> int:
        return self.members[self.inner.rank]


class Orphan(Proxy):
    """A rank that finds, after so many collective calls of a kind, that rank 0 has died."""

    def __init__(self, transport: Any, call: str, count: int) -> None:
        super().__init__(transport)
        self._call, self._left = call, count

    @property
    def members(self) -> list[int]:
        return [rank for rank in range(self.inner.size) if rank or self._left > 0]

    def _count(self, call: str) -> None:
        self._left -= call == self._call

    def broadcast(self, buffer: Any, root: int = 0) -> None:
        self._count("broadcast")
        self.inner.broadcast(buffer, root)

    def gather(self, item: Any) -> list[Any]:
        self._count("gather")
        return self.inner.gather(item)[len(self.inner.members) - len(self.members) :]


def test_a_run_goes_on_without_a_rank_that_died_meanwhile(tmp_path: Path) -> None:
    half = run(config(tmp_path, 3), 3)
    ends = loopback.run(2, lambda rank: experiment.run(config(tmp_path, 5), Survivor(rank), resume=str(half)))  # type: ignore[arg-type]
    summary = summary_of(ends[0])
    assert summary["lost"] == [1]
    assert summary["rounds"] == [5, 0, 5]


@pytest.mark.parametrize(("call", "count"), [("gather", 4), ("broadcast", 1)], ids=["reading", "handing-out"])
def test_nobody_starts_from_another_model_than_that_of_the_checkpoints(tmp_path: Path, call: str, count: int) -> None:
    """Rank 0 alone has read them when all start from the mean."""
    half = run(config(tmp_path, 3), 2)
    words = "rank [0-2] cannot begin: rank 0, which had the model of .* that all start from, has died; start again"
    with pytest.raises(DeadRanks, match=words):
        loopback.run(3, lambda rank: experiment.run(config(tmp_path, 5), Orphan(rank, call, count), resume=str(half)))  # type: ignore[arg-type]


def test_who_differs_is_named_by_rank(tmp_path: Path) -> None:
    class Blind(Survivor):
        def gather(self, item: Any) -> list[Any]:
            return list(self.inner.gather(self.rank == 0 if isinstance(item, bool) else item))

    now: Any = datetime.now(UTC)
    with pytest.raises(ConfigError, match="ranks 2 do not see the folder"):
        loopback.run(2, lambda rank: agree_on_folder(config(tmp_path, 3), Blind(rank), now))  # type: ignore[arg-type]
    flat: Any = None
    with pytest.raises(ConfigError, match="every differs between ranks: rank 0 has 0, rank 2 has 1"):
        loopback.run(2, lambda rank: start_alike(Survivor(rank), flat, {"every": rank.rank}))  # type: ignore[arg-type]
