"""dtur and pathsearch: what an epoch uses, who agrees on it, and what departures do to it."""

from __future__ import annotations

import random
from collections import defaultdict
from typing import Any

import pytest
from support.wire import Adjacency, Shuffle, Wire, complete, connected, path, ring, star

from consensus.protocol.decision import Close, Stay, View
from consensus.protocol.events import Event
from consensus.protocol.messages import Established
from consensus.rules import build
from consensus.rules.epochs import EpochState, departure_digest
from consensus.topology.backbone import backbone, components
from consensus.types import Edge

RULES = ["dtur", "pathsearch"]
GRAPHS = {"ring": ring(6), "star": star(5), "complete": complete(5), "random": connected(8, seed=2)}
both = pytest.mark.parametrize("name", RULES)
on_graphs = pytest.mark.parametrize("graph", GRAPHS)


def view(graph: Adjacency, rank: int, round: int = 1, done: tuple[int, ...] = (), departed: frozenset[int] = frozenset()) -> View:
    """``rank`` in an open round."""
    near = tuple(sorted(graph[rank]))
    return View(
        rank, graph, near, set(near) - departed, set(departed), round, True, 0.0, dict.fromkeys(done, 0.0), dict.fromkeys(near, 0)
    )


def edge(news: Established) -> Edge:
    return (news.i, news.j)


class Watched(Wire):
    """Notes, with each announcement, what the announcer had exchanged in the round it is about."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.backed: list[tuple[int, Established, set[int]]] = []
        self.observers.append(self.watch)

    def watch(self, rank: int, event: Event, commands: list[Any]) -> None:
        for command in commands:
            if isinstance(getattr(command, "message", None), Established):
                self.backed.append((rank, command.message, set(self.engines[rank].view.done)))


def epochs(announced: list[tuple[int, Established]]) -> dict[tuple[int, int], dict[int, list[tuple[int, set[Edge]]]]]:
    """Generation -> slot-wise announcements: {(departed, digest): {epoch: [(slot, edges)]}}."""
    found: dict[tuple[int, int], dict[int, dict[int, set[Edge]]]] = defaultdict(lambda: defaultdict(lambda: defaultdict(set)))
    for _, news in announced:
        found[news.departed, news.digest][news.epoch][news.slot].add(edge(news))
    return {g: {e: sorted(slots.items()) for e, slots in by_epoch.items()} for g, by_epoch in found.items()}


def joined(n: int, edges: set[Edge]) -> int:
    """Number of components of (0..n-1, edges)."""
    graph = {i: [j for e in edges if i in e for j in e if j != i] for i in range(n)}
    return len(components(graph))


# -- what an epoch uses -------------------------------------------------------------------------------------------------


@both
@on_graphs
@pytest.mark.parametrize("seed", range(3))
def test_an_epoch_that_is_over_has_used_enough(name: str, graph: str, seed: int) -> None:
    """For dtur the whole backbone, for pathsearch a connected graph; messages as slow as they like."""
    adjacency = GRAPHS[graph]
    net = Watched(adjacency, build(name), rounds=25, seed=seed, delay=lambda r: r.expovariate(20))
    net.run()
    assert all((news.j if news.i == rank else news.i) in done for rank, news, done in net.backed)
    by_epoch = epochs(net.announced)[0, 0]
    assert max(by_epoch) >= 2
    for number in range(max(by_epoch)):
        used = {e for _, edges in by_epoch[number] for e in edges}
        if name == "dtur":
            assert used == set(backbone(adjacency))
        else:
            assert joined(len(adjacency), used) == 1


@both
@on_graphs
def test_each_iteration_uses_one_new_edge(name: str, graph: str) -> None:
    """With fast messages an epoch has an iteration for each edge of a spanning tree; of several announced the least counts."""
    adjacency = GRAPHS[graph]
    n = len(adjacency)
    net = Watched(adjacency, build(name), rounds=40, seed=7, delay=lambda r: 1e-7)
    net.run()
    by_epoch = epochs(net.announced)[0, 0]
    assert max(by_epoch) > 2
    for number in range(max(by_epoch)):
        assert [slot for slot, _ in by_epoch[number]] == list(range(n - 1))
        winners = {min(edges) for _, edges in by_epoch[number]}
        assert len(winners) == n - 1
        assert joined(n, winners) == 1


@both
def test_announcements_close_rounds_elsewhere(name: str) -> None:
    net = Wire(ring(8), build(name), rounds=20, seed=1, delay=lambda r: r.uniform(0, 0.1)).run()
    reasons = [record.reason.split(" ")[0] for records in net.records for record in records]
    assert reasons.count("established") > 10
    assert reasons.count("an") > 10
    assert sum(bool(record.backups) for records in net.records for record in records) > 20


class Pausing(Shuffle):
    """A network whose local steps can be held back, so that all news comes in."""

    paused = False

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.held: list[Any] = []
        super().__init__(*arguments, **options)

    def schedule(self, action: Any, at: float | None = None) -> None:
        if self.paused and action[0] == "step":
            self.held.append(action)
        else:
            super().schedule(action, at)

    def pause(self) -> None:
        self.paused = True
        self.held = [action for action in self.pending if action[0] == "step"]
        self.pending = [action for action in self.pending if action[0] != "step"]
        self.settle()

    def resume(self) -> None:
        self.paused = False
        self.pending += self.held


@both
@pytest.mark.parametrize("seed", range(6))
def test_ranks_agree_when_all_news_is_in(name: str, seed: int) -> None:
    """No two ranks in one epoch differ, and none is more than one epoch ahead."""
    draw = random.Random(seed)
    net = Pausing(connected(6, seed), build(name), rounds=10**6, seed=seed)
    for _ in range(40):
        for _ in range(draw.randint(1, 200)):
            if net.pending:
                net.go(draw.randrange(len(net.pending)))
        net.pause()
        states = [engine.rule_state for engine in net.engines]
        first, last = min(s.epoch for s in states), max(s.epoch for s in states)
        assert last - first <= 1
        assert len({(s.slots, s.used) for s in states if s.epoch == first}) == 1
        assert len({(s.slots, s.used) for s in states if s.epoch == last}) == 1
        net.resume()
    assert first > 3
    net.rounds = [0] * net.n
    net.drain()


def test_dtur_waits_for_a_backbone_edge() -> None:
    rule = build("dtur")
    graph = ring(5)  # backbone 0-1-2-3-4
    seen = view(graph, 0, done=(4,))
    state = rule.start(seen)
    decision, state = rule.decide(seen, state, 0.0)
    assert isinstance(decision, Stay)
    seen.done[1] = 0.0
    decision, state = rule.decide(seen, state, 0.0)
    assert decision == Close("established edge (0, 1) in epoch 0", (Established(0, 0, 0, 1, 0, 0),))
    assert state.used.remaining() == {(1, 2), (2, 3), (3, 4)}
    # In its next round the same edge does not count.
    decision, _ = rule.decide(view(graph, 0, round=2, done=(1,)), state, 0.0)
    assert isinstance(decision, Stay)


def test_two_pairs_do_not_end_a_pathsearch_epoch() -> None:
    rule = build("pathsearch")
    seen = view(path(4), 0, done=())
    state = rule.start(seen)
    state = rule.hear(Established(0, 0, 0, 1, 0, 0), seen, state)
    state = rule.hear(Established(0, 1, 2, 3, 0, 0), seen, state)
    assert (state.epoch, state.used) == (0, (0, 0, 2, 2))
    state = rule.hear(Established(0, 2, 1, 2, 0, 0), seen, state)
    assert (state.epoch, state.used) == (1, (0, 1, 2, 3))


def test_pathsearch_takes_any_edge_between_parts() -> None:
    rule = build("pathsearch")
    seen = view(complete(4), 0)
    state = rule.hear(Established(0, 0, 0, 1, 0, 0), seen, rule.start(seen))
    assert isinstance(rule.decide(view(complete(4), 0, round=2, done=(1,)), state, 0.0)[0], Stay)
    decision, _ = rule.decide(view(complete(4), 0, round=2, done=(1, 3)), state, 0.0)
    assert [edge(news) for news in decision.announce] == [(0, 3)]


# -- crossing announcements ---------------------------------------------------------------------------------------------


@both
def test_the_least_of_crossing_edges_wins_in_any_order(name: str) -> None:
    rule = build(name)
    seen = view(path(5), 0)
    crossing = [
        Established(0, 0, 2, 3, 0, 0),
        Established(0, 0, 1, 2, 0, 0),
        Established(0, 0, 3, 4, 0, 0),
        Established(0, 1, 0, 1, 0, 0),
    ]
    states = set()
    for seed in range(10):
        random.Random(seed).shuffle(crossing)
        state: EpochState = rule.start(seen)
        for news in crossing:
            state = rule.hear(news, seen, state)
        states.add(state)
    (state,) = states
    assert state.slots == ((1, 2), (0, 1))


@both
def test_news_of_a_later_iteration_may_come_first(name: str) -> None:
    rule = build(name)
    seen = view(path(4), 0)
    state = rule.hear(Established(0, 1, 2, 3, 0, 0), seen, rule.start(seen))
    assert state.slots == (None, (2, 3))
    assert state.due == 1
    seen.round = 2
    state = rule.hear(Established(0, 0, 1, 2, 0, 0), seen, state)
    assert state.slots == ((1, 2), (2, 3))
    assert state.due == 1  # an old iteration's news ends no round


@both
def test_news_of_a_later_epoch_is_followed_and_of_an_earlier_one_ignored(name: str) -> None:
    rule = build(name)
    seen = view(path(4), 0)
    state = rule.hear(Established(3, 0, 1, 2, 0, 0), seen, rule.start(seen))
    assert (state.epoch, state.slots) == (3, ((1, 2),))
    assert rule.hear(Established(2, 0, 0, 1, 0, 0), seen, state) == state


@both
def test_a_computing_rank_is_not_disturbed(name: str) -> None:
    rule = build(name)
    seen = view(path(3), 0)
    seen.is_open = False
    state = rule.hear(Established(0, 0, 1, 2, 0, 0), seen, rule.start(seen))
    seen.round, seen.is_open = 2, True
    assert isinstance(rule.decide(seen, state, 0.0)[0], Stay)


# -- departures ---------------------------------------------------------------------------------------------------------


def test_digests_name_sets() -> None:
    digests = [departure_digest(rank) for rank in range(2000)]
    assert len(set(digests)) == 2000
    assert all(0 < digest < 2**62 for digest in digests)
    pairs = {a ^ b for k, a in enumerate(digests[:200]) for b in digests[:k]}
    assert len(pairs) == 199 * 100


@both
def test_departures_in_any_order_come_to_the_same_generation(name: str) -> None:
    rule = build(name)
    ends = []
    for order in ((2, 5), (5, 2)):
        seen = view(ring(8), 0)
        state = rule.start(seen)
        for rank in order:
            seen.departed.add(rank)
            state = rule.departure(rank, seen, state)
            assert (state.epoch, state.slots) == (0, ())
        ends.append(state)
    assert ends[0] == ends[1]
    assert (ends[0].departed, ends[0].digest) == (2, departure_digest(2) ^ departure_digest(5))


@both
def test_news_from_ranks_that_know_of_more_departures_waits_for_them(name: str) -> None:
    rule = build(name)
    seen = view(ring(6), 0)
    digest = departure_digest(2) ^ departure_digest(4)
    early = Established(0, 0, 0, 1, 2, digest)
    state = rule.hear(early, seen, rule.start(seen))
    assert (state.slots, state.due) == ((), 0)
    seen.departed.add(4)
    state = rule.departure(4, seen, state)
    assert state.slots == ()
    seen.departed.add(2)
    state = rule.departure(2, seen, state)
    assert state.slots == ((0, 1),) or state.epoch == 1
    assert (state.due, state.pending) == (1, ())


@both
def test_news_of_the_past_and_of_other_departures_is_dropped(name: str) -> None:
    rule = build(name)
    seen = view(ring(6), 0, departed=frozenset({3}))
    state = rule.departure(3, seen, rule.start(view(ring(6), 0)))
    assert rule.hear(Established(0, 0, 0, 1, 0, 0), seen, state) == state
    assert rule.hear(Established(0, 0, 0, 1, 1, departure_digest(4)), seen, state) == state


@both
def test_a_split_graph_goes_on_in_parts(name: str) -> None:
    """A path of seven loses its middle; one part is fifty times faster. The slow part has its own epochs, at its own pace."""
    net = Watched(
        path(7),
        build(name),
        rounds=[750, 750, 750, 10**6, 14, 14, 14],
        deaths={3: 1.5},
        compute=lambda i, r: (0.02 if i < 3 else 1.0) * r.uniform(0.9, 1.1),
        delay=lambda r: 1e-3,
    )
    net.run()
    parts: dict[bool, dict[int, set[Edge]]] = {True: defaultdict(set), False: defaultdict(set)}
    for rank, news, _ in net.backed:
        if news.departed == 1:
            parts[rank > 3][news.epoch].add(edge(news))
    for part, edges in ((False, {(0, 1), (1, 2)}), (True, {(4, 5), (5, 6)})):
        last = max(parts[part])
        assert sorted(parts[part]) == list(range(last + 1))
        assert all(parts[part][number] == edges for number in range(last))
    assert max(parts[False]) > 10 * max(parts[True]) > 30
    assert [len(records) for records in net.records[4:]] == [14, 14, 14]


@both
def test_news_of_another_part_leaves_no_trace(name: str) -> None:
    rule = build(name)
    seen = view(path(5), 0, departed=frozenset({2}))
    state = rule.departure(2, seen, rule.start(view(path(5), 0)))
    assert rule.hear(Established(9, 4, 3, 4, 1, departure_digest(2)), seen, state) == state


@both
@pytest.mark.parametrize("seed", range(10))
def test_epochs_go_on_after_departures(name: str, seed: int) -> None:
    """In every generation: an epoch that is over joined all that were left, part by part."""
    draw = random.Random(seed)
    graph = connected(7, seed)
    deaths = {rank: draw.uniform(3, 15) for rank in draw.sample(range(7), 2)}
    net = Watched(graph, build(name), rounds=30, seed=seed, deaths=deaths, delay=lambda r: r.expovariate(200))
    net.run()
    order = sorted(deaths, key=deaths.__getitem__)
    gone = frozenset(order)
    digest = departure_digest(order[0]) ^ departure_digest(order[1])
    for part in components(graph, gone):
        heard = [(rank, news) for rank, news in net.announced if rank in part]
        by_epoch = epochs(heard).get((2, digest), {})
        for number in range(max(by_epoch, default=0)):
            used = {e for _, edges in by_epoch[number] for e in edges}
            if name == "dtur":
                assert used == {e for e in backbone(graph, gone) if e[0] in part}
            else:
                index = {rank: k for k, rank in enumerate(part)}
                assert joined(len(part), {(index[i], index[j]) for i, j in used}) == 1


def stopped(graph: Adjacency, rank: int, name: str, seed: int) -> Watched:
    """``rank`` stops in its first step; the others make 40 rounds."""
    rounds = [1 if i == rank else 40 for i in graph]
    return Watched(
        graph,
        build(name),
        rounds=rounds,
        seed=seed,
        compute=lambda i, r: 1e6 if i == rank else r.uniform(0.5, 1.5),
        delay=lambda r: 0.001,
        stuck_after=10.0,
    )


@both
@on_graphs
@pytest.mark.parametrize("seed", range(3))
def test_epochs_go_on_without_a_stopped_rank_and_pass_no_other_edge(name: str, graph: str, seed: int) -> None:
    adjacency = GRAPHS[graph]
    victim = seed % len(adjacency)
    net = stopped(adjacency, victim, name, seed).run()
    while_stopped = [entry for entry in net.backed if victim not in (entry[0],)]
    assert max(news.epoch for _, news, _ in while_stopped) >= 2
    for rank, news, done in while_stopped:
        (other,) = {news.i, news.j} - {rank}
        assert (other in done) or other == victim


@both
def test_an_edge_to_a_silent_rank_passes_when_nothing_else_is_awaited(name: str) -> None:
    rule, seen = build(name), view(path(4), 1, done=(0,))
    state = rule.start(seen)
    state = rule.hear(Established(0, 0, 0, 1, 0, 0), seen, state)._replace(due=0)
    assert isinstance(rule.decide(seen, state, 0.0)[0], Stay)
    seen.awaited = {0}
    decision, after = rule.decide(seen, state, 0.0)
    assert decision == Close("edge (1, 2) to a silent rank passes as established in epoch 0", (Established(0, 1, 1, 2, 0, 0),))
    again, _ = rule.decide(seen, after._replace(due=0), 0.0)
    assert again == Close("all neighbours have exchanged but those that are silent")
