"""The schemes by the names that run files use."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from consensus.coding.flat import FlatCode
from consensus.coding.gradient_code import GradientCode
from consensus.coding.greedy import GreedyCode
from consensus.coding.hierarchical import HierarchicalCode
from consensus.names import lookup


def _uncoded(workers: Sequence[int], parts: int, s_e: int, s_w: int, kind: str, seed: int) -> GradientCode:
    return HierarchicalCode(workers, parts, 0, 0, kind=kind, seed=seed)


def _greedy(workers: Sequence[int], parts: int, s_e: int, s_w: int, kind: str, seed: int) -> GradientCode:
    return GreedyCode(workers, parts, s_e, s_w)


def _worker(workers: Sequence[int], parts: int, s_e: int, s_w: int, kind: str, seed: int) -> GradientCode:
    return HierarchicalCode(workers, parts, 0, s_w, kind=kind, seed=seed)


def _edge(workers: Sequence[int], parts: int, s_e: int, s_w: int, kind: str, seed: int) -> GradientCode:
    return HierarchicalCode(workers, parts, s_e, 0, kind=kind, seed=seed)


def _flat(workers: Sequence[int], parts: int, s_e: int, s_w: int, kind: str, seed: int) -> GradientCode:
    return FlatCode(workers, parts, s_e, s_w, kind=kind, seed=seed)


def _hgc(workers: Sequence[int], parts: int, s_e: int, s_w: int, kind: str, seed: int) -> GradientCode:
    return HierarchicalCode(workers, parts, s_e, s_w, kind=kind, seed=seed)


SCHEMES: Mapping[str, Callable[[Sequence[int], int, int, int, str, int], GradientCode]] = MappingProxyType(
    {"uncoded": _uncoded, "greedy": _greedy, "worker": _worker, "edge": _edge, "flat": _flat, "hgc": _hgc}
)
"""How each scheme is made of workers per edge, parts, s_e, s_w, kind and seed."""


def construct(
    scheme: str,
    workers_per_edge: Sequence[int],
    parts: int,
    edge_stragglers: int,
    worker_stragglers: int,
    *,
    kind: str = "auto",
    seed: int = 0,
) -> GradientCode:
    """Make a scheme from its name.

    Parameters
    ----------
    scheme : {"uncoded", "greedy", "worker", "edge", "flat", "hgc"}
        ``uncoded`` waits for all; ``greedy`` takes the first and drops the rest; ``worker`` and ``edge`` code one layer alone and
        wait for all of the other; ``flat`` codes all workers as one layer; ``hgc`` is the hierarchical code.
    workers_per_edge : sequence of int, shape (n,)
    parts : int
        K.
    edge_stragglers, worker_stragglers : int
        s_e and s_w; a scheme that codes one layer alone makes nothing of the other.
    kind : {"auto", "ones", "trig", "gaussian"}
        Of coefficients, where there are any.
    seed : int
        Of what is drawn for them.

    Returns
    -------
    GradientCode

    Raises
    ------
    ConfigError
        If the scheme is unknown or cannot be made of these numbers.

    Examples
    --------
    >>> [construct(name, [3, 3, 3], 18, 1, 1).load for name in SCHEMES]
    [2, 2, 4, 4, 12, 8]
    """
    return lookup("scheme", scheme, SCHEMES)(workers_per_edge, parts, edge_stragglers, worker_stragglers, kind, seed)
