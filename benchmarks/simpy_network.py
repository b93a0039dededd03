"""The simulated network once more, written in SimPy: the same protocol, rule and messages, without our engines or kernel.

Workers are processes and inboxes are stores. A message on its way is a process that waits and puts it there, which is how SimPy's
documentation writes latency; or, quicker, a bare timeout with a callback. The protocol is written out for the one rule, without
what our engines keep besides: records with reasons, the last events, departures of any kind, any other rule.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import simpy

IDLE, OFFERED, MOVING, DONE = range(4)

Message: TypeAlias = tuple[Any, ...]
"""What, from whom, and what it says."""


class Edge:
    """One end of an edge."""

    def __init__(self) -> None:
        self.state, self.ready, self.partner = IDLE, 0, 0
        self.engaged: tuple[int, int] | None = None


class Worker:
    """A rank under the rule static_backup."""

    def __init__(self, network: SimpyNetwork, rank: int, neighbours: Sequence[int], durations: Iterator[float]) -> None:
        self.network, self.rank, self.durations = network, rank, durations
        self.inbox = simpy.Store(network.env)
        self.edges = {peer: Edge() for peer in neighbours}
        self.living = set(neighbours)
        self.round = self.busy = self.done = self.rounds = 0
        self.open = False
        self.finished = 0.0
        self.asked: set[int] = set()
        self.handlers = {
            "ready": self.ready,
            "engage": self.engage,
            "closed": self.withdrawn,
            "swapped": self.swapped,
            "leave": self.left,
        }

    def run(self) -> Generator[simpy.Event, Any, None]:
        """All rounds, and the goodbye."""
        inbox, env = self.inbox, self.network.env
        while self.rounds < self.network.rounds:
            yield env.timeout(next(self.durations))
            while inbox.items:
                self.handle((yield inbox.get()))
            self.begin()
            while not self.may_close():
                self.handle((yield inbox.get()))
            self.close()
        for peer in self.edges:
            self.send(peer, ("leave", self.rank))
        self.finished = env.now
        self.network.ended = max(self.network.ended, self.finished)

    def handle(self, message: Message) -> None:
        """Take a message."""
        kind, *rest = message
        self.handlers[kind](*rest)

    def send(self, peer: int, message: Message) -> None:
        """Put a message on its way."""
        self.network.send(peer, message)

    def begin(self) -> None:
        """Open a round."""
        self.round += 1
        self.open = True
        self.done = 0
        for peer, edge in self.edges.items():
            edge.state, edge.partner = IDLE, 0
            if edge.ready:
                self.offer(peer, edge)
            elif peer in self.living:
                self.send(peer, ("ready", self.rank, self.round))

    def offer(self, peer: int, edge: Edge) -> None:
        """Say that this round wants the peer's."""
        edge.state, edge.partner = OFFERED, edge.ready
        self.busy += 1
        self.send(peer, ("engage", self.rank, self.round, edge.ready))
        self.move_if_agreed(peer, edge)

    def ready(self, peer: int, round: int) -> None:
        """The peer's round is open."""
        edge = self.edges[peer]
        edge.ready = round
        if self.open and edge.state == IDLE:
            self.offer(peer, edge)

    def engage(self, peer: int, theirs: int, mine: int) -> None:
        """The peer's round wants one of mine."""
        edge = self.edges[peer]
        edge.engaged = (theirs, mine)
        if edge.state == OFFERED:
            self.move_if_agreed(peer, edge)
        else:
            self.ready(peer, theirs)

    def move_if_agreed(self, peer: int, edge: Edge) -> None:
        """Move models when both ends want the same two rounds."""
        if edge.engaged == (edge.partner, self.round):
            edge.state, edge.ready, edge.engaged = MOVING, 0, None
            self.network.swap(self, peer)

    def swapped(self, peer: int) -> None:
        """The models have moved."""
        self.edges[peer].state = DONE
        self.busy -= 1
        self.done += 1

    def withdrawn(self, peer: int, round: int) -> None:
        """The peer's round has closed."""
        edge = self.edges[peer]
        if edge.ready == round:
            edge.ready = 0
        if edge.partner == round and edge.state == OFFERED:
            edge.state, edge.partner = IDLE, 0
            self.busy -= 1

    def left(self, peer: int) -> None:
        """The peer makes no more rounds."""
        edge = self.edges[peer]
        edge.ready = 0
        self.living.discard(peer)
        if self.open and edge.state == OFFERED:
            edge.state, edge.partner = IDLE, 0
            self.busy -= 1

    def may_close(self) -> bool:
        """The rule: all living neighbours but b."""
        if self.busy:
            return False
        quota = max(1, len(self.living) - self.network.b)
        return self.done >= quota or all(self.edges[peer].state == DONE for peer in self.living)

    def close(self) -> None:
        """Close the round."""
        self.open = False
        self.rounds += 1
        for peer, edge in self.edges.items():
            if peer in self.living and edge.state != DONE:
                self.send(peer, ("closed", self.rank, self.round))


class SimpyNetwork:
    """All workers, the latency of messages and the time that a swap takes."""

    def __init__(
        self,
        adjacency: Mapping[int, Sequence[int]],
        streams: Sequence[Iterator[float]],
        *,
        rounds: int,
        b: int,
        control: float,
        model: float,
        bare: bool,
    ) -> None:
        self.env = simpy.Environment()
        self.bare = bare
        self.rounds, self.b, self.control, self.model = rounds, b, control, model
        self.messages = self.swaps = 0
        self.ended = 0.0
        self.workers = [Worker(self, rank, adjacency[rank], streams[rank]) for rank in adjacency]
        for worker in self.workers:
            self.env.process(worker.run())

    def send(self, peer: int, message: Message) -> None:
        """Let ``message`` arrive after its latency."""
        self.messages += 1
        inbox = self.workers[peer].inbox
        if self.bare:
            self.env.timeout(self.control, message).callbacks.append(lambda event: inbox.put(event.value))
        else:
            self.env.process(self._travel(inbox, message))

    def _travel(self, inbox: simpy.Store, message: Message) -> Generator[simpy.Event, Any, None]:
        yield self.env.timeout(self.control)
        inbox.put(message)

    def swap(self, worker: Worker, peer: int) -> None:
        """Move models once both have asked for it."""
        other = self.workers[peer]
        if worker.rank not in other.asked:
            worker.asked.add(peer)
            return
        other.asked.discard(worker.rank)
        self.swaps += 1

        if self.bare:
            self.env.timeout(self.model).callbacks.append(lambda event: self._swapped(worker, other))
        else:
            self.env.process(self._move(worker, other))

    def _move(self, worker: Worker, other: Worker) -> Generator[simpy.Event, Any, None]:
        yield self.env.timeout(self.model)
        self._swapped(worker, other)

    def _swapped(self, worker: Worker, other: Worker) -> None:
        worker.inbox.put(("swapped", other.rank))
        other.inbox.put(("swapped", worker.rank))

    def run(self) -> None:
        """Run to the end."""
        self.env.run()
