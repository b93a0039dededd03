"""What is looked at, asked for or not."""

from __future__ import annotations

from pathlib import Path

import networkx as nx
import pytest
from recorded_runs import ring_run

from consensus.errors import ConfigError
from consensus.report.load import LoadedRun
from consensus.whatif.alternatives import Choice, alternatives, recorded
from consensus.whatif.fit import fit

DTUR: Choice = ("dtur", ("rule.name=dtur",))
BACKUP: Choice = ("static_backup:b=2", ("rule.name=static_backup", "rule.b=2"))
COMPLETE: Choice = ("complete", ("topology.kind=complete",))
MODEL: Choice = ("constant:seconds=0.05", ("stragglers.model=constant", "stragglers.seconds=0.05"))


@pytest.fixture
def run(tmp_path: Path) -> LoadedRun:
    return ring_run(tmp_path / "run")


def names(run: LoadedRun, *asked: object, **more: object) -> list[tuple[str, str, int]]:
    found, _ = alternatives(run, fit(run), *asked, **more)  # type: ignore[arg-type]
    return [(each.rule, each.topology, len(each.graph)) for each in found]


def test_the_recorded_run(run: LoadedRun) -> None:
    before = recorded(run)
    assert (before.rule, before.topology) == ("full", "ring")
    assert set(map(frozenset, before.graph.edges())) == {frozenset(edge) for edge in ((0, 1), (0, 3), (1, 2), (2, 3))}


def test_by_default_rules_on_its_graph_and_graphs_under_its_rule(run: LoadedRun) -> None:
    # Full on the ring is what was run. The torus of four ranks is another ring, round which they sit in another order.
    rules = ["static_backup:b=1", "static_backup:b=2", "static_backup:b=3", "dtur", "pathsearch", "gap"]
    assert names(run) == [*((rule, "ring", 4) for rule in rules), ("full", "torus", 4), ("full", "complete", 4)]


def test_defaults_that_do_not_fit_are_left_out(tmp_path: Path) -> None:
    run = ring_run(tmp_path / "run")
    active = run.config.exchange.model_copy(update={"weights": "active"})
    run = LoadedRun(**{**vars(run), "config": run.config.model_copy(update={"exchange": active})})
    found, notes = alternatives(run, fit(run))
    assert [each.rule for each in found] == ["dtur", "full", "full"]
    assert len(notes) == 5
    assert "Left out: static_backup:b=1: " in notes[0]


def test_combinations(run: LoadedRun) -> None:
    assert names(run, [DTUR, BACKUP], [COMPLETE], [3, 4]) == [
        ("dtur", "complete", 3),
        ("dtur", "complete", 4),
        ("static_backup:b=2", "complete", 3),
        ("static_backup:b=2", "complete", 4),
    ]
    assert names(run, [DTUR]) == [("dtur", "ring", 4)]
    assert names(run, ranks=[3]) == [("full", "ring", 3)]


def test_another_time_of_steps_makes_the_recorded_run_an_alternative(run: LoadedRun) -> None:
    assert names(run, stragglers=MODEL)[0] == ("full", "ring", 4)
    assert names(run, ranks=[16], stragglers=MODEL) == [("full", "ring", 16)]
    (found,), _ = alternatives(run, fit(run), ranks=[16], stragglers=MODEL)
    assert nx.is_isomorphic(found.graph, nx.cycle_graph(16))
    assert found.compute is not None


def test_more_ranks_than_the_trace_has(run: LoadedRun) -> None:
    with pytest.raises(ConfigError, match=r"--ranks 8: the trace has times of 4 ranks, .*as in --stragglers transient:seconds"):
        names(run, ranks=[8])


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"rules": [("dtru", ("rule.name=dtru",))]}, "dtru: .*unknown rule; did you mean 'dtur'"),
        ({"rules": [("allreduce", ("rule.name=allreduce",))]}, "allreduce: an all-reduce exchanges over no edges"),
        ({"topologies": [("tours", ("topology.kind=tours",))]}, "tours: .*unknown family; did you mean 'torus'"),
        (
            {"topologies": [COMPLETE], "ranks": [5], "stragglers": ("x", ("stragglers.model=persisent",))},
            "did you mean 'persistent'",
        ),
        ({"stragglers": ("none", ("stragglers.model=none",)), "ranks": [3]}, "--stragglers none: no model of compute times"),
    ],
)
def test_what_cannot_be(run: LoadedRun, asked: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=f"(?s){words}"):
        names(run, **asked)
