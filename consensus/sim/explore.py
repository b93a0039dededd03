"""Explore every interleaving of a few engines: messages, models, closes, leaves and deaths in any order.

A state is all engines plus what is under way between them. From each state every action that could come next is taken once:

- a rank finishes its local step, or leaves when its rounds are over;
- the oldest control message of a channel is handled (channels keep order, nothing is promised between channels);
- a model arrives, or its sending completes, in any order with control messages;
- under :class:`AnyTime`, a rank decides to close, at any moment it is open: that covers what any rule could do;
- a rank dies, its messages under way lost or not.

A state from which nothing can happen must be an end: everybody finished, no message or model left over. Models carry the pair of rounds
they belong to and must be taken by exactly that pair, which is the symmetry of exchanges. Invariants are checked after every event.

Visited states are kept as 64-bit hashes; among 10^7 states the chance that two share one is about 3e-6.

Run ``python -m consensus.sim.explore`` for the small systems, ``--large`` for those that take minutes.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from consensus.errors import ProtocolError
from consensus.protocol.commands import Broadcast, Command, SendControl, SwapModel
from consensus.protocol.decision import ActiveWeights, Close, Decision, Rule, Stay, View
from consensus.protocol.edge import Edge, EdgeState
from consensus.protocol.events import Control, Event, LeaveWanted, ModelArrived, ModelSent, PeerLost, StepDone, Tick
from consensus.protocol.messages import Message
from consensus.protocol.neighbour import NeighbourEngine, Phase, RoundRecord, Weights
from consensus.protocol.story import Story
from consensus.protocol.validate import check_engine
from consensus.rules import build
from consensus.rules.gap import Gap
from consensus.rules.stateless import Stateless
from consensus.topology.metropolis import edge_weight
from consensus.types import Rank, Round, Seconds

Adjacency = Mapping[Rank, Collection[Rank]]


@dataclass(frozen=True)
class AnyTime(Stateless):
    """Close when the explorer says so; its state is whether it has."""

    name: ClassVar[str] = "any_time"
    active_weights: ClassVar[ActiveWeights] = ActiveWeights.REFUSED

    def decide(self, view: View, state: Any, now: Seconds) -> tuple[Decision, Any]:
        """Close if told to."""
        return (Close("told to"), None) if state else (Stay("not told to close"), None)


class State(NamedTuple):
    """Everything: frozen engines (None: dead), control channels by sender and receiver, models under way, deaths left."""

    engines: tuple[Any, ...]
    channels: tuple[tuple[Any, ...], ...]
    models: frozenset[tuple[Rank, Rank, Round, Round]]
    deaths: int


@dataclass(frozen=True)
class Explorer:
    """A system to explore.

    Parameters
    ----------
    adjacency : Mapping[Rank, Collection[Rank]]
        The graph on 0..n-1.
    rounds : int
        Rounds per rank.
    rule : Rule
        The same at all ranks; :class:`AnyTime` to cover all rules.
    weights : "static" or "active"
        As for the engine.
    deaths : int
        How many ranks may die.
    """

    adjacency: Adjacency
    rounds: int
    rule: Rule
    weights: Weights = "static"
    deaths: int = 0

    def run(self, limit: int | None = None) -> int:
        """Visit every reachable state.

        Returns
        -------
        int
            How many states there are.

        Raises
        ------
        ProtocolError
            On the first broken invariant, deadlock, or message left over, with the actions that lead there; also beyond ``limit``.
        """
        start = self._initial()
        seen = {hash(start)}
        stack: list[tuple[State, Any]] = [(start, None)]
        while stack:
            state, path = stack.pop()
            ended = True
            for name, following in self._actions(state, path):
                ended = False
                key = hash(following)
                if key not in seen:
                    seen.add(key)
                    stack.append((following, (name, path)))
            if ended:
                self._check_end(state, path)
            if limit is not None and len(seen) > limit:
                raise ProtocolError(f"more than {limit} states")
        return len(seen)

    # -- states ---------------------------------------------------------------------------------------------------------

    def _initial(self) -> State:
        n = len(self.adjacency)
        engines = tuple(
            self._freeze(NeighbourEngine(rank, self.adjacency, self.rule, weights=self.weights, everyone=self._everyone)) for rank in range(n)
        )
        return State(engines, ((),) * (n * n), frozenset(), self.deaths)

    @property
    def _everyone(self) -> bool:
        # Goodbyes beyond neighbours matter to rules that know the whole graph, and only multiply the states of the others.
        return not isinstance(self.rule, Stateless)

    def _freeze(self, engine: NeighbourEngine) -> tuple[Any, ...]:
        """Return what distinguishes this engine's future; what can never matter again is normalised away."""
        view = engine.view
        exchanging = engine.phase in (Phase.OPEN, Phase.SETTLING)
        edges = tuple(
            (
                edge.gone,
                edge.ready,
                edge.engaged if exchanging and edge.engaged is not None and edge.engaged[1] == view.round else None,
                *((edge.state, edge.partner, edge.partner_exchanges, edge.arrived, edge.sent) if exchanging else ()),
            )
            for edge in engine.edges.values()
        )
        used = tuple(view.last_used.values()) if isinstance(self.rule, Gap) else ()
        return (
            engine.phase,
            view.round,
            edges,
            tuple(sorted(view.done)) if exchanging else (),
            frozenset(view.departed),
            engine._verdict is not None and exchanging,
            engine.rule_state,
            frozenset(engine._goodbyes),
            frozenset(engine._dead),
            used,
        )

    def _thaw(self, rank: Rank, frozen: tuple[Any, ...]) -> NeighbourEngine:
        phase, round_, edges, done, departed, verdict, rule_state, goodbyes, dead, used = frozen
        engine = NeighbourEngine.__new__(NeighbourEngine)
        neighbours = tuple(sorted(self.adjacency[rank]))
        engine.rank, engine.rule, engine.phase, engine.story = rank, self.rule, phase, Story(8)
        engine.edges = {}
        for peer, (gone, ready, engaged, *exchange) in zip(neighbours, edges, strict=True):
            weight = edge_weight(len(neighbours), len(self.adjacency[peer]))
            state, partner, count, arrived, sent = exchange or (EdgeState.IDLE, 0, -1, False, False)
            engine.edges[peer] = Edge(peer, weight, state, ready, engaged, partner, count, arrived, sent, gone)
        living = {peer for peer, edge in engine.edges.items() if not edge.gone}
        last_used = dict(zip(neighbours, used, strict=True)) if used else dict.fromkeys(neighbours, 0)
        engine.view = View(
            rank, self.adjacency, neighbours, living, set(departed), round_, phase is Phase.OPEN, 0.0, dict.fromkeys(done, 0.0), last_used
        )
        engine.rule_state = rule_state
        engine.last = None
        if phase is Phase.SETTLING:
            exchanges = tuple((peer, engine.edges[peer].partner, engine.edges[peer].weight, 0.0) for peer in done)
            engine.last = RoundRecord(round_, 0.0, 0.0, exchanges, (), "")
        engine._active = self.weights == "active"
        engine._everyone = self._everyone
        engine._goodbyes = set(goodbyes)
        engine._dead = set(dead)
        engine._busy = sum(edge.busy for edge in engine.edges.values())
        engine._verdict = Close("told to") if verdict else None
        engine._wake_at = None
        engine._leave_wanted = False
        engine.unmet = ""
        return engine

    # -- actions --------------------------------------------------------------------------------------------------------

    def _actions(self, state: State, path: Any) -> Iterator[tuple[str, State]]:
        n = len(self.adjacency)
        for rank, frozen in enumerate(state.engines):
            if frozen is None:
                continue
            phase, round_, edges = frozen[0], frozen[1], frozen[2]
            if phase is Phase.COMPUTING:
                done = round_ == self.rounds
                yield self._step(state, rank, LeaveWanted() if done else StepDone(), path, state.channels, state.models)
            if phase is Phase.OPEN and isinstance(self.rule, AnyTime) and not frozen[5]:
                yield self._step(state, rank, Tick(), path, state.channels, state.models, told=True)
            if phase is Phase.OPEN:
                for peer, (_, _, _, edge_state, partner, _, arrived, sent) in zip(sorted(self.adjacency[rank]), edges, strict=True):
                    if edge_state is not EdgeState.MOVING:
                        continue
                    token = (peer, rank, partner, round_)
                    if not arrived and token in state.models:
                        yield self._step(state, rank, ModelArrived(peer), path, state.channels, state.models - {token})
                    if not sent:
                        yield self._step(state, rank, ModelSent(peer), path, state.channels, state.models)
            for sender in range(n):
                queue = state.channels[sender * n + rank]
                if queue:
                    channels = _replaced(state.channels, sender * n + rank, queue[1:])
                    event = PeerLost(sender) if queue[0] is None else Control(sender, queue[0])
                    yield self._step(state, rank, event, path, channels, state.models)
            if state.deaths and phase is not Phase.FINISHED:
                yield from self._die(state, rank)

    def _step(
        self,
        state: State,
        rank: Rank,
        event: Event,
        path: Any,
        channels: tuple[tuple[Any, ...], ...],
        models: frozenset[tuple[Rank, Rank, Round, Round]],
        told: bool = False,
    ) -> tuple[str, State]:
        engine = self._thaw(rank, state.engines[rank])
        if told:
            engine.rule_state = True
        name = f"rank {rank}: {'told to close' if told else event!r}"
        try:
            commands = engine.handle(event, 0.0)
            check_engine(engine, commands)
            channels, models = self._carry_out(rank, commands, state.engines, list(channels), models)
        except ProtocolError as error:
            raise self._violation(str(error), (name, path)) from error
        return name, State(_replaced(state.engines, rank, self._freeze(engine)), channels, models, state.deaths)

    def _carry_out(
        self,
        rank: Rank,
        commands: list[Command],
        engines: tuple[Any, ...],
        channels: list[tuple[Any, ...]],
        models: frozenset[tuple[Rank, Rank, Round, Round]],
    ) -> tuple[tuple[tuple[Any, ...], ...], frozenset[tuple[Rank, Rank, Round, Round]]]:
        n = len(self.adjacency)

        def post(peer: Rank, message: Message) -> None:
            if engines[peer] is not None:
                channels[rank * n + peer] = (*channels[rank * n + peer], message)

        for command in commands:
            if isinstance(command, SendControl):
                post(command.peer, command.message)
            elif isinstance(command, Broadcast):
                for peer in range(n):
                    if peer != rank:
                        post(peer, command.message)
            elif isinstance(command, SwapModel) and engines[command.peer] is not None:
                token = (rank, command.peer, command.round, command.peer_round)
                if any(model[:2] == token[:2] for model in models):
                    raise ProtocolError(f"rank {rank} sends a model to {command.peer} while another one is under way")
                models |= {token}
        return tuple(channels), models

    def _die(self, state: State, rank: Rank) -> Iterator[tuple[str, State]]:
        """Let ``rank`` die: everybody else is told, after its messages under way or in place of them."""
        n = len(self.adjacency)
        models = frozenset(model for model in state.models if rank not in model[:2])
        for lost in (False, True):
            channels = list(state.channels)
            for peer in range(n):
                channels[peer * n + rank] = ()
                if peer != rank and state.engines[peer] is not None:
                    channels[rank * n + peer] = (*(() if lost else channels[rank * n + peer]), None)
            died = State(_replaced(state.engines, rank, None), tuple(channels), models, state.deaths - 1)
            yield f"rank {rank} dies, its messages under way {'lost' if lost else 'kept'}", died

    # -- verdicts -------------------------------------------------------------------------------------------------------

    def _check_end(self, state: State, path: Any) -> None:
        waiting = [rank for rank, frozen in enumerate(state.engines) if frozen is not None and frozen[0] is not Phase.FINISHED]
        if waiting:
            raise self._violation(f"deadlock: ranks {waiting} wait and nothing can happen", path)
        if any(state.channels[index] for index in range(len(state.channels))) or state.models:
            raise self._violation("everybody has finished, but a message or a model is left over", path)

    def _violation(self, what: str, path: Any) -> ProtocolError:
        actions = []
        while path is not None:
            name, path = path
            actions.append(name)
        error = ProtocolError(what)
        error.add_note("after:\n" + "\n".join(reversed(actions)))
        return error


def _replaced(items: tuple[Any, ...], index: int, value: Any) -> tuple[Any, ...]:
    return (*items[:index], value, *items[index + 1 :])


def _ring(n: int) -> Adjacency:
    return {i: sorted({(i - 1) % n, (i + 1) % n} - {i}) for i in range(n)}


def _path(n: int) -> Adjacency:
    return {i: [j for j in (i - 1, i + 1) if 0 <= j < n] for i in range(n)}


SMALL: dict[str, Explorer] = {
    "2 ranks x 3 rounds, any rule": Explorer(_path(2), 3, AnyTime()),
    "2 ranks x 2 rounds, any rule, a death": Explorer(_path(2), 2, AnyTime(), deaths=1),
    "path of 3 x 1 round, any rule": Explorer(_path(3), 1, AnyTime()),
    "2 ranks x 3 rounds, full, active weights": Explorer(_path(2), 3, build("full"), weights="active"),
    "2 ranks x 3 rounds, dtur": Explorer(_path(2), 3, build("dtur")),
    "2 ranks x 2 rounds, dtur, active weights": Explorer(_path(2), 2, build("dtur"), weights="active"),
    "path of 3 x 1 round, dtur": Explorer(_path(3), 1, build("dtur")),
    "path of 3 x 1 round, pathsearch": Explorer(_path(3), 1, build("pathsearch")),
    "2 ranks x 3 rounds, gap": Explorer(_path(2), 3, build("gap", window=1)),
}
"""Systems small enough for every test run."""

LARGE: dict[str, Explorer] = {
    "triangle x 1 round, any rule": Explorer(_ring(3), 1, AnyTime()),
    "path of 3 x 2 rounds, any rule": Explorer(_path(3), 2, AnyTime()),
    "path of 3 x 1 round, any rule, a death": Explorer(_path(3), 1, AnyTime(), deaths=1),
    "path of 3 x 2 rounds, full": Explorer(_path(3), 2, build("full")),
    "path of 3 x 2 rounds, static_backup": Explorer(_path(3), 2, build("static_backup")),
    "path of 3 x 2 rounds, dtur": Explorer(_path(3), 2, build("dtur")),
    "path of 3 x 1 round, dtur, active weights": Explorer(_path(3), 1, build("dtur"), weights="active"),
    "path of 3 x 2 rounds, gap": Explorer(_path(3), 2, build("gap", window=1)),
}
"""Systems that take minutes each."""


def main(arguments: list[str] | None = None) -> None:
    """Explore the small systems, or with ``--large`` the large ones, and print how many states each has."""
    parser = argparse.ArgumentParser(prog="python -m consensus.sim.explore", description="Visit every state of small systems.")
    parser.add_argument("--large", action="store_true", help="the systems that take minutes each")
    systems = LARGE if parser.parse_args(arguments).large else SMALL
    for name, explorer in systems.items():
        begin = time.perf_counter()
        states = explorer.run()
        print(f"{name}: {states:,} states, no deadlock, no asymmetric exchange, nothing left over ({time.perf_counter() - begin:.1f} s)", flush=True)


if __name__ == "__main__":
    main()
