"""The section of coded gradients, and what becomes of it for a number of ranks."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from consensus.coding import SCHEMES, GradientCode, construct
from consensus.coding.layout import Layout
from consensus.coding.system import System
from consensus.config.section import Count, Index, Section
from consensus.errors import ConfigError
from consensus.timing import ParameterError

if TYPE_CHECKING:
    from consensus.coding.runtime import Tolerance
    from consensus.coding.succession import Push

SELECTED = "hgc-jncss"
"""The hierarchical code whose tolerance is chosen for the system at hand."""

CODED_RULES = (*SCHEMES, SELECTED)
"""What may stand where a rule's name does."""


class Coding(Section):
    """How gradients are coded."""

    scheme: str | None = None
    workers_per_edge: list[Count] | None = None
    parts: Count | None = None
    edge_stragglers: Index | None = None
    worker_stragglers: Index | None = None
    kind: Literal["auto", "ones", "trig", "gaussian"] = "auto"
    payload: Literal["float32", "float64", "bfloat16"] = "float32"
    push: Literal["wait", "interrupt"] = "wait"
    approximate: bool = False
    any_kappa: bool = False
    system: str | None = None

    def layout(self, scheme: str, size: int) -> Layout:
        """Who is what among ``size`` ranks.

        Raises
        ------
        ConfigError
            If the layout that was asked for has another number of ranks, or there are too few for any.
        """
        relayed = scheme != "flat"
        if self.workers_per_edge is not None:
            layout = Layout(tuple(self.workers_per_edge), relayed)
            if layout.size != size:
                edges = f", {len(layout.edges)} edges" if relayed else ""
                raise ParameterError(
                    "coding",
                    [
                        f"workers_per_edge = {self.workers_per_edge}: takes {layout.size} ranks (a master{edges} and "
                        f"{sum(self.workers_per_edge)} workers), but there are {size}; start {layout.size}, or change the layout"
                    ],
                )
            return layout
        return Layout(_evenly(size, relayed), relayed)

    def size(self, scheme: str, workers: int) -> int:
        """How many ranks it takes for so many workers."""
        if self.workers_per_edge is not None:
            return Layout(tuple(self.workers_per_edge), scheme != "flat").size
        return 1 + workers + _edges(workers) * (scheme != "flat")

    def tolerance(self, layout: Layout) -> tuple[int, int]:
        """s_e and s_w: as given, otherwise one each where that many can be lost."""
        counts = layout.workers_per_edge
        s_e = min(1, len(counts) - 1) if self.edge_stragglers is None else self.edge_stragglers
        return s_e, min(1, min(counts) - 1) if self.worker_stragglers is None else self.worker_stragglers

    def count_parts(self, layout: Layout) -> int:
        """K: as given, otherwise one for each worker."""
        return sum(layout.workers_per_edge) if self.parts is None else self.parts

    def build(self, scheme: str, size: int, seed: int, system: System | None = None) -> GradientCode:
        """The code for ``size`` ranks.

        Parameters
        ----------
        scheme : str
            One of :data:`CODED_RULES`.
        size : int
            Number of ranks.
        seed : int
            Of what is drawn for coefficients.
        system : System, optional
            What nodes are expected to take, for the scheme that is chosen by it; by default that of the file ``system``.

        Raises
        ------
        ConfigError
            If it cannot be made.
        """
        layout = self.layout(scheme, size)
        parts, (s_e, s_w) = self.count_parts(layout), self.tolerance(layout)
        if scheme == SELECTED:
            return self._selected(layout, parts, seed, self.read_system() if system is None else system)
        return construct(scheme, layout.workers_per_edge, parts, s_e, s_w, kind=self.kind, seed=seed)

    def read_system(self) -> System:
        """The file ``system``.

        Raises
        ------
        ConfigError
            If there is none, or it does not describe a system.
        """
        if self.system is None:
            raise ParameterError(
                "coding",
                [
                    f"system: missing; scheme {SELECTED!r} chooses by what each node takes. Name a file that says so, which "
                    "`consensus select RUN --out system.json` makes from the trace of a run with coded gradients"
                ],
            )
        return System.read(Path(self.system))

    def _selected(self, layout: Layout, parts: int, seed: int, system: System) -> GradientCode:
        if system.workers_per_edge != layout.workers_per_edge:
            raise ParameterError(
                "coding",
                [
                    f"system: describes {list(system.workers_per_edge)} workers per edge, but the layout has "
                    f"{list(layout.workers_per_edge)}; measure this layout"
                ],
            )
        # The quickest that there is of this kind, and whose payload is not refused; no code at all always is one.
        for tolerance in _by_time(system, parts, self.push):
            try:
                code = construct("hgc", layout.workers_per_edge, parts, *tolerance, kind=self.kind, seed=seed)
                code.check_dtype(self.payload, allow=self.any_kappa)
            except ConfigError:
                continue
            return code
        raise AssertionError("no code at all was refused")


@cache
def _by_time(system: System, parts: int, push: Push) -> tuple[Tolerance, ...]:
    """All tolerances, the quickest first; every look at a run file asks."""
    from consensus.coding.selection import select

    times = select(system, parts, push=push).times
    return tuple(sorted(times, key=lambda tolerance: (times[tolerance], tolerance)))


def _edges(workers: int) -> int:
    return max(1, round(math.sqrt(workers)))


def _evenly(size: int, relayed: bool) -> tuple[int, ...]:
    """About as many edges as each has workers."""
    if not relayed:
        workers = size - 1
        edges = _edges(workers) if workers > 0 else 0
    else:
        # The most edges whose workers would ask for so many.
        edges = max((edges for edges in range(1, size - 1) if _edges(size - 1 - edges) >= edges), default=0)
        workers = size - 1 - edges
    if not edges:
        raise ConfigError(f"{size} ranks are too few for coded gradients; start {3 if relayed else 2} or more")
    return tuple(workers * (edge + 1) // edges - workers * edge // edges for edge in range(edges))
