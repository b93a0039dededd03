"""Ranks are killed in real MPI jobs that train with a parameter server or with coded gradients."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from tests.support.forkserver import ForkServer

Report = dict[str, Any]


class Done(NamedTuple):
    """How a job ended, and what survivors reported of each session, by rank."""

    code: int
    sessions: list[list[Report]]
    errors: str


def launch(forked: ForkServer, kind: str, size: int, sessions: list[list[Any]]) -> Done:
    """Train in a job of its own."""
    done = forked.run(size, ["-m", "tests.support.dying_training", kind, json.dumps(sessions)], patience=90)
    assert done.code is not None, f"it hangs: {done.errors}"
    reports = sorted((json.loads(line) for line in done.out.splitlines() if line.startswith("{")), key=lambda r: r["rank"])
    return Done(done.code, [[r for r in reports if r["session"] == n] for n in range(len(sessions))], done.errors)


def check_model(reports: list[Report], ranks: list[int]) -> None:
    """All these, and nobody else, end with the server's model."""
    assert [report["rank"] for report in reports] == ranks
    assert {report["model"] for report in reports} == {reports[0]["model"]}


def test_workers_die_and_the_server_goes_on_until_it_dies(forked: ForkServer) -> None:
    deaths = [[[1], "computing"], [[2], "being given", "backup"], [[3], "pushing", "asp"], [[0], "updating"]]
    code, sessions, errors = launch(forked, "served", 6, deaths)
    for reports, ranks in zip(sessions, [[0, 2, 3, 4, 5], [0, 3, 4, 5], [0, 4, 5]], strict=False):
        check_model(reports, ranks)
        assert reports[0]["kept"] == 0
        assert reports[0]["updates"] > 0
    assert [report["steps"] for reports in sessions for report in reports[1:]] == [12] * 9
    assert not sessions[3]
    assert code != 0
    assert "cannot go on: rank 0, the server, has died" in errors


def test_with_shards_workers_are_dropped_and_the_death_of_a_shard_ends_the_run(forked: ForkServer) -> None:
    deaths = [[[2], "pushing", "bsp", 2], [[3], "being given", "dbw", 2], [[1], "serving", "asp", 2]]
    code, sessions, errors = launch(forked, "served", 5, deaths)
    for reports, ranks in zip(sessions, [[0, 1, 3, 4], [0, 1, 4]], strict=False):
        check_model(reports, ranks)
        assert [report["kept"] for report in reports[:2]] == [0, 0]
        assert reports[0]["updates"] == reports[1]["updates"] > 0
    assert not sessions[2]
    assert code != 0
    assert "cannot go on: rank 1, a server, has died" in errors


def test_coded_gradients_stay_exact_until_the_master_dies(forked: ForkServer) -> None:
    """Ranks 1 and 2 are edges, 3 and 4 the workers of the first, 5 and 6 those of the second."""
    deaths = [[[3], "sending"], [[2], "relaying"], [[0], "decoding"]]
    code, sessions, errors = launch(forked, "coded", 7, deaths)
    for reports, ranks in zip(sessions, [[0, 1, 2, 4, 5, 6], [0, 1, 4, 5, 6]], strict=False):
        check_model(reports, ranks)
        assert reports[0]["updates"] == 12
        assert reports[0]["error"] < 1e-12
    assert not sessions[2]
    assert code != 0
    assert "cannot go on: rank 0, the master, has died" in errors


def test_where_all_edges_have_died_a_run_ends_at_all_ranks(forked: ForkServer) -> None:
    """Workers have stopped in good order, and wait for the master in a collective call, when it finds that it cannot go on."""
    code, sessions, errors = launch(forked, "coded", 7, [[[1, 2], "relaying"]])
    assert sessions == [[]]
    assert code != 0
    assert "of ranks [1, 2], which send to the master, only [] are left, too few for the code" in errors
    assert all(f"rank {worker} ends, for another rank has ended with an error" in errors for worker in (3, 4, 5, 6))
