"""The engine's invariants, stated as code; run after every event in tests and in the exploration."""

from __future__ import annotations

from collections.abc import Iterable

from consensus.errors import ProtocolError
from consensus.protocol.commands import Command, StartStep
from consensus.protocol.edge import EdgeState
from consensus.protocol.neighbour import NeighbourEngine
from consensus.protocol.rounds import Phase, RoundRecord
from consensus.types import Rank

ROUNDING = 1e-12
"""Slack for sums of weights (dimensionless)."""


def check_engine(engine: NeighbourEngine, commands: Iterable[Command] = ()) -> None:
    """Check one engine between two events, and what it just commanded.

    Raises
    ------
    ProtocolError
        Naming the first invariant that does not hold.
    """
    edges = engine.edges.values()
    busy = [edge.peer for edge in edges if edge.busy and engine.phase in (Phase.OPEN, Phase.SETTLING)]
    _require(engine.phase is not Phase.SETTLING or not busy, engine, f"closed while edges to {busy} are offered or moving")
    _require(
        not any(isinstance(command, StartStep) for command in commands) or not busy,
        engine,
        f"goes on computing while edges to {busy} move",
    )
    if engine.phase is Phase.OPEN:
        done = {edge.peer for edge in edges if edge.state is EdgeState.DONE}
        _require(
            done == set(engine.view.done), engine, f"edges {sorted(done)} are done, the view says {sorted(engine.view.done)}"
        )
        for edge in edges:
            _require(
                not edge.busy or edge.partner > 0, engine, f"edge to {edge.peer} is {edge.state.name} with no round of the peer"
            )
            used_up = edge.state < EdgeState.MOVING or edge.partner == 0 or edge.ready != edge.partner
            _require(used_up, engine, f"round {edge.partner} of rank {edge.peer}, used by this exchange, still counts as ready")
            _require(
                not (edge.gone and edge.state is EdgeState.OFFERED),
                engine,
                f"edge to {edge.peer} is offered to a rank that has left",
            )
    if engine.phase is Phase.OPEN:
        to_come = sum(not edge.gone and edge.state < EdgeState.MOVING for edge in edges)
        _require(engine._unmatched == to_come, engine, f"{engine._unmatched} exchanges counted as still to come, not {to_come}")
    _require(
        engine.view.is_open == (engine.phase is Phase.OPEN),
        engine,
        f"view.is_open is {engine.view.is_open} while {engine.phase.value}",
    )
    gone = {edge.peer for edge in edges if edge.gone}
    _require(engine.view.living == set(engine.edges) - gone, engine, "living neighbours and departed ones do not add up")
    silent = {edge.peer for edge in edges if edge.silent}
    _require(engine.view.awaited == engine.view.living - silent, engine, "living, awaited and silent ones do not add up")
    if engine.last is not None:
        check_record(engine.rank, engine.last)


def check_record(rank: Rank, record: RoundRecord) -> None:
    """Check that a closed round used each edge at most once and left a positive weight for the rank's own model."""
    peers = [peer for peer, *_ in record.exchanges]
    total = sum(exchange.weight for exchange in record.exchanges)
    if len(set(peers)) != len(peers):
        raise ProtocolError(f"rank {rank}, round {record.round}: exchanged twice on one edge: {peers}")
    if not total < 1 + ROUNDING:
        raise ProtocolError(f"rank {rank}, round {record.round}: weights of others sum to {total}, more than 1")
    if set(peers) & set(record.backups):
        raise ProtocolError(
            f"rank {rank}, round {record.round}: {sorted(set(peers) & set(record.backups))} are both partners and backups"
        )


def check_symmetry(histories: Iterable[tuple[Rank, Iterable[RoundRecord]]], survivors: frozenset[Rank] | None = None) -> int:
    """Check that every exchange stands in both ends' records, with the same rounds and weight.

    Parameters
    ----------
    histories : iterable of (rank, its round records)
        Complete: all ranks, all rounds.
    survivors : frozenset[Rank] | None
        If ranks died, those that did not; exchanges with the dead cannot be checked.

    Returns
    -------
    int
        How many exchanges there were.
    """
    seen: dict[tuple[Rank, int, Rank, int], float] = {}
    for rank, records in histories:
        for record in records:
            for peer, peer_round, weight, *_ in record.exchanges:
                if survivors is None or peer in survivors:
                    seen[rank, record.round, peer, peer_round] = weight
    for (i, a, j, b), weight in seen.items():
        other = seen.get((j, b, i, a))
        if other is None:
            raise ProtocolError(f"round {a} of rank {i} exchanged with round {b} of rank {j}, but not the other way round")
        if other != weight:
            raise ProtocolError(f"edge ({i}, {j}), rounds {a} and {b}: one end weighs {weight}, the other {other}")
    return len(seen) // 2


def _require(holds: bool, engine: NeighbourEngine, what: str) -> None:
    if not holds:
        raise ProtocolError(f"rank {engine.rank}, round {engine.view.round}, {engine.phase.value}: {what}")
