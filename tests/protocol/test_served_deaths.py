"""A server's and its workers' engines under any order of events, and workers that die at any moment.

What a dead rank has sent arrives or does not, in order; then its death is told, once, and after that nothing of it. A rank that
hears of a death from another is told of it right after, as the transports' contract says.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from consensus.protocol.commands import Command, Discard, DropModel, GiveModel, SendControl, TakeModel
from consensus.protocol.events import Control, PeerLost
from consensus.protocol.messages import Leave
from consensus.protocol.rounds import Phase
from consensus.protocol.service import PushMode
from tests.protocol.test_served_races import COMBINATIONS, SERVER, Direction, World

DEAD: Any = object()
"""In a queue of messages: their sender's death."""


class MortalWorld(World):
    """A world in which some workers die."""

    def __init__(self, rule: str, parameters: dict[str, Any], push: PushMode, n: int, seed: int) -> None:
        super().__init__(rule, parameters, push, n, seed)
        self.victims = set(self.random.sample(range(1, n + 1), self.random.randrange(1, n + 1)))
        self.dead: set[int] = set()
        self.told: set[tuple[int, int]] = set()

    def possible(self) -> list[Callable[[], None]]:
        found = super().possible()
        for rank in sorted(self.victims & self.workers.keys()):
            # Often just after the goodbye, when the server is about to end and has transfers with it under way.
            if self.random.random() < (0.2 if self.workers[rank].phase is Phase.LEFT else 0.02):
                found.append(partial(self.die, rank))
        return found

    def die(self, rank: int) -> None:
        del self.workers[rank]
        self.dead.add(rank)
        for other in {SERVER, *self.workers}:
            messages = self.controls.setdefault((rank, other), deque())
            while messages and self.random.random() < 0.5:
                messages.pop()
            messages.append(DEAD)
        self.controls = {pair: messages for pair, messages in self.controls.items() if pair[1] != rank}
        way = self.way(rank, SERVER)
        way.leaving = 0
        if self.random.random() < 0.5:
            way.given.clear()
        self.way(SERVER, rank).asked = False

    def hear(self, sender: int, peer: int) -> None:
        message = self.controls[sender, peer].popleft()
        if message is DEAD:
            self.lose(sender, peer)
            return
        self.feed(peer, Control(sender, message))
        if isinstance(message, Leave) and message.who != sender:
            self.lose(message.who, peer)

    def lose(self, dead: int, peer: int) -> None:
        if (dead, peer) in self.told:
            return
        self.told.add((dead, peer))
        self.controls.pop((dead, peer), None)
        self.directions[dead, peer] = Direction()
        self.directions[peer, dead] = Direction()
        self.feed(peer, PeerLost(dead))

    def carry_out(self, rank: int, command: Command) -> None:
        match command:
            case SendControl(peer, _) if peer in self.dead:
                pass
            case GiveModel(peer) | TakeModel(peer) if (peer, rank) in self.told:
                pass
            case DropModel(peer):
                assert (peer, rank) in self.told or self.controls.get((peer, rank)), "dropped, but it is alive"
                if peer in self.slots and self.slots[peer] is None:
                    del self.slots[peer]
            case Discard(peer) if peer in self.dead:
                gradient = self.slots.pop(peer, None)
                if gradient is not None:
                    self.fates[gradient] += 1
            case _:
                super().carry_out(rank, command)

    def check_quiet(self, rank: int) -> None:
        for (_, peer), messages in self.controls.items():
            assert peer != rank or not messages or messages[0] is DEAD
        for (giver, taker), way in self.directions.items():
            assert giver != rank or not way.leaving
            assert taker != rank or not (way.given or way.asked)


@pytest.mark.parametrize(("rule", "parameters", "push"), COMBINATIONS)
def test_any_order_with_deaths_ends_well(rule: str, parameters: dict[str, Any], push: PushMode) -> None:
    died = 0
    for seed in range(60):
        world = MortalWorld(rule, parameters, push, n=random.Random(seed).randrange(3, 6), seed=seed)
        world.run()
        died += len(world.dead)
        assert {engine.phase for engine in (world.server, *world.workers.values())} == {Phase.FINISHED}, seed
        assert not world.slots, seed
        assert set(world.fates.values()) <= {1}, seed
        living = {gradient for gradient in world.fates if gradient.worker in world.workers}
        assert len(living) == sum(world.serials[worker] for worker in world.workers), seed
        assert world.server.round == world.version
        assert not (world.server.deserted and world.workers)
    assert died > 20
