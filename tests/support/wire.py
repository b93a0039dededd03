"""Real engines on a fake wire: what a transport promises, and no more than that.

:class:`Network` holds the engines, the channels and a small vector for each rank's model. What could happen next is a set of
*actions*; a subclass says which comes first: :class:`Wire` by random delays on a virtual clock, :class:`Shuffle` by whatever its
caller picks.

After each event the engine's invariants are checked, and at the end that everybody finished, that exchanges are symmetric and
that the sum of all models is what steps (and exchanges with ranks that died) have made of it. A breach raises ``WireError`` or
``ProtocolError``.
"""

from __future__ import annotations

import heapq
import math
import pickle
import random
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from consensus.protocol.commands import Broadcast, Command, DropModel, Finish, Mix, SendControl, StartStep, SwapModel, WakeAt
from consensus.protocol.decision import ActiveWeights, Close, Decision, Rule, View
from consensus.protocol.events import Control, Event, LeaveWanted, ModelSwapped, PeerLost, StepDone, Tick
from consensus.protocol.messages import Established, Leave, Message, decode, encode
from consensus.protocol.neighbour import NeighbourEngine
from consensus.protocol.rounds import Phase, RoundRecord
from consensus.protocol.validate import check_engine, check_symmetry

Adjacency = Mapping[int, Collection[int]]
Action = tuple[Any, ...]
DIMENSION = 3


class WireError(AssertionError):
    """The network hangs, or an engine asked for what no transport can do."""


@dataclass
class Transfer:
    """One direction of an exchange: what ``sender`` had when both ends had asked for it."""

    pair: tuple[int, int]
    """Sender's round, receiver's round."""
    model: list[float]
    started: bool = False
    arrived: bool = False
    sent: bool = False


class Network:
    """Engines, channels, models.

    ``rule`` is one rule for all ranks, or makes one for each. ``rounds`` is how many rounds each rank makes before it leaves by
    itself. ``everyone`` is the engines' option: without it a death is told to neighbours only.
    """

    def __init__(
        self,
        adjacency: Adjacency,
        rule: Rule | Callable[[], Rule],
        *,
        rounds: int | Sequence[int],
        seed: int = 0,
        weights: Any = "static",
        everyone: bool = True,
        engine: type[NeighbourEngine] = NeighbourEngine,
        stuck_after: float = math.inf,
    ) -> None:
        n = len(adjacency)
        self.n = n
        self.adjacency = adjacency
        self.random = random.Random(seed)
        self.rounds = [rounds] * n if isinstance(rounds, int) else list(rounds)
        self.everyone = everyone
        self.now = 0.0
        rules = [rule() if callable(rule) else rule for _ in range(n)]
        options: dict[str, Any] = {"weights": weights, "everyone": everyone, "stuck_after": stuck_after}
        self.engines = [engine(i, adjacency, rules[i], **options) for i in range(n)]
        self.dead: set[int] = set()
        self.models = [[self.random.gauss(0, 1) for _ in range(DIMENSION)] for _ in range(n)]
        self.given = [list(model) for model in self.models]
        """Start value plus all local steps of each rank: what the sum of models must come to."""
        self.flows: list[tuple[int, int, list[float]]] = []
        """(rank, peer, what mixing with peer added to rank's model)."""
        self.channels: dict[tuple[int, int], deque[Message | None]] = {
            (i, j): deque() for i in range(n) for j in range(n) if i != j
        }
        self.ended: set[tuple[int, int]] = set()
        """Channels whose sender has said its own Leave."""
        self.transfers: dict[tuple[int, int], Transfer] = {}
        self.halves: dict[tuple[int, int], int] = {}
        """(rank, peer): how many of the two ends of the swap under way the rank has seen."""
        self.dropped: set[tuple[int, int]] = set()
        """(rank, peer): the rank has given up the model of a peer that died."""
        self.received: list[dict[int, list[float]]] = [{} for _ in range(n)]
        self.records: list[list[RoundRecord]] = [[] for _ in range(n)]
        self.announced: list[tuple[int, Established]] = []
        self.transcript: list[tuple[float, int, Event, list[Command]]] = []
        self.observers: list[Callable[[int, Event, list[Command]], None]] = []
        for i in range(n):
            self.schedule(("step", i))

    def schedule(self, action: Action, at: float | None = None) -> None:
        """Take note that ``action`` may happen from now on (at time ``at``, if the clock decides)."""
        raise NotImplementedError

    # -- actions --------------------------------------------------------------------------------------------------------

    def perform(self, action: Action) -> None:
        """Let one action happen; one that a death has made void does nothing."""
        kind, *arguments = action
        getattr(self, "_" + kind)(*arguments)

    def _step(self, i: int) -> None:
        engine = self.engines[i]
        if i in self.dead or engine.phase is not Phase.COMPUTING:
            return
        if engine.view.round >= self.rounds[i]:
            self.feed(i, LeaveWanted())
            return
        for d in range(DIMENSION):
            gradient = self.random.gauss(0, 1)
            self.models[i][d] += gradient
            self.given[i][d] += gradient
        self.feed(i, StepDone())

    def _deliver(self, sender: int, receiver: int) -> None:
        queue = self.channels[sender, receiver]
        if receiver in self.dead or not queue:
            return
        message = queue.popleft()
        if message is None:
            # Nothing more comes of a dead rank's models once its death is told.
            self.transfers.pop((sender, receiver), None)
            self.transfers.pop((receiver, sender), None)
            self.feed(receiver, PeerLost(sender))
            return
        if self.engines[receiver].phase is Phase.FINISHED and sender not in self.dead:
            raise WireError(f"rank {receiver} has finished, yet {message} of rank {sender} was under way")
        self.feed(receiver, Control(sender, message))

    def _arrive(self, sender: int, receiver: int, pair: tuple[int, int]) -> None:
        transfer = self.transfers.get((sender, receiver))
        if receiver in self.dead or transfer is None or transfer.pair != pair or transfer.arrived:
            return
        if (receiver, sender) not in self.dropped:
            self.received[receiver][sender] = transfer.model
        transfer.arrived = True
        self._tidy(sender, receiver)
        self._end_if_over(receiver, sender)

    def _sent(self, sender: int, receiver: int, pair: tuple[int, int]) -> None:
        transfer = self.transfers.get((sender, receiver))
        if sender in self.dead or transfer is None or transfer.pair != pair or transfer.sent:
            return
        if self.models[sender] != transfer.model and receiver not in self.dead:
            raise WireError(f"rank {sender} wrote its model while it was being sent to rank {receiver}")
        transfer.sent = True
        self._tidy(sender, receiver)
        self._end_if_over(sender, receiver)

    def _end_if_over(self, i: int, j: int) -> None:
        """Tell rank i that the swap with j is over, once the model of j has come and its own one has left."""
        self.halves[i, j] = self.halves.get((i, j), 0) + 1
        if self.halves[i, j] == 2:
            del self.halves[i, j]
            self.feed(i, ModelSwapped(j))

    def _tidy(self, sender: int, receiver: int) -> None:
        transfer = self.transfers[sender, receiver]
        if transfer.arrived and transfer.sent:
            del self.transfers[sender, receiver]

    def _tick(self, i: int) -> None:
        if i not in self.dead and self.engines[i].phase is not Phase.FINISHED:
            self.feed(i, Tick())

    def _leave(self, i: int) -> None:
        if i not in self.dead and self.engines[i].phase is not Phase.FINISHED:
            self.feed(i, LeaveWanted())

    def _die(self, i: int) -> None:
        if i in self.dead or self.engines[i].phase is Phase.FINISHED:
            return
        self.dead.add(i)
        for j in range(self.n):
            if j == i:
                continue
            self.channels[j, i].clear()
            queue = self.channels[i, j]
            for _ in range(self.random.randint(0, len(queue)) if self.random.random() < 0.5 else 0):
                queue.pop()
            if j not in self.dead and (self.everyone or j in self.adjacency[i]):
                queue.append(None)
                self.schedule(("deliver", i, j))
            for key in ((i, j), (j, i)):
                # A model may have been on the wire completely; half of one never counts.
                if key in self.transfers and self.random.random() < 0.5:
                    del self.transfers[key]

    # -- engines --------------------------------------------------------------------------------------------------------

    def feed(self, i: int, event: Event) -> list[Command]:
        """Hand ``event`` to engine ``i``, carry out what it commands, and check."""
        engine = self.engines[i]
        commands = engine.handle(event, self.now)
        self.transcript.append((self.now, i, event, commands))
        check_engine(engine, commands)
        for command in commands:
            self._carry_out(i, command)
        for observer in self.observers:
            observer(i, event, commands)
        return commands

    def _carry_out(self, i: int, command: Command) -> None:
        if isinstance(command, SendControl):
            self._post(i, command.peer, command.message)
        elif isinstance(command, Broadcast):
            if isinstance(command.message, Established):
                self.announced.append((i, command.message))
            for j in range(self.n):
                if j != i:
                    self._post(i, j, command.message)
        elif isinstance(command, SwapModel):
            self._swap(i, command)
        elif isinstance(command, DropModel):
            self.dropped.add((i, command.peer))
            self.received[i].pop(command.peer, None)
        elif isinstance(command, Mix):
            self._mix(i, command)
        elif isinstance(command, StartStep):
            last = self.engines[i].last
            assert last is not None
            self.records[i].append(last)
            if self.received[i]:
                raise WireError(f"rank {i} goes on without the models of {sorted(self.received[i])}")
            self.schedule(("step", i))
        elif isinstance(command, WakeAt):
            self.schedule(("tick", i), at=command.when)
        else:
            assert isinstance(command, Finish)
            late = [j for j in range(self.n) if j != i and j not in self.dead and self.channels[j, i]]
            if late:
                raise WireError(f"rank {i} finishes while messages of ranks {late} are under way")

    def _post(self, i: int, j: int, message: Message) -> None:
        if (i, j) in self.ended:
            raise WireError(f"rank {i} sends {message} to rank {j} after its Leave")
        if message == Leave(i):
            self.ended.add((i, j))
        if j not in self.dead:
            self.channels[i, j].append(decode(encode(message)))
            self.schedule(("deliver", i, j))

    def _swap(self, i: int, command: SwapModel) -> None:
        j, pair = command.peer, (command.round, command.peer_round)
        if (i, j) in self.transfers:
            raise WireError(f"rank {i} sends a model to rank {j} while one is under way: {self.transfers[i, j]}")
        self.transfers[i, j] = Transfer(pair, list(self.models[i]))
        other = self.transfers.get((j, i))
        if other is None or other.pair != pair[::-1]:
            return
        for (a, b), transfer in (((i, j), self.transfers[i, j]), ((j, i), other)):
            transfer.started = True
            self.schedule(("arrive", a, b, transfer.pair))
            self.schedule(("sent", a, b, transfer.pair))

    def _mix(self, i: int, command: Mix) -> None:
        if any(sender == i and receiver not in self.dead and not t.sent for (sender, receiver), t in self.transfers.items()):
            raise WireError(f"rank {i} mixes while its model is being sent")
        before, mixed = self.models[i], list(self.models[i])
        for j, weight in command.weights:
            theirs = self.received[i].pop(j)
            flow = [weight * (t - b) for t, b in zip(theirs, before, strict=True)]
            mixed = [m + f for m, f in zip(mixed, flow, strict=True)]
            self.flows.append((i, j, flow))
        self.models[i] = mixed

    # -- the end --------------------------------------------------------------------------------------------------------

    def check_end(self) -> None:
        """Raise unless everybody finished, symmetrically, and the sum of models is accounted for."""
        living = [i for i in range(self.n) if i not in self.dead]
        waiting = [i for i in living if self.engines[i].phase is not Phase.FINISHED]
        if waiting:
            told = "\n".join(self.engines[i].describe(self.now) for i in waiting)
            raise WireError(f"ranks {waiting} wait, and nothing can happen\n{told}")
        left = {key: list(queue) for key, queue in self.channels.items() if queue and key[1] not in self.dead}
        if left:
            raise WireError(f"messages left over: {left}")
        check_symmetry([(i, self.records[i]) for i in living], frozenset(living))
        for d in range(DIMENSION):
            due = math.fsum(self.given[i][d] for i in living)
            due += math.fsum(flow[d] for i, j, flow in self.flows if i not in self.dead and j in self.dead)
            total = math.fsum(self.models[i][d] for i in living)
            if not math.isclose(total, due, rel_tol=1e-9, abs_tol=1e-9):
                raise WireError(f"the sum of models is {total}, steps account for {due}")


class Wire(Network):
    """A network on a virtual clock.

    Parameters
    ----------
    compute : callable (rank, random) -> seconds, optional
        How long a local step takes.
    delay : callable (random) -> seconds, optional
        How long a message takes; models take five times as long.
    deaths, leaves : mapping of rank to seconds
        When a rank dies, or wants to leave.
    """

    def __init__(
        self,
        adjacency: Adjacency,
        rule: Rule | Callable[[], Rule],
        *,
        compute: Callable[[int, random.Random], float] | None = None,
        delay: Callable[[random.Random], float] | None = None,
        deaths: Mapping[int, float] | None = None,
        leaves: Mapping[int, float] | None = None,
        **options: Any,
    ) -> None:
        self.compute = compute or (lambda rank, random: random.expovariate(1.0))
        self.delay = delay or (lambda random: random.expovariate(50.0))
        self._heap: list[tuple[float, int, Action]] = []
        self._number = 0
        super().__init__(adjacency, rule, **options)
        for rank, when in (deaths or {}).items():
            self.schedule(("die", rank), at=when)
        for rank, when in (leaves or {}).items():
            self.schedule(("leave", rank), at=when)

    def schedule(self, action: Action, at: float | None = None) -> None:
        if at is None:
            kind = action[0]
            if kind == "step":
                rank = action[1]
                over = self.engines[rank].view.round >= self.rounds[rank]
                duration = 0.0 if over else self.compute(rank, self.random)
            else:
                duration = self.delay(self.random) * (1 if kind == "deliver" else 5)
            at = self.now + duration
        self._number += 1
        heapq.heappush(self._heap, (at, self._number, action))

    def run(self, limit: int = 200_000) -> Wire:
        """Run to the end and check it."""
        for _ in range(limit):
            if not self._heap:
                self.check_end()
                return self
            when, _, action = heapq.heappop(self._heap)
            self.now = max(self.now, when)
            self.perform(action)
        raise WireError(f"{limit} actions and no end")


class Shuffle(Network):
    """A network whose caller picks what happens next out of :attr:`pending`."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.pending: list[Action] = []
        self._when: dict[Action, float] = {}
        super().__init__(*arguments, **options)

    def schedule(self, action: Action, at: float | None = None) -> None:
        self.pending.append(action)
        if at is not None:
            self._when[action] = at

    def go(self, index: int) -> None:
        """Let the pending action ``index`` (modulo their number) happen."""
        action = self.pending.pop(index % len(self.pending))
        self.now = max(self.now + 1e-3, self._when.get(action, 0.0))
        self.perform(action)

    def settle(self) -> None:
        """Let everything happen that still can, in seeded random order."""
        for _ in range(200_000):
            if not self.pending:
                return
            self.go(self.random.randrange(len(self.pending)))
        raise WireError("no end")

    def drain(self) -> None:
        """As :meth:`settle`, and check the end."""
        self.settle()
        self.check_end()


class Audited:
    """A rule under supervision: pure, picklable, with reasons, and never closing before ``allowed`` says that it may.

    ``allowed(view, heard, now)`` is told the announcements heard or made in this round; None allows everything.
    """

    def __init__(self, rule: Any, allowed: Callable[[Any, View, list[Established], float], bool] | None = None) -> None:
        self.rule = rule
        self.name = rule.name
        self.active_weights: ActiveWeights = rule.active_weights
        self._allowed = allowed
        self._heard: list[Established] = []
        self._round = 0

    def start(self, view: View) -> Any:
        return self._vetted(self.rule.start(view))

    def hear(self, news: Established, view: View, state: Any) -> Any:
        self._fresh(view)
        if view.is_open:
            self._heard.append(news)
        return self._vetted(self.rule.hear(news, view, state))

    def departure(self, rank: int, view: View, state: Any) -> Any:
        return self._vetted(self.rule.departure(rank, view, state))

    def decide(self, view: View, state: Any, now: float) -> tuple[Decision, Any]:
        self._fresh(view)
        seen = repr((view, state))
        first = self.rule.decide(view, state, now)
        if self.rule.decide(view, state, now) != first or repr((view, state)) != seen:
            raise WireError(f"{self.name} is not a pure function of {seen}")
        decision, after = first
        if not decision.reason.strip():
            raise WireError(f"{self.name} gives no reason for {decision}")
        self._heard += decision.announce
        if isinstance(decision, Close) and self._allowed is not None and not self._allowed(self.rule, view, self._heard, now):
            raise WireError(f"{self.name} closes too early ({decision}) with {seen}")
        return decision, self._vetted(after)

    def _fresh(self, view: View) -> None:
        if view.round != self._round:
            self._round = view.round
            self._heard = []

    def _vetted(self, state: Any) -> Any:
        if pickle.loads(pickle.dumps(state)) != state or not isinstance(hash(state), int):
            raise WireError(f"{self.name}'s state does not survive pickling: {state}")
        return state


def ring(n: int) -> dict[int, list[int]]:
    """0 - 1 - ... - (n-1) - 0."""
    return {i: sorted({(i - 1) % n, (i + 1) % n} - {i}) for i in range(n)}


def path(n: int) -> dict[int, list[int]]:
    """0 - 1 - ... - (n-1)."""
    return {i: [j for j in (i - 1, i + 1) if 0 <= j < n] for i in range(n)}


def star(n: int) -> dict[int, list[int]]:
    """Everybody knows 0."""
    return {i: list(range(1, n)) if i == 0 else [0] for i in range(n)}


def complete(n: int) -> dict[int, list[int]]:
    """Everybody knows everybody."""
    return {i: [j for j in range(n) if j != i] for i in range(n)}


def connected(n: int, seed: int, extra: float = 0.3) -> dict[int, list[int]]:
    """A random tree plus each other edge with probability ``extra``."""
    draw = random.Random(seed)
    edges = {(draw.randrange(i), i) for i in range(1, n)}
    edges |= {(i, j) for i in range(n) for j in range(i + 1, n) if draw.random() < extra}
    return {i: sorted({j for e in edges if i in e for j in e if j != i}) for i in range(n)}
