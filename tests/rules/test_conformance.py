"""What every wait rule has to do. A new rule gets its rows in CASES and its line in ALLOWED, and no test of its own here."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from support.wire import Audited, Wire, complete, connected, path, ring, star

from consensus.protocol.decision import ActiveWeights, View
from consensus.protocol.messages import Established
from consensus.rules import RULES, build

CASES: list[tuple[str, dict[str, Any], str]] = [
    ("full", {}, "static"),
    ("full", {}, "active"),
    ("static_backup", {"b": 0}, "static"),
    ("static_backup", {}, "static"),
    ("static_backup", {"b": 100}, "static"),
    ("dtur", {}, "static"),
    ("dtur", {}, "active"),
    ("pathsearch", {}, "static"),
    ("gap", {}, "static"),
    ("gap", {"quorum": 1, "window": 1}, "static"),
    ("gap", {"quorum": 100}, "static"),
    ("patience", {}, "static"),
    ("patience", {"quorum": 1, "window": 1, "patience": 0.0}, "static"),
    ("patience", {"patience": 100.0, "share": 1.0}, "static"),
    ("deadline", {}, "static"),
    ("deadline", {"seconds": 5.0}, "static"),
    ("run_free", {}, "static"),
]


def everybody(view: View) -> bool:
    return view.living <= view.done.keys()


def all_awaited(view: View) -> bool:
    return view.awaited <= view.done.keys()


def news(rule: Any, view: View, heard: list[Established], now: float) -> bool:
    return bool(heard) or all_awaited(view)


def gap(rule: Any, view: View, heard: list[Established], now: float) -> bool:
    quorum = rule.quorum if rule.quorum is not None else -(-len(view.living) // 2)
    return all_awaited(view) or len(view.done) >= min(quorum, len(view.awaited))


ALLOWED: dict[str, Callable[[Any, View, list[Established], float], bool]] = {
    "full": lambda rule, view, heard, now: everybody(view),
    "static_backup": lambda rule, view, heard, now: all_awaited(view) or len(view.done) >= max(1, len(view.living) - rule.b),
    "dtur": news,
    "pathsearch": news,
    "gap": gap,
    "patience": gap,
    "deadline": lambda rule, view, heard, now: all_awaited(view) or now >= view.opened_at + rule.seconds,
    "run_free": lambda rule, view, heard, now: True,
}
"""When a round may close, judged by the view alone."""

GRAPHS = {
    "two": path(2),
    "ring": ring(6),
    "star": star(6),
    "path": path(5),
    "complete": complete(5),
    "random": connected(8, seed=4),
    "sparse random": connected(8, seed=5, extra=0.1),
}

every_rule = pytest.mark.parametrize(("name", "parameters", "weights"), CASES)


def wire(name: str, parameters: dict[str, Any], weights: str, graph: dict[int, list[int]], **options: Any) -> Wire:
    """A network whose rules are watched: pure, picklable, with reasons, never too early."""
    return Wire(graph, lambda: Audited(build(name, **parameters), ALLOWED[name]), weights=weights, **options)


partial_rule = pytest.mark.parametrize(("name", "parameters", "weights"), [case for case in CASES if case[0] != "full"])


def test_every_rule_is_in_the_table() -> None:
    assert {name for name, _, _ in CASES} == set(RULES) == set(ALLOWED)
    active = {name for name, rule in RULES.items() if rule.active_weights is not ActiveWeights.REFUSED}
    assert {name for name, _, weights in CASES if weights == "active"} == active


@every_rule
@pytest.mark.parametrize("graph", GRAPHS)
def test_ranks_finish_at_different_rounds(name: str, parameters: dict[str, Any], weights: str, graph: str) -> None:
    n = len(GRAPHS[graph])
    for seed in range(3):
        rounds = [random.Random(seed).randint(0, 12) for _ in range(n)]
        net = wire(name, parameters, weights, GRAPHS[graph], rounds=rounds, seed=seed).run()
        assert [len(records) for records in net.records] == rounds


@every_rule
def test_one_rank_is_fifty_times_slower(name: str, parameters: dict[str, Any], weights: str) -> None:
    graph = connected(6, seed=1)
    net = wire(
        name,
        parameters,
        weights,
        graph,
        rounds=[30, 30, 30, 30, 30, 2],
        compute=lambda rank, r: (50 if rank == 5 else 1) * r.uniform(0.5, 1.5),
    )
    net.run()
    assert [len(records) for records in net.records] == [30] * 5 + [2]


@every_rule
def test_a_rank_alone(name: str, parameters: dict[str, Any], weights: str) -> None:
    net = wire(name, parameters, weights, {0: []}, rounds=3).run()
    assert [record.exchanges for record in net.records[0]] == [(), (), ()]


@every_rule
def test_neighbours_run_out(name: str, parameters: dict[str, Any], weights: str) -> None:
    net = wire(name, parameters, weights, star(5), rounds=[10, 1, 2, 3, 4]).run()
    assert len(net.records[0]) == 10
    assert net.records[0][-1].backups == ()


@every_rule
@pytest.mark.parametrize("seed", range(8))
def test_ranks_die(name: str, parameters: dict[str, Any], weights: str, seed: int) -> None:
    draw = random.Random(seed)
    graph = connected(7, seed)
    deaths = {rank: draw.uniform(0, 8) for rank in draw.sample(range(7), draw.randint(1, 4))}
    wire(name, parameters, weights, graph, rounds=8, seed=seed, deaths=deaths).run()


@every_rule
@pytest.mark.parametrize("seed", range(4))
def test_ranks_leave_in_the_middle_of_a_round(name: str, parameters: dict[str, Any], weights: str, seed: int) -> None:
    draw = random.Random(seed)
    leaves = {rank: draw.uniform(0, 8) for rank in draw.sample(range(6), 3)}
    wire(name, parameters, weights, connected(6, seed), rounds=8, seed=seed, leaves=leaves).run()


@every_rule
def test_messages_as_slow_as_steps(name: str, parameters: dict[str, Any], weights: str) -> None:
    wire(name, parameters, weights, connected(6, seed=2), rounds=6, delay=lambda r: r.expovariate(1.0)).run()


@every_rule
def test_everything_takes_the_same_time(name: str, parameters: dict[str, Any], weights: str) -> None:
    wire(name, parameters, weights, ring(6), rounds=6, compute=lambda rank, r: 1.0, delay=lambda r: 0.01).run()


STOPPED = 1e6


def with_a_stopped_rank(name: str, parameters: dict[str, Any], weights: str, graph: dict[int, list[int]]) -> Wire:
    """The last rank stops in its first step, for longer than anything lasts."""
    last = len(graph) - 1
    return wire(
        name,
        parameters,
        weights,
        graph,
        rounds=[30] * last + [1],
        compute=lambda rank, r: STOPPED if rank == last else r.uniform(0.5, 1.5),
        stuck_after=20.0,
    )


@partial_rule
@pytest.mark.parametrize("graph", ["ring", "star", "path", "complete", "random"])
def test_a_stopped_rank_hurts_nobody(name: str, parameters: dict[str, Any], weights: str, graph: str) -> None:
    net = with_a_stopped_rank(name, parameters, weights, GRAPHS[graph]).run()
    assert max(record.closed_at for records in net.records[:-1] for record in records) < 30 * 1.5 * 7 + 3 * 20
    assert [len(records) for records in net.records] == [30] * (len(net.records) - 1) + [1]


def test_full_waits_for_a_stopped_rank_all_the_same() -> None:
    net = with_a_stopped_rank("full", {}, "static", path(3)).run()
    assert net.records[1][0].closed_at > STOPPED
    assert {record.backups for record in net.records[1][:1]} == {()}


@partial_rule
@pytest.mark.parametrize("seed", range(3))
def test_suspicion_without_a_cause(name: str, parameters: dict[str, Any], weights: str, seed: int) -> None:
    rounds = [random.Random(seed).randint(3, 12) for _ in range(6)]
    wire(name, parameters, weights, connected(6, seed), rounds=rounds, seed=seed, stuck_after=0.2, deaths={seed: 4.0}).run()


@every_rule
def test_every_closed_round_says_why(name: str, parameters: dict[str, Any], weights: str) -> None:
    net = wire(name, parameters, weights, ring(5), rounds=5).run()
    assert all(record.reason for records in net.records for record in records)


@pytest.mark.parametrize(
    ("name", "parameters", "weights"), [case for case in CASES if case[0] in ("full", "static_backup", "deadline", "run_free")]
)
def test_goodbyes_to_neighbours_are_enough_for_rules_without_memory(name: str, parameters: dict[str, Any], weights: str) -> None:
    wire(name, parameters, weights, connected(7, seed=3), rounds=[1, 2, 3, 4, 5, 6, 7], everyone=False, deaths={2: 1.5}).run()
