"""Patience: how long it waits for more than a quorum, and how it learns how long a step takes."""

from __future__ import annotations

import random

import pytest
from support.wire import Wire, complete

from consensus.protocol.decision import Close, Decision, Stay, View
from consensus.rules import build
from consensus.rules.patience import PatienceState

NEIGHBOURS = (1, 2, 3, 4)
GRAPH = complete(5)


def view(done: dict[int, float], opened_at: float = 10.0, round: int = 5) -> View:
    used = dict.fromkeys(NEIGHBOURS, round - 1)
    return View(0, GRAPH, NEIGHBOURS, set(NEIGHBOURS), round=round, is_open=True, opened_at=opened_at, done=done, last_used=used)


def decide(done: dict[int, float], now: float, step: float = 1.0, **parameters: float) -> Decision:
    rule = build("patience", **parameters)
    state = PatienceState(frozenset({1}), closed_at=9.0, step=step, seen=5)
    return rule.decide(view(done), state, now)[0]


def test_less_than_a_quorum_is_waited_for_however_long() -> None:
    assert isinstance(decide({1: 10.1}, now=1e6), Stay)


def test_after_a_quorum_it_waits_some_steps_from_the_last_exchange() -> None:
    early = decide({1: 10.1, 2: 10.5}, now=11.0)
    assert early == Stay("2 exchanges, 3 wanted until patience is over", wake_at=12.5)
    assert isinstance(decide({1: 10.1, 2: 10.5}, now=12.5), Close)
    assert isinstance(decide({1: 10.1, 2: 10.5}, now=11.0, patience=0.5), Close)


def test_three_quarters_are_enough_at_once() -> None:
    assert isinstance(decide({1: 10.1, 2: 10.2, 3: 10.3}, now=10.3), Close)
    assert isinstance(decide({1: 10.1, 2: 10.2, 3: 10.3}, now=10.3, share=1.0), Stay)


def test_before_the_first_step_is_known_there_is_no_patience() -> None:
    rule = build("patience")
    seen = view({1: 0.0, 2: 0.0}, opened_at=0.0, round=1)
    assert isinstance(rule.decide(seen, rule.start(seen), 0.0)[0], Close)


@pytest.mark.parametrize("stalls", [0.0, 0.2])
def test_the_typical_step_is_that_of_most_steps(stalls: float) -> None:
    draw = random.Random(1)
    rule = build("patience")
    state = rule.start(view({}))
    now = 0.0
    for number in range(1, 400):
        now += 100.0 if draw.random() < stalls else draw.uniform(0.9, 1.1)
        _, state = rule.decide(view(dict.fromkeys(NEIGHBOURS, now), opened_at=now, round=number), state, now)
    assert state.step == pytest.approx(1.0, abs=0.25)


def test_where_steps_vary_a_little_nearly_everybody_is_waited_for() -> None:
    for name, least in (("patience", 2.9), ("gap", 0.0)):
        net = Wire(complete(5), build(name), rounds=60, seed=2, compute=lambda rank, draw: draw.uniform(0.9, 1.1))
        net.run()
        exchanges = [len(record.exchanges) for records in net.records for record in records[5:50]]
        mean = sum(exchanges) / len(exchanges)
        assert mean >= least
        if name == "patience":
            most = mean
    assert most > mean
