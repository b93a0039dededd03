"""Engines on a virtual clock: against the whole-network reference, against closed forms, and against themselves."""

from __future__ import annotations

import math
from typing import Any

import networkx as nx
import numpy as np
import pytest

from consensus import rules
from consensus.errors import ConfigError
from consensus.protocol.events import LeaveWanted, StepDone
from consensus.protocol.messages import WIRE_BYTES
from consensus.protocol.rounds import Phase
from consensus.protocol.validate import check_symmetry
from consensus.rules.deadline import Deadline
from consensus.rules.full import Full
from consensus.rules.gap import Gap
from consensus.rules.static_backup import StaticBackup
from consensus.sim import reference
from consensus.sim.network import Network
from consensus.timing import Constant, Link, Persistent, Replay, ShiftedExponential, Stream, Transient
from consensus.topology import build
from consensus.topology.weights import metropolis
from tests.support.simulated import ETA, adjacency_of, problem, simulate

EVERY_RULE = {**{name: rule() for name, rule in rules.RULES.items()}, "gap": Gap(window=3), "deadline": Deadline(seconds=0.004)}
RULES_AND_WEIGHTS = [*((rule, "static") for rule in EVERY_RULE), ("full", "active"), ("dtur", "active")]

FREE = Link(0.0, math.inf)
LINKS = {"free": FREE, "slow": Link(1e-3, 1e6, {(0, 1): 20.0}), "usual": Link(1e-4, 1e9)}


def random_graph(size: int, seed: int) -> nx.Graph:
    return build("erdos_renyi", size, seed=seed, probability=0.5)


# The oracle


@pytest.mark.parametrize("order", reference.STEPS)
@pytest.mark.parametrize("weights", ["static", "active"])
@pytest.mark.parametrize("kind", ["ring", "star", "complete"])
def test_full_is_the_reference(order: str, weights: str, kind: str) -> None:
    plant = problem(6)
    start = plant.models.copy()
    # On a star static and active weights agree under full: the exchanges of a round are all edges.
    simulate(build(kind, 6), Full(), rounds=8, plant=plant, order=order, weights=weights)
    P = metropolis(build(kind, 6)).toarray()
    expected = reference.run(start, [P] * 8, plant.gradient, ETA, order)
    np.testing.assert_allclose(plant.models, expected, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("order", reference.STEPS)
def test_several_steps_between_averages(order: str) -> None:
    plant = problem(5)
    start = plant.models.copy()
    simulate(build("ring", 5), Full(), rounds=4, plant=plant, order=order, every=3)
    P, still = metropolis(build("ring", 5)).toarray(), np.eye(5)
    # Combine-adapt ends with the first step that finds enough rounds closed.
    matrices = {"adapt-combine": [still, still, P] * 4, "combine-adapt": [P, still, still] * 3 + [P]}[order]
    np.testing.assert_allclose(plant.models, reference.run(start, matrices, plant.gradient, ETA, order), rtol=1e-13)


@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize(("rule", "weights"), RULES_AND_WEIGHTS)
def test_every_rule_is_the_replay_of_its_records(rule: str, weights: str, link: str) -> None:
    size, graph = 7, random_graph(7, 3)
    for seed in range(3):
        plant = problem(size, seed)
        start, total = plant.models.copy(), plant.models.sum(axis=0)
        rounds = [6 + (5 * rank) % 7 for rank in range(size)]
        done = simulate(graph, EVERY_RULE[rule], rounds=rounds, seed=seed, link=LINKS[link], plant=plant, weights=weights)
        check_symmetry(enumerate(done.histories))
        assert [len(records) for records in done.histories] == rounds
        degrees = [graph.degree[rank] for rank in range(size)] if weights == "static" else None
        expected = reference.replay(start, done.histories, degrees, plant.gradient, ETA)
        np.testing.assert_allclose(plant.models, expected, rtol=1e-12)
        assert not np.allclose(plant.models.sum(axis=0), total)


@pytest.mark.parametrize(("rule", "weights"), RULES_AND_WEIGHTS)
def test_averaging_alone_keeps_the_mean(rule: str, weights: str) -> None:
    plant = problem(8)
    plant.lr = 0.0
    before, spread = plant.mean(), plant.consensus_distance()
    slow = Transient(0.01, 0.3, 10)
    simulate(random_graph(8, 1), EVERY_RULE[rule], rounds=30, compute=slow, plant=plant, weights=weights)
    np.testing.assert_allclose(plant.mean(), before, rtol=1e-13)
    # Rounds that never wait meet nobody where messages take a time.
    assert rule == "run_free" or plant.consensus_distance() < spread


# Closed forms


def mean_round(done: Any) -> float:
    """Seconds per round, over all of them."""
    return float(max(done.network.ended_at) / len(done.histories[0]))


def test_full_on_a_complete_graph_waits_for_the_maximum() -> None:
    """E max of n exponentials: mean (1 + 1/2 + ... + 1/n)."""
    size, rounds, mean = 5, 800, 0.02
    done = simulate(build("complete", size), Full(), rounds=rounds, compute=ShiftedExponential(0.01, mean), link=FREE)
    orders = np.arange(1, size + 1)
    expected, variance = 0.01 + mean * (1 / orders).sum(), mean**2 * (1 / orders**2).sum()
    assert abs(mean_round(done) - expected) < 4 * math.sqrt(variance / rounds)


def test_two_ranks_with_latency() -> None:
    """A round is the longer step, a Ready, an Engage, and the models."""
    link = Link(2e-3, 1e6)
    done = simulate(build("path", 2), Full(), rounds=4, compute=Constant(0.05), link=link, model_bytes=10_000, control_bytes=100)
    control, model = 2e-3 + 1e-4, 2e-3 + 1e-2
    assert mean_round(done) == pytest.approx(0.05 + 2 * control + model, rel=1e-12)


@pytest.mark.parametrize("size", [3, 8, 11])
def test_full_on_a_ring_of_equals(size: int) -> None:
    """Both exchanges go on at once, so the ring costs what two ranks cost."""
    done = simulate(
        build("ring", size), Full(), rounds=5, compute=Constant(0.05), link=Link(1e-3, 1e6), model_bytes=4000, control_bytes=0
    )
    assert mean_round(done) == pytest.approx(0.05 + 2e-3 + 5e-3, rel=1e-12)


def test_full_on_a_ring_with_one_slow_step_is_max_plus() -> None:
    """T_i(k+1) = max of T_(i-1)(k), T_i(k), T_(i+1)(k), plus the step: a delay travels an edge a round."""
    size, rounds, generator = 9, 40, np.random.default_rng(0)
    steps = generator.exponential(1.0, (size, rounds))
    done = simulate(build("ring", size), Full(), rounds=rounds, compute=Replay(tuple(map(tuple, steps))), link=FREE)
    ends = np.zeros(size)
    for k in range(rounds):
        opened = ends + steps[:, k]
        ends = np.maximum(opened, np.maximum(np.roll(opened, 1), np.roll(opened, -1)))
        seen = [records[k].closed_at for records in done.histories]
        np.testing.assert_allclose(seen, ends, rtol=1e-12)


def test_a_static_backup_of_two_waits_for_the_second_of_three() -> None:
    """On a triangle b = 1: one exchange is enough, so the first two ranks to be ready go on."""
    steps = ((1.0,), (2.0,), (7.0,))
    done = simulate(build("complete", 3), StaticBackup(1), rounds=[1, 1, 1], compute=Replay(steps), link=FREE)
    assert [records[0].closed_at for records in done.histories][:2] == [2.0, 2.0]
    assert done.exchanges[0] == [{(1, 1)}]


def test_run_free_never_waits() -> None:
    done = simulate(build("complete", 4), rules.build("run_free"), rounds=50, compute=ShiftedExponential(0.01, 0.02), link=FREE)
    assert all(record.closed_at == record.opened_at for records in done.histories for record in records)


def test_a_deadline_is_a_time_on_the_clock() -> None:
    slow = Persistent(0.01, (2,), 100.0)
    done = simulate(build("ring", 3), Deadline(0.004), rounds=[3, 3, 1], compute=slow, link=FREE)
    assert all(record.closed_at - record.opened_at == pytest.approx(0.004) for record in done.histories[0])


# What is counted, and what is not


def test_bytes_are_messages_and_models() -> None:
    done = simulate(build("path", 2), Full(), rounds=3, compute=Constant(0.1), model_bytes=1000)
    # A round: Ready, Engage and the model; at the end a Leave.
    assert [done.network.bytes_sent(rank) for rank in (0, 1)] == [3 * (2 * WIRE_BYTES + 1000) + WIRE_BYTES] * 2


def test_a_rule_without_a_memory_says_goodbye_to_neighbours_only() -> None:
    graph = build("ring", 20)
    spoken = {
        name: sum(simulate(graph, rules.build(name), rounds=1, compute=Constant(1.0)).network.bytes_sent(rank) for rank in graph)
        for name in ("full", "gap")
    }
    assert spoken["gap"] - spoken["full"] == (19 - 2) * 20 * WIRE_BYTES


def test_a_broadcast_is_one_event_for_each_distance() -> None:
    near, far = (simulate(build("ring", 12), rules.build("dtur"), compute=Constant(0.01), rounds=4, link=link, model_bytes=1000)
                 for link in (Link(1e-3, 1e6), Link(1e-3, 1e6, {(0, 6): 5.0})))  # fmt: skip
    # 0 and 6 are no neighbours: the link between them carries announcements alone, and nobody is short of any.
    assert all(engine.phase is Phase.FINISHED for engine in [*near.network.engines, *far.network.engines])
    assert near.network.kernel.events == pytest.approx(far.network.kernel.events, rel=0.2)


@pytest.mark.parametrize("rule", EVERY_RULE)
def test_the_same_seed_is_the_same_run(rule: str) -> None:
    def run(seed: int) -> tuple[Any, float, int]:
        done = simulate(random_graph(8, 1), EVERY_RULE[rule], seed=seed, compute=Transient(0.01, 0.3, 5))
        return done.histories, done.network.kernel.now, done.network.kernel.events

    assert run(1) == run(1) != run(2)


def test_recorders_see_what_engines_are_told() -> None:
    graph, told = build("path", 2), [[], []]
    network = Network(
        adjacency_of(graph), Full(), [Constant(1.0).stream(rank, 0) for rank in graph], FREE, stop=lambda rank, done: done == 2,
        recorders=[lambda now, event, commands, log=log: log.append((now, event)) for log in told],
    )  # fmt: skip
    network.run()
    assert [now for now, event in told[0] if event == StepDone()] == [1.0, 2.0]
    assert (2.0, LeaveWanted()) in told[1]
    assert network.ended_at == [2.0, 2.0]


def test_a_run_may_be_cut_and_continued() -> None:
    graph = build("ring", 6)
    counts = [0] * 6

    def count(rank: int, record: Any, compute: float) -> None:
        counts[rank] += 1

    streams = [Constant(0.01).stream(rank, 0) for rank in graph]
    network = Network(adjacency_of(graph), rules.build("dtur"), streams, FREE, stop=lambda rank, done: done >= 10, on_round=count)
    network.run(until=0.055)
    assert (counts, network.kernel.now) == ([5] * 6, 0.05)
    network.run()
    assert counts == [10] * 6


# Bad input


@pytest.mark.parametrize("seconds", [-1.0, math.nan, math.inf])
def test_a_step_takes_a_finite_time(seconds: float) -> None:
    graph = build("path", 2)
    streams = [Stream(iter([0.1, 0.1, 0.1])), Stream(iter([0.1, seconds]))]
    network = Network(adjacency_of(graph), Full(), streams, FREE, stop=lambda rank, done: done >= 3)
    with pytest.raises(ConfigError, match=r"the step of rank 1, round 2, takes (-1.0|nan|inf) s; expected a finite number"):
        network.run()


def test_a_stream_for_each_rank() -> None:
    graph = build("ring", 4)
    with pytest.raises(ConfigError, match="3 streams of compute times for 4 ranks"):
        Network(adjacency_of(graph), Full(), [Constant(1.0).stream(0, 0)] * 3, FREE, stop=lambda rank, done: True)


def test_sizes_are_not_negative() -> None:
    graph = build("path", 2)
    with pytest.raises(ConfigError, match="expected 0 bytes or more"):
        Network(adjacency_of(graph), Full(), [Constant(1.0).stream(0, 0)] * 2, FREE, stop=lambda rank, done: True, model_bytes=-1)
