"""``summary.json``: a run in one table."""

from __future__ import annotations

import resource
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import torch

from consensus import __version__
from consensus.coding import GradientCode
from consensus.config import RunConfig
from consensus.config.section import OpenSection
from consensus.handle import Handle
from consensus.protocol.server import ServerEngine
from consensus.run.checkpoints import Found
from consensus.run.results import Metrics, seconds_to
from consensus.run.stops import Ended, agree
from consensus.statistics import Statistics
from consensus.types import Seconds


@dataclass(frozen=True, slots=True)
class RankResult:
    """What one rank reports when it has trained; docs/results.md describes the keys."""

    samples: int
    rounds: int
    compute_seconds: Seconds
    wait_seconds: Seconds
    mix_seconds: Seconds
    exchanges: int
    mean_backups: float
    bytes_sent: int
    peak_rss_bytes: int | None
    ended: Ended | None
    ended_at: Seconds


def rank_result(handle: Handle, samples: int, ended: Ended | None, ended_at: Seconds) -> RankResult:
    """The result of this rank, whose training has just ended."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return result_of(handle.statistics, samples, handle.transport.bytes_sent, peak, ended, ended_at)


def result_of(
    statistics: Statistics, samples: int, bytes_sent: int, peak: int | None, ended: Ended | None, ended_at: Seconds
) -> RankResult:
    """The result of a rank with these statistics; ``peak`` is its resident memory, bytes, None if it has none of its own."""
    s = statistics
    return RankResult(
        samples,
        s.rounds,
        round(s.compute_seconds, 6),
        round(s.wait_seconds, 6),
        round(s.mix_seconds, 6),
        s.exchanges,
        s.mean_backups,
        bytes_sent,
        peak,
        ended,
        ended_at,
    )


LOST = RankResult(0, 0, 0.0, 0.0, 0.0, 0, 0.0, 0, None, None, 0.0)
"""Of a rank that died: nobody knows more."""


def summarise(
    config: RunConfig,
    started: datetime,
    ranks: Sequence[RankResult],
    metrics: Sequence[Metrics],
    *,
    simulated: bool = False,
    server: ServerEngine | None = None,
    coding: dict[str, Any] | None = None,
    found: Found | None = None,
    lost: Sequence[int] = (),
) -> dict[str, Any]:
    """Put together ``summary.json``.

    Parameters
    ----------
    config
        Of the run.
    started
        When its clock was 0.
    ranks
        By rank.
    metrics
        In order of time, the last line at the end of the run.
    simulated
        Whether the clock was a virtual one.
    server
        The parameter server's engine, if there was one.
    found
        What the run went on from, if it did.
    lost
        Ranks that died; their rows are empty.
    coding
        What :func:`coding_of` says, if gradients were coded.
    """
    ended = agree([(result.ended, result.ended_at) for result in ranks])
    last = metrics[-1]
    return {
        "name": config.run.name,
        "architecture": config.kind,
        "rule": _named(config.rule),
        "topology": _named(config.topology) if config.kind == "neighbours" else None,
        "server": None if server is None else _of_server(server, config.server.servers),
        "coding": None if coding is None else {**coding, "payload": config.coding.payload, "push": config.coding.push},
        "ranks": len(ranks),
        "seed": config.run.seed,
        "simulated": simulated,
        "lost": list(lost),
        "resumed": None if found is None else found.told(),
        "started": started.isoformat(timespec="seconds"),
        "ended": _word(ended),
        "wall_seconds": round(max(result.ended_at for result in ranks), 6),
        "samples": sum(result.samples for result in ranks),
        "rounds": [result.rounds for result in ranks],
        "targets": seconds_to(metrics),
        "final": {"accuracy": last.accuracy, "loss": last.loss},
        "consensus_distance": last.consensus_distance,
        "per_rank": [_of_rank(result) for result in ranks],
        "versions": _versions(),
    }


def _named(section: OpenSection) -> dict[str, Any]:
    return section.model_dump(by_alias=True, exclude_none=True)


def coding_of(code: GradientCode, master: ServerEngine, residual: float) -> dict[str, Any]:
    """What ``summary.json`` says of coded gradients; ``residual`` is the largest of all updates."""
    return {
        "workers_per_edge": list(code.workers_per_edge),
        "relayed": not code.direct,
        "parts": code.parts,
        "load": code.load,
        "needed": {"master": code.master.needed, "edges": [layer.needed for layer in code.edges]},
        "kappa": round(code.kappa, 3),
        "updates": master.round,
        "discarded": _by_rank(master.discarded),
        "worst_residual": residual,
    }


def _by_rank(counts: Counter[int]) -> dict[str, int]:
    return {str(rank): count for rank, count in sorted(counts.items())}


def _of_server(engine: ServerEngine, servers: int) -> dict[str, Any]:
    told = {"servers": servers, "push": engine.push, "updates": engine.round, "gradients": engine.arrived}
    return {**told, "discarded": _by_rank(engine.discarded), "rejected": _by_rank(engine.rejected)}


def _word(ended: Ended | None) -> str | None:
    return None if ended is None else ended.word


def _of_rank(result: RankResult) -> dict[str, Any]:
    return {**asdict(result), "ended": _word(result.ended), "ended_at": round(result.ended_at, 6)}


def _versions() -> dict[str, str | None]:
    # Only a rank under MPI has it loaded, and nothing here is a reason to load it.
    mpi = sys.modules.get("mpi4py.MPI")
    library = mpi.Get_library_version().strip("\0").split("\n")[0].strip() if mpi else None
    return {"consensus": __version__, "torch": torch.__version__, "mpi": library}
