"""An engine as a value: hashable, and equal for two engines that will behave alike whatever happens next."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from consensus.protocol.decision import ActiveWeights, Close, Rule, View
from consensus.protocol.edge import Edge, EdgeState
from consensus.protocol.neighbour import NeighbourEngine, Weights, exchange_of
from consensus.protocol.rounds import Phase, RoundRecord
from consensus.protocol.story import Story
from consensus.rules.gap import Gap
from consensus.rules.stateless import Stateless
from consensus.topology.metropolis import edge_weight
from consensus.types import Rank, Round


class FrozenEdge(NamedTuple):
    """One end of an edge; see :class:`consensus.protocol.edge.Edge` for the fields."""

    gone: bool
    ready: Round
    engaged: tuple[Round, Round] | None
    state: EdgeState
    partner: Round
    partner_exchanges: int


class FrozenEngine(NamedTuple):
    """All of an engine that can matter from here on; what cannot is at its default."""

    rank: Rank
    phase: Phase
    goodbyes: frozenset[Rank]
    round: Round = 0
    edges: tuple[FrozenEdge, ...] = ()
    done: tuple[Rank, ...] = ()
    departed: frozenset[Rank] = frozenset()
    dead: frozenset[Rank] = frozenset()
    closing: bool = False
    leaving: bool = False
    rule_state: Any = None
    last_used: tuple[Round, ...] = ()


_OUTSIDE = FrozenEdge(False, 0, None, EdgeState.IDLE, 0, -1)


@dataclass(frozen=True)
class Freezer:
    """Freezes the engines of one system, and thaws them.

    Parameters
    ----------
    adjacency : Mapping[Rank, Collection[Rank]]
        The graph.
    rule : Rule
        The rule of all engines.
    weights : "static" or "active"
        As for the engines.
    everyone : bool
        As for the engines.
    """

    adjacency: Mapping[Rank, Collection[Rank]]
    rule: Rule
    weights: Weights
    everyone: bool
    engine: type[NeighbourEngine] = NeighbourEngine

    def new(self, rank: Rank) -> FrozenEngine:
        """Return the engine of ``rank`` before anything has happened."""
        return self.freeze(self.engine(rank, self.adjacency, self.rule, weights=self.weights, everyone=self.everyone))

    def freeze(self, engine: NeighbourEngine) -> FrozenEngine:
        """Return what distinguishes the future of ``engine``."""
        phase, view = engine.phase, engine.view
        goodbyes = frozenset(engine._goodbyes)
        if phase is Phase.LEFT or phase is Phase.FINISHED:
            return FrozenEngine(engine.rank, phase, goodbyes)  # it sends nothing any more and only counts goodbyes
        exchanging = phase is Phase.OPEN or phase is Phase.SETTLING
        done = tuple(view.done) if exchanging else ()
        return FrozenEngine(
            engine.rank,
            phase,
            goodbyes,
            view.round,
            tuple(self._freeze_edge(edge, view.round, exchanging) for edge in engine.edges.values()),
            # Rules with a memory may go through the exchanges in order.
            tuple(sorted(done)) if isinstance(self.rule, Stateless) else done,
            frozenset(view.departed),
            frozenset(engine._dead),
            engine._verdict is not None and phase is Phase.OPEN,
            engine._leave_wanted,
            engine.rule_state,
            tuple(view.last_used.values()) if isinstance(self.rule, Gap) else (),
        )

    def _freeze_edge(self, edge: Edge, round: Round, exchanging: bool) -> FrozenEdge:
        if not exchanging:
            return _OUTSIDE._replace(gone=edge.gone, ready=edge.ready)
        engaged = (
            edge.engaged if edge.engaged is not None and edge.engaged[1] == round else None
        )  # of another round: never answered
        active = self.weights == "active"
        settled = edge.state is EdgeState.DONE and not active
        return FrozenEdge(
            edge.gone,
            edge.ready,
            engaged,
            edge.state,
            0 if settled else edge.partner,
            edge.partner_exchanges if active else -1,
        )

    def thaw(self, frozen: FrozenEngine) -> NeighbourEngine:
        """Return an engine that :meth:`freeze` maps to ``frozen``."""
        rank, phase = frozen.rank, frozen.phase
        engine = self.engine.__new__(self.engine)
        neighbours = tuple(sorted(self.adjacency[rank]))
        edges = frozen.edges or (_OUTSIDE,) * len(neighbours)
        engine.rank, engine.rule, engine.phase, engine.story = rank, self.rule, phase, Story(8)
        engine.stuck_after = engine._suspect_at = math.inf
        engine.edges = {}
        for peer, edge in zip(neighbours, edges, strict=True):
            weight = edge_weight(len(neighbours), len(self.adjacency[peer]))
            engine.edges[peer] = Edge(
                peer,
                weight,
                edge.state,
                edge.ready,
                edge.engaged,
                edge.partner,
                edge.partner_exchanges,
                gone=edge.gone,
            )
        view = engine.view = View(
            rank,
            self.adjacency,
            neighbours,
            living={peer for peer, edge in engine.edges.items() if not edge.gone},
            departed=set(frozen.departed),
            round=frozen.round,
            is_open=phase is Phase.OPEN,
            done=dict.fromkeys(frozen.done, 0.0),
            last_used=dict(zip(neighbours, frozen.last_used or (0,) * len(neighbours), strict=True)),
        )
        gone_silent = phase is Phase.LEFT or phase is Phase.FINISHED
        engine.rule_state = self.rule.start(view) if gone_silent else frozen.rule_state
        engine.last = None
        if phase is Phase.SETTLING:
            exchanges = tuple(exchange_of(engine.edges[peer], 0.0) for peer in frozen.done)
            engine.last = RoundRecord(frozen.round, 0.0, 0.0, exchanges, (), "")
        engine._active = self.weights == "active"
        engine._partners_wait = engine._active and self.rule.active_weights is ActiveWeights.WAIT
        engine._everyone = self.everyone
        engine._goodbyes = set(frozen.goodbyes)
        engine._dead = set(frozen.dead)
        engine._busy = sum(edge.busy for edge in engine.edges.values())
        engine._unmatched = sum(not edge.gone and edge.state < EdgeState.MOVING for edge in engine.edges.values())
        engine._verdict = Close("decided before") if frozen.closing else None
        engine._wake_at = None
        engine._leave_wanted = frozen.leaving
        engine._changed = False
        engine.unmet = ""
        return engine
