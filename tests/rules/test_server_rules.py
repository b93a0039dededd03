"""Each server rule by itself, and what is said when its parameters are wrong."""

from __future__ import annotations

import pickle
import random
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from support.served import Served

from consensus.checkpoint.plain import decoded, encoded
from consensus.errors import ConfigError, NonFiniteLoss, ProtocolError
from consensus.protocol.service import Arrival, ServerRule, ServerView, Update, Verdict
from consensus.rules.rates import build_rate
from consensus.rules.serving import SERVER_RULES, build_server

PUSHES = ["wait", "interrupt", "pull"]


def view_of(*kept: tuple[int, int], workers: tuple[int, ...] = (1, 2, 3), version: int = 0, **more: Any) -> ServerView:
    """A server that keeps gradients of (worker, version)."""
    arrivals = {worker: Arrival(worker, at, 1, 0.5, 1.0, 1.0) for worker, at in kept}
    more.setdefault("held", set(arrivals))
    return ServerView(workers, version, kept=arrivals, **more)


def verdict(rule: ServerRule, view: ServerView) -> Verdict:
    return rule.decide(view, None, rule.start(view, 0.0), 1.0)[0]


@pytest.mark.parametrize("name", SERVER_RULES)
def test_every_rule_has_defaults(name: str) -> None:
    rule = build_server(name)
    assert rule.name == name
    assert build_server(name) == rule == pickle.loads(pickle.dumps(rule))
    assert hash(build_server(name)) == hash(rule)


@pytest.mark.parametrize(
    ("name", "parameters", "words"),
    [
        ("bps", {}, "did you mean 'bsp'"),
        ("dtur", {}, "unknown server rule 'dtur'"),
        ("bsp", {"b": 1}, "it takes none"),
        ("backup", {"b": -1}, "b = -1"),
        ("backup", {"b": 1.5}, "b = 1.5, expected int"),
        ("backup", {"b": True}, "b = True, expected int"),
        ("ssp", {"s": -1}, "s = -1"),
        ("ssp", {"S": 3}, "did you mean 's'"),
        ("dbw", {"window": 1}, "window = 1"),
        ("dbw", {"window": 20, "smoothness_window": 10}, "smoothness_window = 10"),
        ("dbw", {"smoothness_window": "long"}, r"smoothness_window = 'long', expected int \| None"),
        ("dbw", {"history": 0}, "history = 0"),
        ("dbw", {"horizon": 0}, "horizon = 0"),
        ("dbw", {"blind": 1}, "blind = 1, expected bool"),
        ("dbw", {"blind": "yes"}, "blind = 'yes', expected bool"),
        ("dbw", {"resample": 1}, "resample = 1, expected bool"),
        ("elastic", {"R": 0}, "R = 0"),
        ("elastic", {"R": False}, "R = False, expected int"),
        ("elastic", {"objective": "spred"}, "expected 'spread' or 'rate'; did you mean 'spread'"),
        ("elastic", {"objective": 1}, "objective = 1, expected 'spread' or 'rate'"),
    ],
)
def test_mistakes_are_named(name: str, parameters: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        build_server(name, **parameters)


def test_as_many_backups_as_workers_are_refused() -> None:
    rule = build_server("backup", b=3)
    rule.fit(4)
    with pytest.raises(ConfigError, match="b = 3 with 3 workers, expected at most 2"):
        rule.fit(3)


# -- bsp, backup ----------------------------------------------------------------------------------------------------------


def test_a_quorum_updates_with_what_is_present_and_discards_what_is_late() -> None:
    rule = build_server("backup", b=1)
    assert verdict(rule, view_of((2, 4), version=4)) == Verdict("1 of 3 gradients, 2 wanted")
    assert verdict(rule, view_of((2, 4), (1, 4), version=4)) == Verdict("2 of 3 gradients (1 backups)", (2, 1), (), (1, 2, 3))
    late = verdict(rule, view_of((3, 3), version=4))
    assert late == Verdict("late: workers 3; 0 of 3 gradients, 2 wanted", discard=(3,), release=(3,))
    both = verdict(rule, view_of((3, 3), (1, 4), (2, 4), version=4))
    assert (both.apply, both.discard, both.release) == ((1, 2), (3,), (1, 2, 3))


def test_a_departed_workers_gradient_is_used_but_not_waited_for() -> None:
    view = view_of((9, 0), (1, 0))
    assert not verdict(build_server("bsp"), view).apply
    assert verdict(build_server("bsp"), view_of((9, 0), (1, 0), (2, 0), (3, 0))).apply == (9, 1, 2, 3)
    late = verdict(build_server("bsp"), view_of((9, 0), version=1))
    assert (late.discard, late.release) == ((9,), ())


def test_after_departures_backup_waits_for_one_at_least() -> None:
    rule = build_server("backup", b=3)
    assert verdict(rule, view_of((2, 0), workers=(1, 2))).apply == (2,)
    assert verdict(rule, view_of((1, 0), (2, 0), workers=(1, 2, 3, 4, 5))).apply == (1, 2)


# -- asp, ssp -------------------------------------------------------------------------------------------------------------


def test_asp_makes_one_update_of_each_gradient() -> None:
    assert verdict(build_server("asp"), view_of((3, 1), (1, 2), version=4)) == Verdict("3 updates late", (3,), (), (3,))
    assert verdict(build_server("asp"), view_of()) == Verdict("no gradient is here")


def test_ssp_holds_a_worker_too_far_ahead_until_the_slowest_has_pushed() -> None:
    rule = build_server("ssp", s=2)
    ahead = view_of((1, 0), iterations={1: 3, 2: 1, 3: 0})
    assert verdict(rule, ahead).apply == (1,)
    assert verdict(rule, ahead).release == ()
    pushed = view_of((3, 0), iterations={1: 3, 2: 1, 3: 1}, held={1, 3})
    assert verdict(rule, pushed).release == (1, 3)


def test_ssp_lets_go_when_the_slowest_leaves() -> None:
    view = view_of(workers=(1, 2), iterations={1: 5, 2: 4}, held={1})
    assert verdict(build_server("ssp", s=1), view).release == (1,)
    assert verdict(build_server("ssp", s=0), view).release == ()


# -- dbw ------------------------------------------------------------------------------------------------------------------

TWO_SPEEDS: Callable[[int], float] = lambda worker: 1.0 if worker <= 3 else 10.0  # noqa: E731


def taught(push: Any = "wait", draw: Callable[[int], float] = TWO_SPEEDS, updates: int = 60, **options: Any) -> Served:
    options.setdefault("rule", build_server("dbw"))
    # Falls faster than the gradients promise: no curvature is to be seen.
    options.setdefault("loss", lambda version: 1000.0 - version)
    return Served(n=6, draw=draw, push=push, **options).run(updates=updates)


def counts(run: Served) -> list[int]:
    return [len(update.arrivals) for update in run.updates]


def test_dbw_waits_for_all_until_it_knows_enough() -> None:
    used = counts(taught(square=lambda k: 1.0))
    assert used[:2] == [6, 6]
    assert used[2:10] != [6] * 8


@pytest.mark.parametrize("push", PUSHES)
def test_without_noise_the_fastest_gradient_is_enough(push: str) -> None:
    spread = {rank: 1.0 + rank / 10 for rank in range(1, 7)}
    run = taught(push, spread.__getitem__, updates=200, square=lambda k: 1.0)
    assert counts(run)[-20:] == [1] * 20
    assert run.verdicts[-1].reason in {"1 of 6 gradients (5 backups)", "0 of 6 gradients, 1 wanted"}


@pytest.mark.parametrize("push", PUSHES)
def test_with_noise_alone_all_are_waited_for(push: str) -> None:
    assert set(counts(taught(push, loss=lambda version: 1000.0))) == {6}


@pytest.mark.parametrize("push", PUSHES)
def test_a_fall_that_is_worth_more_than_the_noise_leaves_out_the_slow(push: str) -> None:
    assert counts(taught(push))[-20:] == [3] * 20


@pytest.mark.parametrize("push", PUSHES)
def test_blindly_dbw_leaves_out_the_slow(push: str) -> None:
    run = taught(push, rule=build_server("dbw", blind=True), updates=100)
    assert counts(run)[-20:] == [3] * 20


@pytest.mark.parametrize("push", PUSHES)
def test_steps_in_proportion_to_k_make_more_gradients_worth_their_time(push: str) -> None:
    run = taught(push, square=lambda k: 1.0, factor=build_rate("proportional"), updates=100)
    assert counts(run)[-20:] == [3] * 20


def test_equal_times_leave_nothing_to_gain_by_leaving_anybody_out() -> None:
    assert set(counts(taught(draw=lambda worker: 1.0, square=lambda k: 1.0))) == {6}


def test_when_the_loss_rises_more_are_waited_for() -> None:
    for jump in (30, 31, 40):
        losses = [1000.0 - version + 50.0 * (version >= jump) for version in range(jump + 1)]
        run = taught(updates=jump + 1, square=lambda k: 1.0, loss=losses.__getitem__)
        assert run.state.gain.loss_rose
        assert run.state.k > len(run.updates[-1].arrivals)


def test_dbw_follows_workers_that_slow_down() -> None:
    slow: set[int] = set()
    run = Served(build_server("dbw", blind=True, history=10), 6, lambda worker: 10.0 if worker in slow else 1.0)
    run.run(updates=40)
    assert set(counts(run)) == {6}
    slow |= {4, 5, 6}
    run.run(updates=140)
    assert counts(run)[-20:] == [3] * 20


def test_dbw_takes_no_time_of_the_first_version() -> None:
    fitted = build_server("dbw", resample=False)
    for rule, known in ((build_server("dbw"), None), (fitted, [1.0] * 3 + [10.0] * 3)):
        run = taught(updates=1, rule=rule)
        assert run.state.times.expected(run.view.workers).tolist() == [0.0] * 6
        run = taught(updates=2, rule=rule)
        times = run.state.times.expected(run.view.workers)
        assert times.tolist() == known if known else times.min() > 0.0


def test_when_work_is_dropped_the_choice_before_does_not_matter() -> None:
    rng = random.Random(1)
    run = taught("interrupt", lambda worker: rng.expovariate(1.0), rule=build_server("dbw", blind=True), updates=300)
    assert len(set(counts(run))) > 1
    waiting = run.state.times.waiting
    assert waiting.expected(6).any()
    assert not waiting.expected(1)[5] > waiting.expected(6)[5]


def test_dbw_counts_with_those_that_are_left() -> None:
    for rule in (build_server("dbw"), build_server("dbw", resample=False)):
        run = taught(departures=[(20.0, 1), (30.0, 5)], square=lambda k: 1.0, updates=200, rule=rule)
        assert run.state.times.expected(run.view.workers).tolist() == pytest.approx([1.0, 1.0, 10.0, 10.0], rel=0.1)
        assert 1 <= run.state.k <= 4


@pytest.mark.parametrize("seed", range(3))
def test_dbw_learns_of_stalls_without_waiting_for_each_number(seed: int) -> None:
    tried = []
    for resample in (True, False):
        rng = random.Random(seed)
        rule = build_server("dbw", resample=resample)
        run = taught(draw=lambda worker, rng=rng: 50.0 if rng.random() < 0.1 else 1.0, rule=rule, updates=40)  # type: ignore[misc]
        known = next(number for number, at in enumerate(run.made_at) if at > 50.0)
        tried.append(sum(count > 3 for count in counts(run)[known + 2 :]))
    assert 2 * tried[0] < tried[1]


@pytest.mark.parametrize("push", PUSHES)
def test_dbw_goes_down_by_half_at_most(push: str) -> None:
    spread = {rank: 1.0 + rank / 10 for rank in range(1, 7)}
    used = counts(taught(push, spread.__getitem__, updates=40, square=lambda k: 1.0))
    assert 1 in used
    assert all(2 * after >= before for before, after in pairwise(used))


@pytest.mark.parametrize("push", PUSHES)
def test_dbw_goes_on_with_what_an_earlier_server_had_learnt(push: str) -> None:
    run = taught(push)
    learnt = decoded(encoded(run.rule.learnt(run.state)))
    view = view_of(workers=run.view.workers, version=60, push=push)
    state = run.rule.resume(learnt, view, 1000.0)
    assert (state.k, state.first) == (run.state.k, 60)
    before, after = (known.times.expected(view.workers) for known in (run.state, state))
    assert after.tolist() == pytest.approx(before.tolist(), rel=0.1)
    assert after[0] > 0.0
    # Both learn on alike.
    for number, loss in enumerate((939.0, 989.0, 938.0)):
        for gain in (run.state.gain, state.gain):
            gain.observe(2, 1.0, 3.0, loss, 0.1)
        assert state.gain.loss_rose is run.state.gain.loss_rose is (number == 1)
        for k in range(1, 7):
            assert state.gain.gain(k, 0.1) == run.state.gain.gain(k, 0.1)
    two = view_of(workers=(1, 2), push=push)
    fewer = run.rule.resume(learnt, two, 0.0)
    assert fewer.k <= 2
    assert len(fewer.times.expected(two.workers)) == 2
    # Where work is dropped all six were waited for, or two of six: of two of two nothing is known.
    assert bool(fewer.times.expected(two.workers)[0]) is (push != "interrupt")
    # How times are told where work is dropped, and where it is not, says nothing of each other.
    other = view_of(workers=run.view.workers, push="interrupt" if push != "interrupt" else "wait")
    assert not run.rule.resume(learnt, other, 0.0).times.expected(other.workers).any()


def test_dbw_refuses_a_loss_that_is_not_finite() -> None:
    rule = build_server("dbw")
    view = view_of()
    arrival = Arrival(1, 0, 1, 0.5, float("inf"), 1.0)
    with pytest.raises(NonFiniteLoss):
        rule.applied(view, Update((arrival,), 1.0, 0.1), rule.start(view, 0.0), 1.0)


# -- elastic --------------------------------------------------------------------------------------------------------------


def steady(*periods: float, updates: int = 0, until: float = float("inf"), **parameters: Any) -> Served:
    """Workers 1, 2, ... that take exactly so long for an iteration."""
    run = Served(build_server("elastic", **parameters), len(periods), lambda worker: periods[worker - 1], push="pull")
    return run.run(updates=updates or None, until=until)


def test_elastic_puts_the_barrier_where_the_ends_are_nearest() -> None:
    # Ends 10, 20 .., 14, 28 .. and 17, 34 .. meet within 2 at 70, counted from their last pushes: 30, 28 and 34.
    run = steady(10.0, 14.0, 17.0, until=34.5, R=8)
    assert run.state.quotas == {1: 4, 2: 3, 3: 2}
    run = steady(10.0, 14.0, 17.0, until=70.0, R=8)
    assert {arrival.worker: arrival.iteration for arrival in run.updates[-1].arrivals} == {1: 7, 2: 5, 3: 4}
    assert run.made_at[-1] == 70.0
    assert run.verdicts[-2].reason == "barrier: all have done their quotas"


def test_below_its_quota_a_worker_is_not_held_and_at_it_its_gradient_is_kept() -> None:
    run = steady(10.0, 14.0, 17.0, until=69.0, R=8)
    assert run.view.held == set(run.view.kept) == {3}
    assert run.state.done == {1: 3, 2: 2, 3: 2}
    assert all(len(update.arrivals) == 1 for update in run.updates)


def test_when_the_last_one_expected_leaves_the_barrier_opens() -> None:
    periods = {1: 10.0, 2: 14.0, 3: 17.0}
    run = Served(build_server("elastic", R=8), 3, periods.__getitem__, push="pull", departures=[(69.0, 1), (69.5, 2)])
    run.run(until=69.5)
    assert [arrival.worker for arrival in run.updates[-1].arrivals] == [3]
    assert run.made_at[-1] == 69.5
    assert run.state.quotas == {}


def test_who_leaves_during_monitoring_is_not_waited_for() -> None:
    run = Served(
        build_server("elastic"), 3, lambda worker: 1000.0 if worker == 3 else float(worker), push="pull", departures=[(9.5, 3)]
    )
    run.run(until=9.0)
    assert run.verdicts[-1].reason == "2 of 3 workers have pushed twice"
    run.run(until=9.5)
    assert run.state.quotas.keys() == {1, 2}


def test_a_clock_that_stands_still_makes_equals_of_all() -> None:
    run = steady(0.0, 0.0, 0.0, updates=60, R=4)
    assert max(run.view.iterations.values()) - min(run.view.iterations.values()) <= 5


@pytest.mark.parametrize(("objective", "quotas"), [("spread", {1: 2, 2: 1}), ("rate", {1: 4, 2: 3})])
def test_two_pushes_at_one_tick_are_some_time_apart(objective: str, quotas: dict[int, int]) -> None:
    rule = build_server("elastic", R=4, objective=objective)
    view = view_of(workers=(1, 2))
    state = rule.start(view, 5.0)
    for worker, iteration, at in [(1, 1, 5.0), (1, 2, 5.0), (2, 1, 6.0), (2, 2, 8.0)]:
        arrival = Arrival(worker, 0, iteration, at, 1.0, 1.0)
        view.kept = {worker: arrival}
        assert rule.decide(view, arrival, state, at)[0].apply == (worker,)
    # Worker 1 at 7, 9, 11, 13 and worker 2 at 10, 12, 14, 16, 5 being the beginning: 1 of 5, or 1 of 9.
    assert state.quotas == quotas


def test_a_push_beyond_the_quota_is_a_defect() -> None:
    rule = build_server("elastic", R=1)
    view = view_of(workers=(1, 2))
    state = rule.start(view, 0.0)
    for worker, iteration, at in [(1, 1, 1.0), (2, 1, 1.0), (1, 2, 2.0), (2, 2, 2.0), (1, 3, 3.0)]:
        arrival = Arrival(worker, 0, iteration, at, 1.0, 1.0)
        view.kept = {worker: arrival}
        rule.decide(view, arrival, state, at)
    arrival = Arrival(1, 0, 4, 4.0, 1.0, 1.0)
    view.kept = {1: arrival}
    with pytest.raises(ProtocolError, match=r"worker 1 pushed 2 times .* quota of 1 \(R = 1\)"):
        rule.decide(view, arrival, state, 4.0)


THROUGHPUT = [
    (4, 1.5, 0.02, 2.61, {15: 3.15, 60: 3.16, 240: 3.17}),
    (4, 1.0, 0.3, 2.46, {15: 2.69, 60: 2.63, 240: 2.53}),
    (16, 1.5, 0.02, 10.42, {15: 12.11, 60: 12.45, 240: 12.50}),
    (16, 1.5, 0.3, 6.11, {15: 8.04, 60: 8.11, 240: 8.19}),
]


def throughput(name: str, n: int, slowest: float, noise: float, **parameters: int) -> float:
    rng = random.Random(0)
    horizon = 50_000 / n
    rule = build_server(name, **parameters)

    def draw(worker: int) -> float:
        return (1.0 + (slowest - 1.0) * (worker - 1) / (n - 1)) * (1.0 + noise * rng.expovariate(1.0))

    return sum(Served(rule, n, draw, push="pull", audit=False).run(until=horizon).arrived.values()) / horizon


@pytest.mark.slow
@pytest.mark.parametrize(("n", "slowest", "noise", "bulk", "elastic"), THROUGHPUT)
def test_iterations_per_time_of_a_quota_barrier(
    n: int, slowest: float, noise: float, bulk: float, elastic: dict[int, float]
) -> None:
    """Against figures from an independent simulation, n workers whose bases are evenly spaced."""
    assert throughput("bsp", n, slowest, noise) == pytest.approx(bulk, rel=0.05)
    for bound, expected in elastic.items():
        assert throughput("elastic", n, slowest, noise, R=bound) == pytest.approx(expected, rel=0.05)
