"""The rules that count exchanges or look at the clock: full, static_backup, gap, deadline, run_free."""

from __future__ import annotations

from itertools import groupby
from typing import Any

import pytest
from support.wire import Wire, complete, connected, path, ring, star

from consensus.protocol.decision import Close, Stay, View
from consensus.protocol.events import LeaveWanted, Tick
from consensus.rules import build
from consensus.topology.backbone import backbone
from consensus.topology.metropolis import edge_weight


def view(
    living: set[int], done: set[int], round: int = 1, opened_at: float = 0.0, last_used: dict[int, int] | None = None
) -> View:
    """Rank 0 of a star of five."""
    used = dict.fromkeys(range(1, 5), 0) | (last_used or {})
    return View(0, star(5), (1, 2, 3, 4), living, set(), round, True, opened_at, dict.fromkeys(done, 0.0), used)


ALL = {1, 2, 3, 4}


@pytest.mark.parametrize(
    ("name", "parameters", "living", "done", "closes"),
    [
        ("full", {}, ALL, {1, 2, 3}, False),
        ("full", {}, ALL, ALL, True),
        ("full", {}, {1}, {1, 2}, True),
        ("full", {}, {1}, {2}, False),
        ("full", {}, set(), set(), True),
        ("static_backup", {"b": 1}, ALL, {1, 2}, False),
        ("static_backup", {"b": 1}, ALL, {1, 2, 3}, True),
        ("static_backup", {"b": 1}, {1, 2, 3}, {3, 4}, True),
        ("static_backup", {"b": 4}, ALL, set(), False),
        ("static_backup", {"b": 9}, ALL, {2}, True),
        ("static_backup", {"b": 1}, {1}, set(), False),
        ("static_backup", {"b": 1}, {1}, {4}, True),
        ("static_backup", {"b": 1}, set(), set(), True),
        ("run_free", {}, ALL, set(), True),
        ("gap", {}, ALL, {1}, False),
        ("gap", {}, ALL, {1, 2}, True),
        ("gap", {}, {1, 2, 3}, {1}, False),
        ("gap", {"quorum": 3}, ALL, {1, 2}, False),
        ("gap", {"quorum": 3}, {1, 2}, {1, 2}, True),
        ("gap", {"quorum": 3}, {1, 2}, {1, 3}, True),
    ],
)
def test_when_a_round_closes(name: str, parameters: dict[str, int], living: set[int], done: set[int], closes: bool) -> None:
    rule = build(name, **parameters)
    seen = view(set(living), done)
    decision, _ = rule.decide(seen, rule.start(seen), 1.0)
    assert isinstance(decision, Close if closes else Stay)
    assert decision.announce == ()


@pytest.mark.parametrize(
    ("name", "parameters", "awaited", "done", "closes"),
    [
        ("full", {}, {1}, {1}, False),
        ("static_backup", {"b": 1}, {1, 2, 3}, {1, 2}, False),  # silent ones are among the b
        ("static_backup", {"b": 1}, {1, 2}, {1}, False),
        ("static_backup", {"b": 1}, {1, 2}, {1, 2}, True),
        ("static_backup", {"b": 1}, set(), set(), True),
        ("gap", {"quorum": 3}, {1, 2}, {1}, False),
        ("gap", {"quorum": 3}, {1, 2}, {1, 2}, True),
        ("gap", {"quorum": 1, "window": 1}, {1, 2}, {1}, False),  # 2 is overdue, and so are those that are silent
        ("gap", {"quorum": 1, "window": 1}, {1}, {1}, True),
        ("patience", {"quorum": 1, "patience": 100.0, "share": 1.0}, {1, 2}, {1}, False),
        ("patience", {"quorum": 1, "patience": 100.0, "share": 1.0}, {1, 2}, {1, 2}, True),
        ("deadline", {"seconds": 5.0}, {1}, {1}, True),
        ("deadline", {"seconds": 5.0}, {1, 2}, {1}, False),
    ],
)
def test_when_a_round_closes_with_silent_neighbours(
    name: str, parameters: dict[str, Any], awaited: set[int], done: set[int], closes: bool
) -> None:
    rule = build(name, **parameters)
    seen = view(set(ALL), done, round=5)
    state = rule.start(seen)
    if name == "patience":
        state = state._replace(step=1.0, seen=5)
    seen.awaited = awaited
    decision, _ = rule.decide(seen, state, 1.0)
    assert isinstance(decision, Close if closes else Stay)


def test_full_says_how_many_are_missing() -> None:
    decision, _ = build("full").decide(view(ALL, {1}), None, 0.0)
    assert decision.reason == "waits for all neighbours, 3 of 4 missing"


# -- full ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weights", ["static", "active"])
def test_full_makes_the_same_doubly_stochastic_matrix_each_round(weights: str) -> None:
    graph = connected(6, seed=3)
    net = Wire(graph, build("full"), rounds=5, weights=weights).run()
    for k in range(1, 6):
        matrix = [[0.0] * 6 for _ in range(6)]
        for i, records in enumerate(net.records):
            for j, theirs, weight, *_ in records[k - 1].exchanges:
                assert theirs == k
                matrix[i][j] = weight
                assert weight == edge_weight(len(graph[i]), len(graph[j]))
        assert matrix == [list(column) for column in zip(*matrix, strict=True)]
        assert all(sum(row) <= 1 - 1 / 7 + 1e-12 for row in matrix)


@pytest.mark.parametrize("name", ["full", "dtur"])
def test_active_weights_are_those_of_the_exchanges_of_both_ends(name: str) -> None:
    net = Wire(connected(7, seed=6), build(name), rounds=12, weights="active", seed=2).run()
    count = {(i, record.round): len(record.exchanges) for i, records in enumerate(net.records) for record in records}
    found = 0
    for i, records in enumerate(net.records):
        for record in records:
            for j, theirs, weight, *_ in record.exchanges:
                assert weight == edge_weight(count[i, record.round], count[j, theirs])
                found += 1
    assert found > 50


def test_no_backups_is_full() -> None:
    nets = [Wire(connected(6, seed=8), build(*which), rounds=6, seed=5).run() for which in (("full",),)]
    nets.append(Wire(connected(6, seed=8), build("static_backup", b=0), rounds=6, seed=5).run())
    assert nets[0].transcript == nets[1].transcript
    assert nets[0].models == nets[1].models


# -- static_backup ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("b", [0, 1, 2, 3])
def test_static_backup_leaves_at_most_b_out(b: int) -> None:
    net = Wire(complete(5), build("static_backup", b=b), rounds=10, seed=b).run()
    for records in net.records:
        for record in records:
            assert len(record.backups) <= b


# -- gap ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("window", [1, 3])
@pytest.mark.parametrize("seed", range(5))
def test_gap_uses_each_backbone_edge_again_within_its_window(window: int, seed: int) -> None:
    """At either end a backbone edge is left out of at most ``window`` rounds in a row, until a departure changes the backbone."""
    graph = connected(8, seed, extra=0.5)
    slow = seed % 8
    net = Wire(
        graph,
        build("gap", quorum=1, window=window),
        rounds=40,
        seed=seed,
        compute=lambda i, r: r.expovariate(1) * (10 if i == slow else 1),
    )
    net.run()
    until = min(now for now, _, event, _ in net.transcript if isinstance(event, LeaveWanted))
    longest = 0
    for i, j in backbone(graph):
        for end, other in ((i, j), (j, i)):
            left_out = [other in record.backups for record in net.records[end] if record.closed_at < until]
            runs = [len(list(run)) for out, run in groupby(left_out) if out]
            longest = max([longest, *runs])
    assert longest == window


def test_gap_waits_for_an_overdue_edge_and_says_so() -> None:
    rule = build("gap", quorum=1, window=2)
    state = rule.start(view(ALL, set()))
    at = {1: 4, 2: 3, 3: 2, 4: 4}
    assert isinstance(rule.decide(view(ALL, {1}, round=5, last_used=at), state, 0.0)[0], Stay)
    decision, _ = rule.decide(view(ALL, {1}, round=5, last_used=at), state, 0.0)
    assert decision.reason == "backbone edge to 3 unused for 2 rounds"
    assert isinstance(rule.decide(view(ALL, {3}, round=5, last_used=at), state, 0.0)[0], Close)
    assert isinstance(rule.decide(view({1, 2, 4}, {1}, round=5, last_used=at), state, 0.0)[0], Close)


def test_gap_looks_for_a_new_backbone_after_a_departure() -> None:
    rule = build("gap")
    seen = View(0, ring(4), (1, 3), {1, 3})
    state = rule.start(seen)
    assert state.spine == {1}
    seen.departed.add(2)
    seen.living.discard(2)
    assert rule.departure(2, seen, state).spine == {1, 3}


# -- deadline -----------------------------------------------------------------------------------------------------------


def test_deadline_asks_to_be_woken_and_closes_then() -> None:
    rule = build("deadline", seconds=0.25)
    decision, _ = rule.decide(view(ALL, {1}, opened_at=2.0), None, 2.125)
    assert (type(decision), decision.wake_at) == (Stay, 2.25)
    assert isinstance(rule.decide(view(ALL, {1}, opened_at=2.0), None, 2.25)[0], Close)
    assert isinstance(rule.decide(view(ALL, ALL, opened_at=2.0), None, 2.125)[0], Close)


def test_deadline_bounds_how_long_a_round_is_open() -> None:
    """But for what has been offered by then: an exchange takes a few message times."""
    net = Wire(
        ring(6),
        build("deadline", seconds=0.5),
        rounds=20,
        compute=lambda i, r: r.expovariate(1) * (50 if i == 0 else 1),
        delay=lambda r: 1e-3,
    )
    net.run()
    for records in net.records:
        for record in records:
            assert record.closed_at - record.opened_at <= 0.5 + 0.02
    assert any(record.reason == "the deadline of 0.5 s has passed" for record in net.records[1])


def test_ticks_do_not_pile_up_over_short_rounds() -> None:
    """Rounds much shorter than the deadline leave their WakeAts behind; none of them may beget another."""
    net = Wire(path(2), build("deadline", seconds=10.0), rounds=200, compute=lambda i, r: 1.0, delay=lambda r: 1e-3).run()
    ticks = sum(type(event) is Tick for _, rank, event, _ in net.transcript if rank == 0)
    assert ticks <= 200


# -- run_free -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("delay", "exchanges"), [(0.01, False), (0.3, True)])
def test_run_free_waits_for_nobody(delay: float, exchanges: bool) -> None:
    """A round stays open only while an offer to somebody who seemed open is out; with fast messages nobody ever seems so."""
    net = Wire(complete(8), build("run_free"), rounds=30, seed=1, delay=lambda r: delay * r.uniform(0.5, 1.5)).run()
    records = [record for mine in net.records for record in mine]
    assert sum(record.closed_at == record.opened_at for record in records) > len(records) / 3
    assert any(record.exchanges for record in records) == exchanges
