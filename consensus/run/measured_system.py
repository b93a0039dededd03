"""The system that a run with coded gradients was, by its traces: what its nodes' computing and links took."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from consensus.coding import GradientCode, construct
from consensus.coding.fit import fit_link, fit_worker, thinned
from consensus.coding.layout import MASTER, Layout
from consensus.coding.load import least_load
from consensus.coding.system import Edge, System
from consensus.config.coding import SELECTED
from consensus.errors import ConfigError
from consensus.report.load import LoadedRun, load_run
from consensus.trace import Trace, TracedRound
from consensus.types import Rank, Seconds

FEWEST_STEPS = 10
"""Steps of every worker, and transfers of a link by themselves: fewer do not show how times scatter. A limit of ours."""

_Times: TypeAlias = list[Seconds]


class MeasuredSystem(NamedTuple):
    """A system and how it was found.

    Attributes
    ----------
    system : System
        Nodes and links, with the seconds per part that were measured.
    parts : int
        K of the run: as large as one of those is the part that a worker's seconds are for.
    notes : tuple of str
        What was done without, a sentence each.
    """

    system: System
    parts: int
    notes: tuple[str, ...]


def measured_system(folder: Path) -> MeasuredSystem:
    """Take the times of a finished run with coded gradients, real or simulated, from its traces.

    *Computing*: the local steps whose vectors were sent, over the worker's number of parts. What was interrupted, or under way
    at the end, is left out, and so is every worker's first step, which warms caches up.

    *Links*: up, from when the receiver knew of a vector until it was there; only vectors that were used are known. Down, from
    when a worker knew of weights until they were there, if it was idle then: on real ranks nothing moves while a rank computes.
    If both are known they count alike. Edges do not tell when they knew of weights: their way down is taken to be as the way up.

    Parameters
    ----------
    folder : Path
        Of the run.

    Returns
    -------
    MeasuredSystem
        The system.

    Raises
    ------
    ConfigError
        If the run is not finished, has no edges or no traces, is too short, or nearly never used an edge's vectors.
    """
    run = load_run(folder)
    told = _coding(run)
    layout = Layout(tuple(told["workers_per_edge"]))
    steps = _steps(run, layout, _loads(run, layout, told))
    links = _Links(run, layout, {rank: lines for rank, (_, lines) in steps.items()})
    edges = []
    for number, (rank, own) in enumerate(zip(layout.edges, layout.workers, strict=True)):
        workers = [
            fit_worker({steps[worker][0]: [line.compute for line in steps[worker][1]]}, links.of_worker(number, worker))
            for worker in own
        ]
        edges.append(Edge(workers=workers, **fit_link(links.of_edge(rank))._asdict()))
    return MeasuredSystem(System(edges), told["parts"], (*_interrupted(run, layout), *links.notes()))


def _coding(run: LoadedRun) -> Mapping[str, Any]:
    """What the summary tells of the code; raises unless traces tell of a system with edges."""
    folder, summary = run.folder, run.summary
    if summary is None:
        raise ConfigError(f"{folder}: no summary.json: the run has not come to its end, or was killed; give one that has ended")
    told: Mapping[str, Any] | None = summary.get("coding")
    if told is None:
        raise ConfigError(
            f"{folder}: a run with rule {run.config.rule.name!r}, expected one with coded gradients: only there are edges and "
            "workers to be measured. Record one, of scheme uncoded say: --set rule.name=uncoded"
        )
    if not told["relayed"]:
        raise ConfigError(
            f"{folder}: with scheme {run.config.rule.name!r} workers send to the master, and there are no edges to be measured; "
            "record a run of another scheme: --set rule.name=uncoded"
        )
    if not run.traces:
        raise ConfigError(f"{folder}: no traces, run.trace was off; record the run again: --set run.trace=true")
    return told


def _loads(run: LoadedRun, layout: Layout, told: Mapping[str, Any]) -> dict[Rank, int]:
    """How many parts each worker computed, by the code made again: the summary tells of the most alone."""
    for code in _codes(run, layout, told):
        needed = {"master": code.master.needed, "edges": [layer.needed for layer in code.edges]}
        if (code.load, needed) == (told["load"], told["needed"]):
            return dict(zip(range(layout.edges.stop, layout.size), code.loads, strict=True))
    raise ConfigError(
        f"{run.folder}: summary.json tells of {told['load']} parts per worker and {told['needed']} nodes needed, which its "
        "config.toml does not give: the files are of different runs, or of another version of consensus (summary.json names it)"
    )


def _codes(run: LoadedRun, layout: Layout, told: Mapping[str, Any]) -> Iterator[GradientCode]:
    """Codes that the run may have had; only of one that was chosen for a system the run file does not tell the tolerance."""
    coding, scheme, counts, parts = run.config.coding, run.config.rule.name, layout.workers_per_edge, told["parts"]
    tolerances: Iterable[tuple[int, int]] = [coding.tolerance(layout)]
    if scheme == SELECTED:
        scheme = "hgc"
        tolerances = [
            tolerance
            for tolerance in product(range(len(counts)), range(min(counts)))
            if least_load(counts, parts, *tolerance) == told["load"]
        ]
    for tolerance in tolerances:
        yield construct(scheme, counts, parts, *tolerance, kind=coding.kind, seed=run.config.run.seed)


def _steps(run: LoadedRun, layout: Layout, loads: Mapping[Rank, int]) -> dict[Rank, tuple[int, Sequence[TracedRound]]]:
    """For every worker how many parts it computed, and the steps whose vectors it sent."""
    idle = [rank for rank, load in loads.items() if not load]
    if idle:
        raise ConfigError(
            f"{run.folder}: {_ranks(idle)} had no part, so nothing is known of its computing; record a run with "
            f"coding.parts = {len(loads)} or more"
        )
    found = {rank: [line for line in run.traces[rank].rounds[1:] if line.exchanges] for rank in loads}
    few = {rank: len(lines) for rank, lines in found.items() if len(lines) < FEWEST_STEPS}
    if few:
        least = min(few, key=lambda rank: few[rank])
        raise ConfigError(
            f"{run.folder}: {_ranks(few)} sent too few vectors, rank {least} the least: {few[least]} after its first step, "
            f"expected {FEWEST_STEPS}; record a longer run, of scheme uncoded if these ranks are slow, which waits for all: "
            "--set rule.name=uncoded"
        )
    return {rank: (loads[rank], lines) for rank, lines in found.items()}


class _Links:
    """Seconds of single transfers."""

    def __init__(self, run: LoadedRun, layout: Layout, steps: Mapping[Rank, Sequence[TracedRound]]) -> None:
        self._layout = layout
        self._up = {edge: _up(run.traces[edge]) for edge in (MASTER, *layout.edges)}
        self._down = {rank: list(_undisturbed(lines, run.simulated)) for rank, lines in steps.items()}
        self._like_others: list[Rank] = []
        silent = [edge for edge in layout.edges if len(self._up[MASTER][edge]) < FEWEST_STEPS]
        if silent:
            raise ConfigError(
                f"{run.folder}: the master used less than {FEWEST_STEPS} vectors of {_ranks(silent)}, and nothing else tells how "
                "fast the link of an edge is; record a run that waits for all: --set rule.name=uncoded"
            )

    def of_worker(self, edge: int, rank: Rank) -> _Times:
        """Between a worker and its edge; of one of which too little is known, all of that edge's workers, or all workers."""
        own = self._known([rank])
        if len(own) >= FEWEST_STEPS:
            return own
        self._like_others.append(rank)
        siblings = self._known(self._layout.workers[edge])
        return siblings if len(siblings) >= FEWEST_STEPS else self._known(self._down)

    def _known(self, workers: Iterable[Rank]) -> _Times:
        workers = list(workers)
        up = [time for rank in workers for time in self._up[self._layout.above(rank)].get(rank, [])]
        down = [time for rank in workers for time in self._down[rank]]
        if min(len(up), len(down)) < FEWEST_STEPS:
            return max(up, down, key=len)
        count = min(len(up), len(down))
        return [*thinned(up, count), *thinned(down, count)]

    def of_edge(self, rank: Rank) -> _Times:
        """Between an edge and the master."""
        return self._up[MASTER][rank]

    def notes(self) -> Iterator[str]:
        """What was done without."""
        if self._like_others:
            yield (
                f"The links of {_ranks(self._like_others)} are taken to be like those of other workers: what it sent was hardly "
                "ever waited for."
            )


def _undisturbed(lines: Iterable[TracedRound], simulated: bool) -> Iterator[Seconds]:
    """How long weights took to a worker; on a virtual clock they come whatever it is at."""
    for line in lines:
        for _, _, known, done in line.exchanges:
            if simulated or known >= line.opened:
                yield done - known


def _up(trace: Trace) -> dict[Rank, _Times]:
    """By sender, how long what it sent took."""
    found: dict[Rank, _Times] = defaultdict(list)
    for line in trace.rounds:
        for sender, _, known, done in line.exchanges:
            found[sender].append(done - known)
    return found


def _interrupted(run: LoadedRun, layout: Layout) -> Iterator[str]:
    lines = [line for own in layout.workers for rank in own for line in run.traces[rank].rounds]
    dropped = sum(not line.exchanges for line in lines)
    if run.config.coding.push == "interrupt" and dropped:
        yield (
            f"{dropped} of {len(lines)} steps were interrupted, or cut off by the end, and are left out. Slow ones were, so "
            "that times look shorter than they are; a run with coding.push = 'wait' shows them all."
        )


def _ranks(ranks: Iterable[Rank]) -> str:
    numbers = list(ranks)
    return f"rank{'s' * (len(numbers) > 1)} {', '.join(map(str, numbers))}"
