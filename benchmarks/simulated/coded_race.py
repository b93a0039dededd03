"""Schemes of coded gradients against each other in one simulated system, each at the tolerance that suits it best."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.simulated.coded import PUSH, SLOW_EDGE, WORKERS, Made, Regime, simulate, without
from consensus.coding import GradientCode, construct
from consensus.coding.arcs import even_counts
from consensus.coding.flat import silent_workers
from consensus.coding.runtime import Tolerance
from consensus.coding.selection import select
from consensus.coding.succession import update_seconds
from consensus.coding.system import System

JNCSS = "hgc-jncss"
"""The hierarchical code at the tolerance that is chosen for the system."""


@dataclass(frozen=True)
class Entry:
    """A scheme at a tolerance, as it was measured; ``label`` is its row's name."""

    label: str
    scheme: str
    tolerance: Tolerance
    code: GradientCode
    made: Made
    model: float

    def told(self) -> dict[str, Any]:
        """What is written into results."""
        code = self.code
        worst = {"kappa": round(code.kappa, 1), "kappa_exact": code.kappa_exact}
        row = {"label": self.label, "scheme": self.scheme, "tolerance": self.tolerance, "load": code.load, **worst}
        return {**row, "seconds": self.made.pace, "model": None if math.isnan(self.model) else self.model}


class Race:
    """Schemes in one system.

    Parameters
    ----------
    regime
        What the system is like.
    updates, trial
        Of a measurement, and of a trial.
    tried
        Tolerances of a scheme that are tried at most: those that the runtime model thinks most of; of a flat code, which it does
        not describe, those of least load.
    seed
        Of measurements; trials have another one, so that the best is not the luckiest.
    """

    def __init__(self, regime: Regime, updates: int, trial: int, tried: int, seed: int) -> None:
        self.system, self.parts = regime.system(), regime.count
        self._updates, self._trial, self._tried, self._seed = updates, trial, tried, seed
        self.selection = select(self.system, self.parts, push=PUSH)
        self._trials: dict[tuple[str, Tolerance], float] = {}
        self._measured: dict[tuple[str, Tolerance], tuple[GradientCode, Made, float]] = {}

    def measure(self, label: str, scheme: str, tolerance: Tolerance) -> Entry:
        """Simulate a scheme."""
        key = _same(scheme, tolerance)
        if key not in self._measured:
            code = construct(scheme, WORKERS, self.parts, *tolerance)
            made = simulate(code, self.system, self._updates, self._seed)
            self._measured[key] = code, made, _expected(self.system, code)
        return Entry(label, scheme, tolerance, *self._measured[key])

    def best(self, scheme: str) -> Tolerance:
        """The tolerance of the scheme that was fastest in a trial."""
        return min(self._options(scheme), key=lambda tolerance: self._pace(scheme, tolerance))

    def selected(self) -> Entry:
        """hgc-jncss."""
        return self.measure(JNCSS, "hgc", (self.selection.edge_stragglers, self.selection.worker_stragglers))

    def dropped(self, chosen: bool) -> Entry:
        """All parts by the workers that are not slow, without the slow edge if that is faster by the model.

        Parameters
        ----------
        chosen
            Whether with the code that is chosen for them; uncoded otherwise.
        """
        rests = without(self.system), without(self.system, edges=[SLOW_EDGE])
        choices = [(rest, select(rest, self.parts, push=PUSH)) for rest in rests]
        if chosen:
            rest, choice = min(choices, key=lambda pair: pair[1].expected)
            tolerance = choice.edge_stragglers, choice.worker_stragglers
        else:
            rest, choice = min(choices, key=lambda pair: pair[1].times[0, 0])
            tolerance = (0, 0)
        code = construct("hgc", rest.workers_per_edge, self.parts, *tolerance)
        made = simulate(code, rest, self._updates, self._seed)
        name = f"slow ones dropped, {JNCSS if chosen else 'uncoded'} on {list(rest.workers_per_edge)}"
        return Entry(name, "hgc" if chosen else "uncoded", tolerance, code, made, choice.times[tolerance])

    def _options(self, scheme: str) -> list[Tolerance]:
        options = list(tolerances(scheme, WORKERS))
        if scheme != "flat":
            return sorted(options, key=lambda tolerance: self.selection.times[tolerance])[: self._tried]
        loads = {self._flat_load(tolerance): tolerance for tolerance in reversed(options)}
        # A flat code of which every worker computes half of everything or more need not be tried.
        return [loads[load] for load in sorted(loads) if 2 * load <= self.parts][: self._tried]

    def _flat_load(self, tolerance: Tolerance) -> int:
        """As the code would have it, which takes long to make if many may be silent."""
        return max(even_counts(self.parts, sum(WORKERS), silent_workers(WORKERS, *tolerance)))

    def _pace(self, scheme: str, tolerance: Tolerance) -> float:
        key = _same(scheme, tolerance)
        if key not in self._trials:
            code = construct(key[0], WORKERS, self.parts, *tolerance)
            self._trials[key] = simulate(code, self.system, self._trial, self._seed + 1).pace
        return self._trials[key]


def _same(scheme: str, tolerance: Tolerance) -> tuple[str, Tolerance]:
    """What tells the scheme from others: those that code one layer alone, or none, are hgc with a 0."""
    return scheme if scheme in ("flat", "greedy") else "hgc", tolerance


def _expected(system: System, code: GradientCode) -> float:
    """Seconds per update by the model that hgc-jncss chooses by."""
    return math.nan if code.direct else float(update_seconds(system, code, PUSH).mean())


def tolerances(scheme: str, workers: Sequence[int]) -> Iterator[Tolerance]:
    """All that a scheme makes something of.

    Examples
    --------
    >>> list(tolerances("edge", (2, 3))), list(tolerances("worker", (2, 3)))
    ([(0, 0), (1, 0)], [(0, 0), (0, 1)])
    """
    edges = range(1 if scheme in ("uncoded", "worker") else len(workers))
    silent = range(1 if scheme in ("uncoded", "edge") else min(workers))
    return ((s_e, s_w) for s_e in edges for s_w in silent)
