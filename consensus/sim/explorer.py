"""Explore every interleaving of a few engines: messages, models, closes, leaves and deaths in any order.

A state is all engines plus what is under way between them. From each state every action that could come next is taken once:

- a rank finishes its local step, or leaves when its rounds are over (some may leave at any moment);
- the oldest control message of a channel is handled (channels keep order, nothing is promised between channels);
- a swap of models ends at one of its ends, in any order with control messages;
- under :class:`~consensus.sim.any_time.AnyTime`, a rank decides to close, at any moment it is open;
- a rank dies, its messages under way lost or not.

A state from which nothing can happen must be an end: everybody finished, no message or model left over. Models carry the pair
of rounds they belong to and must be taken by exactly that pair, which is the symmetry of exchanges. Invariants are checked
after every event; nothing may be sent after the own goodbye, or be under way to a rank that finishes.

*Speed.* Engines do not know of each other. What an event does to one of them in a given state is worked out once and then
looked up, so the engine's own code runs a few thousand times for millions of states.

*Reduction.* With ``reduce`` an action that commutes with everything else that could happen before it is taken at once and
alone, so that states do not multiply by the orders in which such actions could come. These are: a message that changes nothing,
now or later (to a rank that has left, an Engage of a closed round by a peer known to be ready, a Closed of a round that is not
known any more); and, where
nobody dies or leaves early, the answer to an offer, leaving when the rounds are over,
and under AnyTime whatever brings a busy edge forward (no decision looks at exchanges there, and a decision to close while an
edge is busy comes to the same as one right after). Every set of exchanges that can happen still does; the tests compare the two
ways on small systems. The argument is about this engine: a changed one is first to be explored without.

Visited states are kept as 64-bit hashes; among 10^7 states the chance that two share one is about 3e-6.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

from consensus.errors import ProtocolError
from consensus.protocol.commands import Broadcast, SendControl, SwapModel
from consensus.protocol.decision import Rule
from consensus.protocol.edge import EdgeState
from consensus.protocol.events import Control, Event, LeaveWanted, ModelSwapped, PeerLost, StepDone, Tick
from consensus.protocol.messages import Closed, Engage, Established, Leave, Ready
from consensus.protocol.neighbour import NeighbourEngine, Weights
from consensus.protocol.rounds import Phase
from consensus.protocol.validate import check_engine
from consensus.rules.stateless import Stateless
from consensus.sim.any_time import AnyTime
from consensus.sim.frozen import Freezer, FrozenEngine
from consensus.types import Rank, Round

Token: TypeAlias = tuple[Rank, Rank, Round, Round]
"""A model under way: sender, receiver, their rounds."""


class State(NamedTuple):
    """Everything, as numbers that a :class:`_Search` gave out.

    ``engines`` by rank (0: dead); ``channels`` by sender and receiver, oldest first (0: news of the sender's death); ``models``
    under way; how many ranks may still die, and leave early; ``swaps``: all models ever under way, if outcomes are asked for.
    """

    engines: tuple[int, ...]
    channels: tuple[tuple[int, ...], ...]
    models: frozenset[Token]
    deaths: int
    leaves: int
    swaps: frozenset[Token]


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
    deaths, leaves : int
        How many ranks may die, and leave before their rounds are over.
    everyone : bool or None
        As for the engine; None: only where the rule has a memory, for goodbyes to all multiply the states.
    reduce : bool
        Take actions that commute with all others at once.
    engine : type
        What is explored.
    """

    adjacency: Mapping[Rank, Collection[Rank]]
    rounds: int
    rule: Rule
    weights: Weights = "static"
    deaths: int = 0
    leaves: int = 0
    everyone: bool | None = None
    reduce: bool = False
    engine: type[NeighbourEngine] = NeighbourEngine

    def run(self, limit: int | None = None) -> int:
        """Visit every reachable state.

        Returns
        -------
        int
            How many states there are.

        Raises
        ------
        ProtocolError
            On the first broken invariant, deadlock or message left over, with the actions that lead there; also beyond ``limit``.
        """
        return _Search(self).run(limit)

    def outcomes(self, limit: int | None = None) -> set[frozenset[Token]]:
        """Visit every reachable state and return the sets of exchanges that whole runs can come to.

        Raises
        ------
        ProtocolError
            As :meth:`run`.
        """
        search = _Search(self, track=True)
        search.run(limit)
        return search.outcomes


class _Effect(NamedTuple):
    """What an event does to one engine."""

    engine: int
    sends: tuple[tuple[Rank, int], ...]
    swaps: tuple[Token, ...]
    alone: bool
    """Whether it commutes with everything that could come before it."""


@dataclass
class _Local:
    """One engine in one state: what it can do by itself, and the effects of events on it as far as they are known."""

    frozen: FrozenEngine
    own: tuple[tuple[Event, Token | None], ...]
    effects: dict[int | Event, _Effect] = field(default_factory=dict)


_TOLD = Tick()


class _Search:
    """One exploration: numbers for engines and messages, the effects known so far, and the walk over states."""

    def __init__(self, system: Explorer, track: bool = False) -> None:
        self.system = system
        self.n = len(system.adjacency)
        everyone = not isinstance(system.rule, Stateless) if system.everyone is None else system.everyone
        self.freezer = Freezer(system.adjacency, system.rule, system.weights, everyone, system.engine)
        self.any_time = isinstance(system.rule, AnyTime)
        self.eager = system.reduce and not system.deaths and not system.leaves
        self.track = track
        self.outcomes: set[frozenset[Token]] = set()
        self.locals: list[Any] = [None]
        self.local_ids: dict[FrozenEngine, int] = {}
        self.messages: list[Any] = [None]
        self.message_ids: dict[Any, int] = {}

    def run(self, limit: int | None) -> int:
        n = self.n
        engines = tuple(self._local_id(self.freezer.new(rank)) for rank in range(n))
        start = State(engines, ((),) * (n * n), frozenset(), self.system.deaths, self.system.leaves, frozenset())
        seen = {hash(start)}
        stack: list[tuple[State, Any]] = [(start, None)]
        while stack:
            state, path = stack.pop()
            ended = True
            for action, following in self._actions(state, path):
                ended = False
                key = hash(following)
                if key not in seen:
                    seen.add(key)
                    stack.append((following, (action, path)))
            if ended:
                self._check_end(state, path)
            if limit is not None and len(seen) > limit:
                raise ProtocolError(f"more than {limit} states")
        return len(seen)

    # -- numbers for engines and messages -------------------------------------------------------------------------------

    def _local_id(self, frozen: FrozenEngine) -> int:
        number = self.local_ids.get(frozen)
        if number is None:
            number = self.local_ids[frozen] = len(self.locals)
            self.locals.append(_Local(frozen, tuple(self._own(frozen))))
        return number

    def _message_id(self, message: Any) -> int:
        number = self.message_ids.get(message)
        if number is None:
            number = self.message_ids[message] = len(self.messages)
            self.messages.append(message)
        return number

    # -- what one engine can do -----------------------------------------------------------------------------------------

    def _own(self, frozen: FrozenEngine) -> Iterator[tuple[Event, Token | None]]:
        """Events that come to an engine from nobody else, and the model they need."""
        if frozen.phase is Phase.COMPUTING:
            yield (LeaveWanted() if frozen.round == self.system.rounds else StepDone()), None
        if frozen.phase is not Phase.OPEN:
            return
        if self.any_time and not frozen.closing:
            yield _TOLD, None
        for peer, edge in zip(sorted(self.system.adjacency[frozen.rank]), frozen.edges, strict=True):
            if edge.state is EdgeState.MOVING:
                yield ModelSwapped(peer), (peer, frozen.rank, edge.partner, frozen.round)

    def _effect(self, local: _Local, event: Event) -> _Effect:
        """Return what ``event`` does to the engine; raise ProtocolError if it breaks an invariant."""
        engine = self.freezer.thaw(local.frozen)
        if event is _TOLD:
            engine.rule_state = True
        commands = engine.handle(event, 0.0)
        check_engine(engine, commands)
        rank, sends, swaps = engine.rank, [], []
        for command in commands:
            if isinstance(command, SendControl):
                sends.append((command.peer, self._message_id(command.message)))
            elif isinstance(command, Broadcast):
                number = self._message_id(command.message)
                sends += [(peer, number) for peer in range(self.n) if peer != rank]
            elif isinstance(command, SwapModel):
                swaps.append((rank, command.peer, command.round, command.peer_round))
        if sends and local.frozen.phase in (Phase.LEFT, Phase.FINISHED):
            raise ProtocolError(f"rank {rank} sends {self.messages[sends[0][1]]} after its goodbye")
        alone = self.system.reduce and self._commutes(local.frozen, event)
        return _Effect(self._local_id(self.freezer.freeze(engine)), tuple(sends), tuple(swaps), alone)

    def _commutes(self, frozen: FrozenEngine, event: Event) -> bool:
        """Return whether ``event`` may be taken before everything else; see *Reduction* above."""
        phase = frozen.phase
        if isinstance(event, LeaveWanted):
            return self.eager
        if not isinstance(event, Control | ModelSwapped):
            return False
        message = event.message if isinstance(event, Control) else None
        if isinstance(message, Ready | Engage | Closed | Established) and phase in (Phase.LEFT, Phase.FINISHED):
            return True
        if isinstance(message, Ready | Leave | Established):
            return False
        edge = frozen.edges[sorted(self.system.adjacency[frozen.rank]).index(event.peer)]
        freely = self.eager and self.any_time
        if isinstance(message, Engage):
            answer = edge.state is EdgeState.OFFERED and edge.partner == message.mine and frozen.round == message.yours
            known = edge.ready == message.mine and message.yours != frozen.round
            return known or (self.eager and answer)
        if isinstance(message, Closed):
            offered = edge.state is EdgeState.OFFERED and edge.partner == message.round
            unknown = edge.ready != message.round and not offered and self.system.weights == "static"
            return unknown or (freely and offered)
        return freely

    # -- what the system can do -----------------------------------------------------------------------------------------

    def _actions(self, state: State, path: Any) -> Iterator[tuple[Any, State]]:
        """Return every action with the state it leads to, or one that commutes with the others."""
        n, found = self.n, []
        for rank, number in enumerate(state.engines):
            if not number:
                continue
            local = self.locals[number]
            for event, token in local.own:
                if token is None or token in state.models:
                    found.append((rank, event, event, -1, token))
            for sender in range(n):
                queue = state.channels[sender * n + rank]
                if queue:
                    found.append((rank, queue[0] * n + sender, None, sender * n + rank, None))
        for rank, key, event, channel, token in found:
            local = self.locals[state.engines[rank]]
            effect = local.effects.get(key)
            if effect is None:
                if event is None:
                    message, sender = self.messages[key // n], key % n
                    event = PeerLost(sender) if message is None else Control(sender, message)
                try:
                    effect = local.effects[key] = self._effect(local, event)
                except ProtocolError as error:
                    raise self._violation(str(error), ((rank, event), path)) from error
            if effect.alone:
                return iter([self._apply(state, path, rank, key, effect, channel, token)])
        return self._all(state, path, found)

    def _all(self, state: State, path: Any, found: list[Any]) -> Iterator[tuple[Any, State]]:
        for rank, key, _, channel, token in found:
            effect = self.locals[state.engines[rank]].effects[key]
            yield self._apply(state, path, rank, key, effect, channel, token)
        for rank, number in enumerate(state.engines):
            if number and state.deaths and self.locals[number].frozen.phase is not Phase.FINISHED:
                yield from self._die(state, rank)
            if number and state.leaves and self._may_leave(number):
                local = self.locals[number]
                effect = local.effects.get(LeaveWanted())
                if effect is None:
                    try:
                        effect = local.effects[LeaveWanted()] = self._effect(local, LeaveWanted())
                    except ProtocolError as error:
                        raise self._violation(str(error), ((rank, LeaveWanted()), path)) from error
                action, following = self._apply(state, path, rank, LeaveWanted(), effect, -1, None)
                yield action, following._replace(leaves=state.leaves - 1)

    def _may_leave(self, number: int) -> bool:
        frozen: FrozenEngine = self.locals[number].frozen
        over = frozen.phase is Phase.COMPUTING and frozen.round == self.system.rounds
        return frozen.phase in (Phase.COMPUTING, Phase.OPEN, Phase.SETTLING) and not over and not frozen.leaving

    def _apply(
        self, state: State, path: Any, rank: Rank, key: int | Event, effect: _Effect, channel: int, token: Token | None
    ) -> tuple[Any, State]:
        n, engines, models, swaps = self.n, state.engines, state.models, state.swaps
        action = (rank, key)
        if channel >= 0 or effect.sends:
            channels = list(state.channels)
            if channel >= 0:
                if not channels[channel][0]:  # nothing more comes of a dead rank once its death is told
                    models = frozenset(model for model in models if model[:2] != (channel // n, rank))
                channels[channel] = channels[channel][1:]
            for peer, message in effect.sends:
                if engines[peer]:
                    channels[rank * n + peer] += (message,)
            after = tuple(channels)
        else:
            after = state.channels
        if token is not None:
            models -= {token}
        for swap in effect.swaps:
            if any(model[:2] == swap[:2] for model in models):
                raise self._violation(f"rank {rank} sends a model to {swap[1]} while another one is under way", (action, path))
            if engines[swap[1]]:
                models |= {swap}
            if self.track:
                swaps |= {swap}
        if self.locals[effect.engine].frozen.phase is Phase.FINISHED:
            late = [peer for peer in range(n) if peer != rank and engines[peer] and after[peer * n + rank]]
            if late:
                raise self._violation(f"rank {rank} has finished while messages of ranks {late} are under way", (action, path))
        engines = (*engines[:rank], effect.engine, *engines[rank + 1 :])
        return action, State(engines, after, models, state.deaths, state.leaves, swaps)

    def _die(self, state: State, rank: Rank) -> Iterator[tuple[Any, State]]:
        """Let ``rank`` die: everybody else is told, after what it had under way or in place of it."""
        n = self.n
        for lost in (False, True):
            models = frozenset(model for model in state.models if model[1] != rank and not (lost and model[0] == rank))
            channels = list(state.channels)
            for peer in range(n):
                channels[peer * n + rank] = ()
                if peer != rank and state.engines[peer]:
                    channels[rank * n + peer] = (*(() if lost else channels[rank * n + peer]), 0)
            engines = (*state.engines[:rank], 0, *state.engines[rank + 1 :])
            died = State(engines, tuple(channels), models, state.deaths - 1, state.leaves, state.swaps)
            yield (rank, f"dies, what it had under way {'lost' if lost else 'kept'}"), died

    # -- verdicts -------------------------------------------------------------------------------------------------------

    def _check_end(self, state: State, path: Any) -> None:
        waiting = [
            rank for rank, number in enumerate(state.engines) if number and self.locals[number].frozen.phase is not Phase.FINISHED
        ]
        if waiting:
            raise self._violation(f"deadlock: ranks {waiting} wait and nothing can happen", path)
        if any(state.channels) or state.models:
            raise self._violation("everybody has finished, but a message or a model is left over", path)
        for sender, receiver, a, b in state.swaps:
            if not self.system.deaths and (receiver, sender, b, a) not in state.swaps:
                raise self._violation(
                    f"round {a} of rank {sender} exchanged with round {b} of rank {receiver}, not the other way round", path
                )
        if self.track:
            self.outcomes.add(state.swaps)

    def _violation(self, what: str, path: Any) -> ProtocolError:
        actions = []
        while path is not None:
            (rank, key), path = path
            if isinstance(key, int):
                message, sender = self.messages[key // self.n], key % self.n
                key = PeerLost(sender) if message is None else Control(sender, message)
            actions.append(f"rank {rank}: {'told to close' if key is _TOLD else key}")
        error = ProtocolError(what)
        error.add_note("after:\n" + "\n".join(reversed(actions)))
        return error
