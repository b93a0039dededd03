"""A run and what was found about it in plain sentences, for the page and the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from consensus.report.load import LoadedRun
from consensus.report.stragglers import Delay, EdgeFinding, Findings, Kind, RankFinding
from consensus.types import Rank

_EDGES_NAMED = 5


def facts(run: LoadedRun) -> dict[str, str]:
    """What a reader wants to know first about a run."""
    summary = run.summary or {}
    versions = (
        f"{name} {version.partition(',')[0]}" for name, version in (summary.get("versions") or {}).items() if version is not None
    )
    final = summary.get("final") or {}
    table = {
        "rule": run.rule,
        "topology": _topology(run),
        "ranks": str(run.ranks),
        "seed": str(run.config.run.seed),
        "stragglers": run.config.stragglers.model,
        "clock": "virtual: a simulated run" if run.simulated else "real",
        "started": str(summary.get("started", "")),
        "ended": str(summary.get("ended", "not finished") or "nobody who is left knows why"),
        "length": f"{run.seconds:.2f} s" + ("" if run.finished else " so far"),
        "samples": f"{summary['samples']:,}".replace(",", " ") if "samples" in summary else "",
        "final accuracy": _number(final.get("accuracy")),
        "final loss": _number(final.get("loss")),
        "consensus distance": _number(summary.get("consensus_distance")),
        "versions": ", ".join(versions),
        "folder": str(run.folder),
    }
    return {name: text for name, text in table.items() if text}


def _topology(run: LoadedRun) -> str:
    if run.config.serves:
        servers = run.config.server.servers
        return "a parameter server" if servers == 1 else f"{servers} parameter servers, a share each"
    if run.config.codes:
        layout = run.config.layout(run.ranks)
        counts = ", ".join(map(str, layout.workers_per_edge))
        return f"a master, edges with {counts} workers" if layout.relayed else f"a master, {sum(layout.workers_per_edge)} workers"
    graph = run.config.topology
    return f"{graph.kind or graph.file}" + "".join(f", {key} = {value}" for key, value in graph.parameters.items())


def verdicts(findings: Findings) -> Iterator[str]:
    """What is slow, a sentence each; that nothing is, if so."""
    alike: dict[tuple[str, Kind], list[tuple[RankFinding, Delay]]] = {}
    for rank in findings.ranks:
        for what, delay in (("compute", rank.computing), ("network", rank.talking)):
            if delay is not None and what in rank.slow:
                alike.setdefault((what, delay.kind), []).append((rank, delay))
    slow = [_of_ranks(what, kind, members) for (what, kind), members in alike.items()]
    edges = [edge for edge in findings.edges if edge.slow]
    slow += [_of_edge(edge) for edge in edges[:_EDGES_NAMED]]
    slow += [f"So are {len(edges) - _EDGES_NAMED} more edges."] if len(edges) > _EDGES_NAMED else []
    yield from slow or ["No rank and no edge is slower than the others by enough to matter."]


_UNITS = {"compute": "step", "network": "transfer"}


def _of_ranks(what: str, kind: Kind, members: Sequence[tuple[RankFinding, Delay]]) -> str:
    unit = _UNITS[what]
    if kind is Kind.PERSISTENT:
        how = f"always ({_range([delay.score for _, delay in members], 1)} times the typical {unit})"
    else:
        tails = _range([100 * delay.tail for _, delay in members], 1)
        how = f"now and then ({tails} % of the {unit}s take over three times the typical one)"
    who = f"{'Rank' if len(members) == 1 else 'Ranks'} {_enumeration([rank.rank for rank, _ in members])}"
    return f"{who}: {what} is slow, {how}; {_range([100 * delay.lost for _, delay in members], 0)} % of the time lost."


def _enumeration(ranks: Sequence[Rank]) -> str:
    """Numbers in words, runs of three and more as first to last."""
    runs: list[list[Rank]] = []
    for rank in ranks:
        if runs and rank == runs[-1][-1] + 1:
            runs[-1].append(rank)
        else:
            runs.append([rank])
    return ", ".join(f"{run[0]} to {run[-1]}" if len(run) > 2 else ", ".join(map(str, run)) for run in runs)


def _range(values: Sequence[float], digits: int) -> str:
    least, most = f"{min(values):.{digits}f}", f"{max(values):.{digits}f}"
    return least if least == most else f"{least} to {most}"


def _of_edge(edge: EdgeFinding) -> str:
    i, j = edge.edge
    return f"Edge {i} – {j} is slow ({edge.score:.1f} times the typical transfer, {1e3 * edge.median:.2f} ms)."


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
