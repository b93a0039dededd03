"""A server's and its workers' engines under any order of what may come in any order.

Messages of one sender keep their order; nothing else is promised: a gradient has left long before it is here, or long after, a
push overtakes the gradient before it, and a rank that leaves does so whenever it likes. Memory is lent when it is asked for.
"""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest

from consensus.protocol.commands import Apply, Broadcast, Command, Discard, Finish, GiveModel, Install, SendControl, TakeModel
from consensus.protocol.events import Applied, Control, Event, GradientTaken, LeaveWanted, ModelGiven, ModelTaken, StepDone
from consensus.protocol.messages import Message
from consensus.protocol.rounds import Phase
from consensus.protocol.server import ServerEngine
from consensus.protocol.service import PushMode
from consensus.protocol.worker import WorkerEngine
from consensus.rules.serving import build_server

SERVER = 0
COMBINATIONS: list[tuple[str, dict[str, Any], PushMode]] = [
    *((name, parameters, push) for name, parameters in [("bsp", {}), ("backup", {"b": 1}), ("backup", {"b": 2}), ("dbw", {})]
      for push in ("wait", "interrupt", "pull")),
    ("asp", {}, "pull"),
    ("ssp", {"s": 0}, "pull"),
    ("ssp", {"s": 1}, "pull"),
    ("elastic", {"R": 2}, "pull"),
]  # fmt: skip


@dataclass
class Direction:
    """Transfers one way between two ranks: given and not yet here, asked for or not, and what has not been seen to leave."""

    given: deque[Any] = field(default_factory=deque)
    leaving: int = 0
    asked: bool = False


@dataclass(frozen=True)
class Gradient:
    """The ``serial``-th of ``worker``, at weights of ``version``."""

    worker: int
    serial: int
    version: int
    finite: bool


class World:
    """Engines, and all that is under way between them."""

    def __init__(self, rule: str, parameters: dict[str, Any], push: PushMode, n: int, seed: int) -> None:
        self.random = random.Random(seed)
        self.server = ServerEngine(
            SERVER, range(1, n + 1), build_server(rule, **parameters), push=push, factor=lambda k, n: 1.0, now=0.0
        )
        self.workers = {rank: WorkerEngine(rank, SERVER, n + 1, push=push) for rank in range(1, n + 1)}
        self.steps = {rank: self.random.randrange(1, 12) for rank in self.workers}
        self.errs, self.hasty = self.random.choice([0.0, 0.2]), self.random.choice([0.0, 0.01])
        self.now = 0.0
        self.controls: dict[tuple[int, int], deque[Message]] = {}
        self.directions: dict[tuple[int, int], Direction] = {}
        self.slots: dict[int, Gradient | None] = {}  # None: lent, and not here yet
        self.landed: dict[int, int] = {}
        self.installed = {rank: [0] for rank in self.workers}
        self.serials: Counter[int] = Counter()
        self.version = 0
        self.fates: Counter[Gradient] = Counter()
        self.applied: list[tuple[int, Gradient]] = []

    def way(self, giver: int, taker: int) -> Direction:
        return self.directions.setdefault((giver, taker), Direction())

    # -- what may happen next -----------------------------------------------------------------------------------------------

    def possible(self) -> list[Callable[[], None]]:
        found: list[Callable[[], None]] = []
        for (sender, peer), messages in self.controls.items():
            if messages:
                found.append(partial(self.hear, sender, peer))
        for (giver, taker), way in self.directions.items():
            if way.leaving:
                found.append(partial(self.leave, giver, taker))
            if way.asked and way.given:
                found.append(partial(self.land, giver, taker))
        for rank, worker in self.workers.items():
            if worker.phase is Phase.COMPUTING or (worker.phase is Phase.OPEN and self.random.random() < self.hasty):
                over = worker.round >= self.steps[rank] or worker.phase is Phase.OPEN
                found.append(partial(self.feed, rank, LeaveWanted() if over else StepDone()))
        return found

    def run(self) -> None:
        while possible := self.possible():
            self.now += 0.1
            self.random.choice(possible)()

    def hear(self, sender: int, peer: int) -> None:
        self.feed(peer, Control(sender, self.controls[sender, peer].popleft()))

    def leave(self, giver: int, taker: int) -> None:
        self.way(giver, taker).leaving -= 1
        self.feed(giver, ModelGiven(taker))

    def land(self, giver: int, taker: int) -> None:
        way = self.way(giver, taker)
        way.asked = False
        what = way.given.popleft()
        if taker == SERVER:
            assert self.slots[giver] is None
            self.slots[giver] = what
            self.feed(SERVER, GradientTaken(giver, 1.0 if what.finite else float("nan")))
        else:
            self.landed[taker] = what
            self.feed(taker, ModelTaken(giver))

    # -- what engines command -----------------------------------------------------------------------------------------------

    def feed(self, rank: int, event: Event) -> None:
        engine = self.server if rank == SERVER else self.workers[rank]
        if isinstance(engine, WorkerEngine):
            engine.loss = 1.0 / (1 + engine.version)
        for command in engine.handle(event, self.now):
            self.carry_out(rank, command)

    def carry_out(self, rank: int, command: Command) -> None:
        match command:
            case SendControl(peer, message):
                self.controls.setdefault((rank, peer), deque()).append(message)
            case Broadcast(message):
                for peer in {SERVER, *self.workers} - {rank}:
                    self.controls.setdefault((rank, peer), deque()).append(message)
            case GiveModel(peer):
                way = self.way(rank, peer)
                assert not way.leaving, "two transfers at a time"
                way.leaving += 1
                way.given.append(self.version if rank == SERVER else self.gradient(rank))
            case TakeModel(peer):
                way = self.way(peer, rank)
                assert not way.asked, "two transfers at a time"
                way.asked = True
                if rank == SERVER:
                    assert peer not in self.slots, "its memory is still in use"
                    self.slots[peer] = None
            case Discard(peer):
                self.judge(peer)
            case Apply(workers, _):
                self.applied += [(self.version, self.judge(worker)) for worker in workers]
                self.version += 1
                self.feed(SERVER, Applied(1.0 / len(workers), 0.1))
            case Install():
                self.installed[rank].append(self.landed[rank])
            case Finish():
                self.check_quiet(rank)

    def gradient(self, rank: int) -> Gradient:
        self.serials[rank] += 1
        return Gradient(rank, self.serials[rank], self.installed[rank][-1], self.random.random() >= self.errs)

    def judge(self, worker: int) -> Gradient:
        gradient = self.slots.pop(worker)
        assert gradient is not None, "it is not here yet"
        self.fates[gradient] += 1
        return gradient

    def check_quiet(self, rank: int) -> None:
        """Nothing is on its way to ``rank``, and all of its own has left."""
        assert not any(messages for (_, peer), messages in self.controls.items() if peer == rank)
        for (giver, taker), way in self.directions.items():
            assert giver != rank or not way.leaving
            assert taker != rank or not (way.given or way.asked)


@pytest.mark.parametrize(("rule", "parameters", "push"), COMBINATIONS)
def test_any_order_ends_well(rule: str, parameters: dict[str, Any], push: PushMode) -> None:
    for seed in range(80):
        world = World(rule, parameters, push, n=random.Random(seed).randrange(3, 6), seed=seed)
        world.run()
        assert {engine.phase for engine in (world.server, *world.workers.values())} == {Phase.FINISHED}, seed
        assert sum(world.fates.values()) == len(world.fates) == world.serials.total(), seed
        assert not world.slots
        assert world.server.round == world.version
        assert not any(gradient.finite is False for _, gradient in world.applied)
        for versions in world.installed.values():
            assert versions == sorted(versions), seed
            assert world.errs or len(set(versions)) == len(versions), seed
        if world.server.rule.synchronous:
            assert all(before == gradient.version for before, gradient in world.applied), seed
            taken = [(gradient.worker, gradient.version) for _, gradient in world.applied]
            assert len(set(taken)) == len(taken), seed
