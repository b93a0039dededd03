"""A parameter server on a virtual clock: what holds whatever the rule, the times and the departures, and where theory knows."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from consensus.errors import ConfigError, ProtocolError
from consensus.protocol.commands import Command, GiveModel, SendControl
from consensus.protocol.events import Applied, Event, GradientTaken, ModelTaken
from consensus.protocol.messages import WIRE_BYTES, Push
from consensus.protocol.rounds import Phase, RoundRecord
from consensus.protocol.service import SERVER, PushMode, Verdict
from consensus.rules.backup import Backup
from consensus.rules.serving import SERVER_RULES, build_server
from consensus.sim.served import ServedNetwork
from consensus.sim.sites import Chunks, StillServer
from consensus.timing import ComputeTime, Constant, Link, Pareto, ShiftedExponential, Stream
from consensus.types import Rank, Seconds
from tests.served_worlds import EVERY_RULE_AND_PUSH, EVERY_SERVER_RULE

RULES: list[tuple[str, dict[str, Any]]] = [
    ("bsp", {}),
    ("backup", {"b": 0}),
    ("backup", {"b": 1}),
    ("backup", {"b": 3}),
    ("asp", {}),
    ("ssp", {"s": 0}),
    ("ssp", {"s": 2}),
    ("dbw", {}),
    ("elastic", {"R": 1}),
    ("elastic", {"R": 4, "objective": "rate"}),
]


def modes(name: str) -> list[PushMode]:
    return ["wait", "interrupt", "pull"] if SERVER_RULES[name].synchronous else ["pull"]


COMBINATIONS = [(name, parameters, push) for name, parameters in RULES for push in modes(name)]
INSTANT = Link(latency=0.0, bandwidth=math.inf)


def pack(*numbers: float) -> NDArray[np.uint8]:
    return np.array(numbers, np.float64).view(np.uint8)


def unpack(data: NDArray[np.uint8]) -> tuple[float, ...]:
    return tuple(data.view(np.float64))


class Site:
    """Memory that is lent, and a single chunk that is sent; ``here`` is what came of each peer and is of use yet."""

    def __init__(self) -> None:
        self.here: dict[int, NDArray[np.uint8]] = {}

    def release(self, peer: int, index: int) -> None:
        """The chunk is a copy."""

    def lend(self, peer: int, index: int) -> NDArray[np.uint8]:
        return np.zeros(16, np.uint8)

    def deliver(self, peer: int, index: int, data: NDArray[np.uint8]) -> None:
        self.here[peer] = data


class WorkerLedger(Site):
    """Computes serial numbers instead of gradients, and says at which version."""

    def __init__(self) -> None:
        super().__init__()
        self.versions: list[int] = [0]
        self.serial = 0

    def outgoing(self, peer: int) -> Chunks:
        self.serial += 1
        return [pack(self.serial, self.versions[-1])]

    def step(self, round: int) -> float:
        return 1.0 / round

    def taken(self, peer: int) -> Event:
        return ModelTaken(peer)

    def install(self) -> None:
        self.versions.append(int(unpack(self.here[SERVER])[0]))


class ServerLedger(Site):
    """Keeps account of every gradient; some it declares not finite."""

    def __init__(self, rejected: float, seed: int) -> None:
        super().__init__()
        self.version = 0
        self.applied: list[tuple[int, int, int, int]] = []  # (version before, worker, serial, computed at)
        self.dismissed: list[tuple[int, int]] = []
        self.refused = 0
        self._rejected, self._random = rejected, np.random.default_rng(seed)

    def deliver(self, peer: int, index: int, data: NDArray[np.uint8]) -> None:
        assert peer not in self.here, "it is written over before it was judged"
        super().deliver(peer, index, data)

    def outgoing(self, peer: int) -> Chunks:
        return [pack(self.version, 0.0)]

    def taken(self, peer: int) -> Event:
        refused = self._random.random() < self._rejected
        self.refused += refused
        return GradientTaken(peer, math.nan if refused else 1.0)

    def apply(self, workers: Sequence[int], factor: float) -> Event:
        for worker in workers:
            serial, computed_at = unpack(self.here.pop(worker))
            self.applied.append((self.version, worker, int(serial), int(computed_at)))
        self.version += 1
        return Applied(1.0 / len(workers), factor)

    def discard(self, peer: int) -> None:
        self.dismissed.append((peer, int(unpack(self.here.pop(peer))[0])))


class Drama:
    """A run with an account of all that happened."""

    def __init__(
        self,
        rule: str,
        parameters: dict[str, Any],
        push: PushMode,
        times: Sequence[ComputeTime],
        steps: Sequence[int],
        link: Link = INSTANT,
        seed: int = 0,
        rejected: float = 0.0,
    ) -> None:
        self.steps, n = steps, len(times)
        self.server, self.workers = ServerLedger(rejected, seed), [WorkerLedger() for _ in range(n)]
        self.updates: list[RoundRecord] = []
        self.rounds: list[tuple[int, RoundRecord]] = []
        self.spoken: Counter[tuple[int, type]] = Counter()
        self.network = ServedNetwork(
            build_server(rule, **parameters),
            [model.stream(rank, seed) for rank, model in enumerate(times, 1)],
            link,
            stop=lambda rank, round: round >= steps[rank - 1],
            push=push,
            server=self.server,
            workers=self.workers,
            model_bytes=16,
            on_round=self._round,
            recorders=[self._recorder(rank) for rank in range(n + 1)],
        )
        self.engine = self.network.engine
        self.network.run()

    def _round(self, rank: int, record: RoundRecord, compute: float) -> None:
        assert compute >= 0.0
        if rank == SERVER:
            self.updates.append(record)
            self.at_update()
        else:
            self.rounds.append((rank, record))

    def _recorder(self, rank: int) -> Any:
        def take_down(now: float, event: Event, commands: list[Command]) -> None:
            for command in commands:
                self.spoken[rank, type(command)] += 1
                if isinstance(command, SendControl):
                    self.spoken[rank, type(command.message)] += 1

        return take_down

    def at_update(self) -> None:
        """What a rule promises of any moment."""
        view, rule = self.engine.view, self.engine.rule
        counts = [view.iterations[worker] for worker in view.workers]
        if rule.name == "ssp" and counts:
            assert max(counts) - min(counts) <= rule.s + 1  # type: ignore[attr-defined]
        if rule.name == "elastic":
            state = self.engine.rule_state
            assert all(state.done[worker] <= quota <= rule.R for worker, quota in state.quotas.items())  # type: ignore[attr-defined]


TIMES: st.SearchStrategy[ComputeTime] = st.one_of(
    st.sampled_from([Constant(1.0), Constant(2.0), Constant(0.0), Constant(0.3)]),
    st.builds(ShiftedExponential, st.sampled_from([0.0, 0.5]), st.floats(0.1, 3.0)),
    st.builds(Pareto, st.just(0.2), st.floats(1.1, 3.0)),
)


@st.composite
def dramas(draw: st.DrawFn) -> dict[str, Any]:
    rule, parameters, push = draw(st.sampled_from(COMBINATIONS))
    n = draw(st.integers(1 + parameters.get("b", 0), 6))
    return {
        "rule": rule,
        "parameters": parameters,
        "push": push,
        "times": draw(st.lists(TIMES, min_size=n, max_size=n)),
        "steps": draw(st.lists(st.integers(1, 25), min_size=n, max_size=n)),
        "link": draw(st.sampled_from([INSTANT, Link(0.01, 100.0), Link(0.5, 20.0, {(0, 1): 5.0})])),
        "seed": draw(st.integers(0, 1000)),
        "rejected": draw(st.sampled_from([0.0, 0.0, 0.15])),
    }


@settings(max_examples=300)
@given(dramas())
def test_what_always_holds(cast: dict[str, Any]) -> None:
    drama = Drama(**cast)
    engine, server, workers = drama.engine, drama.server, drama.workers
    n = len(workers)

    # It ends, the server last.
    assert {each.phase for each in (engine, *drama.network.workers)} == {Phase.FINISHED}
    assert not any(math.isnan(at) for at in drama.network.ended_at)
    assert drama.network.ended_at[SERVER] == max(drama.network.ended_at)
    assert [each.round for each in drama.network.workers] == list(cast["steps"])

    # Every gradient that was pushed has one fate.
    pushed = {(rank, serial + 1) for rank, worker in enumerate(workers, 1) for serial in range(worker.serial)}
    fates = Counter([(worker, serial) for _, worker, serial, _ in server.applied] + server.dismissed)
    assert fates == Counter(pushed)
    assert not server.here
    # One that leaves has been given newer weights, so its last gradient was judged: none arrives afterwards.
    assert engine.rejected.total() == server.refused
    assert engine.rejected.total() + engine.discarded.total() + len(server.applied) == len(pushed)
    for rank, (worker, each) in enumerate(zip(workers, drama.network.workers, strict=True), 1):
        assert worker.serial + each.dropped == drama.steps[rank - 1]

    # Versions follow one another, and no worker is taken back to an older one.
    assert [record.round for record in drama.updates] == list(range(1, server.version + 1))
    assert engine.round == server.version
    for worker in workers:
        assert worker.versions == sorted(worker.versions)
        if not server.refused:
            assert len(set(worker.versions)) == len(worker.versions)

    # Staleness.
    if engine.rule.synchronous:
        assert all(before == computed_at for before, _, _, computed_at in server.applied)
        accepted = Counter((before, worker) for before, worker, _, _ in server.applied)
        assert not accepted or max(accepted.values()) == 1
    if engine.rule.name == "bsp":
        assert not engine.discarded
    if cast["push"] == "pull":
        assert not sum(each.dropped for each in drama.network.workers)

    # Bytes: a push is a message and a gradient; so are weights; everybody says goodbye to everybody.
    for rank, node in enumerate(drama.network.workers, 1):
        fetches = drama.spoken[rank, SendControl] - drama.spoken[rank, Push]
        assert fetches == 0 if cast["push"] == "pull" else fetches <= drama.spoken[SERVER, GiveModel]
        serial = workers[rank - 1].serial
        assert drama.network.bytes_sent(node.rank) == serial * (WIRE_BYTES + 16) + (fetches + n) * WIRE_BYTES
    given_away = drama.spoken[SERVER, GiveModel]
    assert drama.network.bytes_sent(SERVER) == given_away * (WIRE_BYTES + 16) + n * WIRE_BYTES


@settings(max_examples=40)
@given(dramas())
def test_it_is_a_function_of_its_seed(cast: dict[str, Any]) -> None:
    one, other = Drama(**cast), Drama(**cast)
    assert one.updates == other.updates
    assert one.rounds == other.rounds
    assert one.server.applied == other.server.applied
    assert one.network.ended_at == other.network.ended_at


# -- where theory knows -----------------------------------------------------------------------------------------------------


def mean_round(rule: str, push: PushMode, n: int, rounds: int, seed: int = 3, **parameters: Any) -> float:
    """Mean seconds between updates, steps exponential of mean 1, nothing on the way."""
    times = ShiftedExponential(0.0, 1.0)
    streams = [times.stream(rank, seed) for rank in range(1, n + 1)]
    network = ServedNetwork(build_server(rule, **parameters), streams, INSTANT, stop=lambda rank, round: False, push=push)
    made: list[float] = []
    network.on_round = lambda rank, record, _: made.append(record.closed_at) if rank == SERVER else None
    while len(made) < rounds:
        network.run(until=network.kernel.now + 100.0)
    return made[rounds - 1] / rounds


def order_statistic(k: int, n: int) -> tuple[float, float]:
    """Mean and standard deviation of the k-th of n exponentials of mean 1."""
    parts = [1.0 / i for i in range(n - k + 1, n + 1)]
    return sum(parts), math.sqrt(sum(part * part for part in parts))


@pytest.mark.parametrize("push", ["wait", "interrupt", "pull"])
def test_a_round_of_bsp_is_the_slowest_step(push: PushMode) -> None:
    mean, deviation = order_statistic(8, 8)
    assert mean_round("bsp", push, 8, 1000) == pytest.approx(mean, abs=4 * deviation / math.sqrt(1000))


@pytest.mark.parametrize("b", [1, 3, 7])
def test_under_interruption_a_round_is_the_last_step_but_b(b: int) -> None:
    mean, deviation = order_statistic(8 - b, 8)
    assert mean_round("backup", "interrupt", 8, 1000, b=b) == pytest.approx(mean, abs=4 * deviation / math.sqrt(1000))


def test_without_interruption_busy_workers_make_a_round_longer() -> None:
    """Half of eight begin with the version; the others have a step of exponential length to finish before."""
    draws = np.random.default_rng(0).exponential(size=(2, 20_000, 8))
    draws[1, :, :4] = 0.0
    fourth = np.sort(draws.sum(axis=0), axis=1)[:, 3]
    assert mean_round("backup", "wait", 8, 1500, b=4) == pytest.approx(fourth.mean(), abs=4 * fourth.std() / math.sqrt(1500))


def test_asynchrony_adds_up_the_rates() -> None:
    seconds = [0.5, 1.0, 0.25, 0.2]
    streams = [Constant(each).stream(rank, 0) for rank, each in enumerate(seconds, 1)]
    network = ServedNetwork(build_server("asp"), streams, INSTANT, stop=lambda rank, round: False, push="pull")
    network.run(until=100.1)
    assert network.engine.round == sum(round(100 / each) for each in seconds)


def test_lockstep_has_the_pace_of_the_slowest() -> None:
    drama = Drama("ssp", {"s": 0}, "pull", [Constant(0.5), Constant(2.0)], [10, 10])
    assert drama.network.ended_at == [20.0, 20.0, 20.0]


def test_the_time_of_a_round_is_that_of_its_parts() -> None:
    """Step, push, and weights: two messages and two transfers, which begin when the message is here."""
    link = Link(latency=0.1, bandwidth=160.0)  # 0.2 s for 16 bytes
    drama = Drama("bsp", {}, "pull", [Constant(1.0)] * 3, [4] * 3, link)
    message = 0.1 + WIRE_BYTES / 160.0
    assert [record.closed_at for record in drama.updates] == pytest.approx(
        [1.0 + message + 0.2 + k * (1.0 + 2 * message + 0.4) for k in range(4)]
    )


# -- what is refused --------------------------------------------------------------------------------------------------------


def stream(seconds: float) -> Stream:
    return Stream(iter([seconds] * 9))


def test_sizes_and_steps_that_cannot_be() -> None:
    def network(seconds: float = 1.0, **sizes: int) -> ServedNetwork:
        return ServedNetwork(build_server("bsp"), [stream(seconds)], INSTANT, stop=lambda *_: True, push="wait", **sizes)

    with pytest.raises(ConfigError, match="model_bytes = -1"):
        network(model_bytes=-1)
    with pytest.raises(ConfigError, match="takes nan s"):
        network(math.nan).run()


class Deaf:
    """A rule that never lets anybody go on."""

    name = "deaf"
    synchronous = True
    uses_losses = False

    def fit(self, workers: int) -> None:
        """Suits all."""

    def start(self, view: Any, now: float) -> None:
        """Know nothing."""

    def decide(self, view: Any, arrival: Any, state: Any, now: float) -> Any:
        return Verdict("deaf to all"), None


def test_ranks_that_wait_for_ever() -> None:
    streams = [stream(1.0), stream(2.0)]
    network = ServedNetwork(Deaf(), streams, INSTANT, stop=lambda *_: False, push="wait")  # type: ignore[arg-type]
    with pytest.raises(ProtocolError, match=r"ranks \[0, 1, 2\] wait, and nothing can happen any more") as error:
        network.run()
    assert "deaf to all" in str(error.value)
    assert "rank 2 waits for weights of rank 0 newer than version 0" in str(error.value)


@pytest.mark.parametrize(("rule", "push"), EVERY_RULE_AND_PUSH)
def test_shards_do_as_one_server_does_where_messages_take_no_time(rule: str, push: PushMode) -> None:
    """Then orders and reports take none either, and every rule decides the same at the same times."""

    def ends(servers: int) -> tuple[int, list[float], list[tuple[float, float, str]]]:
        updates: list[tuple[float, float, str]] = []

        def on_round(rank: Rank, record: RoundRecord, seconds: Seconds) -> None:
            if rank == 0:
                updates.append((record.opened_at, record.closed_at, record.reason))

        model = ShiftedExponential(shift=0.5, mean=1.0)
        network = ServedNetwork(
            EVERY_SERVER_RULE[rule] if rule != "dbw" else Backup(b=2),
            [model.stream(worker, 3) for worker in range(5)],
            INSTANT,
            stop=lambda rank, done: done >= 30,
            push=push,
            followers=[StillServer() for _ in range(servers - 1)],
            on_round=on_round,
        )
        network.run()
        return network.engine.round, network.ended_at[servers:], updates

    one, three = ends(1), ends(3)
    assert one[1] == three[1]
    assert [update[:2] for update in one[2]] == [update[:2] for update in three[2]]
    assert one[0] == three[0] > 0
