"""What every server rule has to do. A new rule gets its rows in CASES and its line in LAWS."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from support.served import Served

from consensus.checkpoint.plain import decoded, encoded
from consensus.protocol.service import PushMode
from consensus.rules.serving import SERVER_RULES, build_server

CASES: list[tuple[str, dict[str, Any]]] = [
    ("bsp", {}),
    ("backup", {"b": 0}),
    ("backup", {}),
    ("backup", {"b": 4}),
    ("asp", {}),
    ("ssp", {"s": 0}),
    ("ssp", {}),
    ("dbw", {}),
    ("dbw", {"window": 2, "history": 1}),
    ("dbw", {"blind": True}),
    ("dbw", {"resample": False}),
    ("elastic", {}),
    ("elastic", {"R": 1}),
    ("elastic", {"R": 4, "objective": "rate"}),
]


def bsp(run: Served) -> None:
    assert {worker for arrival in run.updates[-1].arrivals for worker in [arrival.worker]} >= set(run.view.workers)


def backup(run: Served) -> None:
    assert len(run.updates[-1].arrivals) >= max(1, len(run.view.workers) - run.rule.b)  # type: ignore[attr-defined]


def asp(run: Served) -> None:
    assert len(run.updates[-1].arrivals) == 1
    assert run.view.held <= run.view.kept.keys()


def ssp(run: Served) -> None:
    assert len(run.updates[-1].arrivals) == 1
    counts = [run.view.iterations[worker] for worker in run.view.workers]
    held = [worker for worker in run.view.workers if worker in run.view.held and worker not in run.view.kept]
    lead = run.rule.s  # type: ignore[attr-defined]
    assert all(run.view.iterations[worker] - min(counts) > lead for worker in held)


def dbw(run: Served) -> None:
    assert 1 <= run.state.k <= len(run.view.workers)


def elastic(run: Served) -> None:
    state, bound = run.state, run.rule.R  # type: ignore[attr-defined]
    assert all(1 <= quota <= bound for quota in state.quotas.values())
    assert all(state.done[worker] <= quota for worker, quota in state.quotas.items())
    assert len(run.updates[-1].arrivals) == 1 or not state.quotas


LAWS: dict[str, Callable[[Served], None]] = {
    "bsp": bsp, "backup": backup, "asp": asp, "ssp": ssp, "dbw": dbw, "elastic": elastic,
}  # fmt: skip
"""What holds when all is done that followed from an update, whatever the times."""


def modes(name: str) -> list[PushMode]:
    return ["wait", "interrupt", "pull"] if SERVER_RULES[name].synchronous else ["pull"]


MODES = [(name, parameters, mode) for name, parameters in CASES for mode in modes(name)]
every_rule = pytest.mark.parametrize(("name", "parameters", "push"), MODES)

DRAWS: dict[str, Callable[[random.Random], Callable[[int], float]]] = {
    "exponential": lambda rng: lambda worker: rng.expovariate(1.0),
    "uneven": lambda rng: lambda worker: worker * rng.uniform(0.9, 1.1),
    "equal": lambda rng: lambda worker: 1.0,
    # A clock that stands still for most pushes.
    "coarse": lambda rng: lambda worker: float(rng.random() < 0.2),
    "stalls": lambda rng: lambda worker: 50.0 if rng.random() < 0.02 else rng.uniform(0.5, 1.5),
}


def served(name: str, parameters: dict[str, Any], push: PushMode, draw: str, seed: int, **options: Any) -> Served:
    # Any time at all passes within a hundred iterations.
    return Served(build_server(name, **parameters), draw=DRAWS[draw](random.Random(seed)), push=push, watch=LAWS[name], **options)


def settled(run: Served) -> None:
    """Every gradient that came is settled, kept or being applied, and settled once (the server checks that)."""
    open_ones = {(gradient.worker, gradient.iteration) for gradient in run.view.kept.values()}
    everything = {(worker, number) for worker, count in run.arrived.items() for number in range(1, count + 1)}
    assert run.fates.keys() | open_ones == everything
    assert not run.fates.keys() & open_ones


def test_every_rule_is_in_the_table() -> None:
    assert {name for name, _ in CASES} == set(SERVER_RULES) == set(LAWS)


@every_rule
def test_what_was_learnt_is_plain_data_and_others_go_on_with_it(name: str, parameters: dict[str, Any], push: PushMode) -> None:
    before = served(name, parameters, push, "exponential", seed=2, n=5).run(updates=60)
    learnt = decoded(encoded(before.rule.learnt(before.state)))
    for n in (5, 6):
        after = served(name, parameters, push, "exponential", seed=3, n=n)
        after.state = after.rule.resume(learnt, after.view, 0.0)
        settled(after.run(updates=60))


@every_rule
@pytest.mark.parametrize("draw", DRAWS)
def test_updates_never_cease(name: str, parameters: dict[str, Any], push: PushMode, draw: str) -> None:
    settled(served(name, parameters, push, draw, seed=1, n=5).run(updates=150))


@every_rule
def test_one_worker_is_enough(name: str, parameters: dict[str, Any], push: PushMode) -> None:
    parameters = {**parameters, **({"b": 0} if "b" in parameters or name == "backup" else {})}
    run = served(name, parameters, push, "exponential", seed=2, n=1).run(updates=100)
    assert run.arrived[1] == 100
    assert set(run.fates.values()) == {"applied"}


@every_rule
@pytest.mark.parametrize("forget", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_departures_stop_nobody(name: str, parameters: dict[str, Any], push: PushMode, forget: bool, seed: int) -> None:
    rng = random.Random(seed)
    leaving = rng.sample(range(1, 7), 5)
    departures = [(rng.uniform(0.0, 60.0), worker) for worker in leaving]
    run = served(name, parameters, push, "uneven", seed, n=6, departures=departures, forget=forget)
    run.run(until=60.0)
    before = len(run.updates)
    settled(run.run(updates=before + 40)) if not forget else run.run(updates=before + 40)
    assert len(run.view.workers) == 1


@every_rule
def test_all_may_leave(name: str, parameters: dict[str, Any], push: PushMode) -> None:
    departures = [(10.0 + worker, worker) for worker in range(1, 6)]
    run = served(name, parameters, push, "exponential", seed=3, n=5, departures=departures).run()
    assert run.view.workers == ()
    assert run.now == 15.0


@every_rule
@pytest.mark.parametrize("seconds", [0.05, 0.7, 3.0])
def test_gradients_may_come_while_an_update_is_made(
    name: str, parameters: dict[str, Any], push: PushMode, seconds: float
) -> None:
    departures = [(25.0, 2), (30.0, 5)]
    run = served(name, parameters, push, "exponential", seed=4, n=5, departures=departures, apply_seconds=seconds)
    run.run(updates=120)
    assert len(run.updates) == 120


@every_rule
def test_equal_runs_are_equal(name: str, parameters: dict[str, Any], push: PushMode) -> None:
    first, second = (served(name, parameters, push, "exponential", seed=5, n=5).run(updates=60) for _ in range(2))
    assert first.verdicts == second.verdicts
    assert first.made_at == second.made_at


def test_no_backup_is_bsp() -> None:
    for push in modes("bsp"):
        none, bulk = (served(name, p, push, "stalls", 6, n=5).run(updates=80) for name, p in [("backup", {"b": 0}), ("bsp", {})])
        assert none.verdicts == bulk.verdicts
        assert none.made_at == bulk.made_at
        assert set(bulk.fates.values()) == {"applied"}


@pytest.mark.parametrize("b", range(5))
def test_backup_takes_all_but_b(b: int) -> None:
    for push in modes("backup"):
        run = served("backup", {"b": b}, push, "exponential", 7, n=5).run(updates=100)
        assert {len(update.arrivals) for update in run.updates} == {5 - b}
        assert all({arrival.version for arrival in update.arrivals} == {t} for t, update in enumerate(run.updates))


@pytest.mark.parametrize("s", [0, 1, 3])
def test_ssp_bounds_the_lead_and_reaches_the_bound(s: int) -> None:
    run = served("ssp", {"s": s}, "pull", "uneven", 8, n=5).run(updates=400)
    assert max(run.leads) == s
    assert set(run.fates.values()) == {"applied"}


def test_asp_holds_nobody() -> None:
    run = served("asp", {}, "pull", "uneven", 9, n=5).run(updates=400)
    assert all(verdict.release == verdict.apply for verdict in run.verdicts if verdict.apply)
    assert max(run.leads) > 20


@pytest.mark.parametrize("draw", ["exponential", "uneven", "coarse"])
@pytest.mark.parametrize("bound", [1, 3, 15])
def test_elastic_closes_supersteps_with_everybody_and_bounds_the_lead(draw: str, bound: int) -> None:
    run = served("elastic", {"R": bound}, "pull", draw, 10, n=5)
    barriers: dict[int, set[int]] = {}
    leads = []

    def watch(run: Served) -> None:
        if len(run.updates[-1].arrivals) > 1:
            barriers[len(run.updates)] = {arrival.worker for arrival in run.updates[-1].arrivals}
        if run.state.quotas:
            leads.append(max(run.state.done.values()) - min(run.state.done.values()))

    run.watch = watch
    run.run(updates=500)
    assert len(barriers) > 5
    assert all(workers == {1, 2, 3, 4, 5} for workers in barriers.values())
    assert max(leads) <= bound
    assert set(run.fates.values()) == {"applied"}
