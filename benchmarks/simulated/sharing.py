"""Ranks that work out the same thing share it: the rules as they are, with a memory for a whole simulated network.

Every rank of a real network finds the backbone, and follows the epochs, by itself. In a simulation of 1,024 ranks in one process
that is the same work 1,024 times over, and all of the time goes into it. Here what one has worked out is handed to the others as
the same object, and a pair of (object, edge) is worked out once. Nothing is decided otherwise; a test compares the two.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from consensus.protocol.decision import Rule, View
from consensus.rules import build
from consensus.rules.dtur import Dtur
from consensus.rules.gap import Gap, GapState
from consensus.rules.pathsearch import Pathsearch
from consensus.topology.backbone import backbone
from consensus.types import Edge, Rank

_MOST = 4096
"""Results that are remembered; a thousand ranks' open edges take 64 KiB, and old ones are never asked for again."""


class _Memory:
    """Results by the identity of what they were made from, which is kept alive for it."""

    def __init__(self) -> None:
        self._known: dict[tuple[Any, ...], tuple[Any, Any]] = {}

    def recall(self, what: Any, key: object, make: Callable[[], Any]) -> Any:
        known = self._known.get((id(what), key))
        if known is None:
            if len(self._known) >= _MOST:
                self._known.clear()
            known = self._known[id(what), key] = (what, make())
        return known[1]


def shared(name: str, **parameters: Any) -> Rule:
    """The rule called ``name``, to be used in one simulated network that nobody leaves.

    Examples
    --------
    >>> shared("dtur").name, shared("full").name
    ('dtur', 'full')
    """
    rule = build(name, **parameters)
    wrap = _SHARED.get(type(rule))
    return rule if wrap is None else wrap(rule)


def _epochs(kind: type[Dtur] | type[Pathsearch]) -> Callable[[Any], Rule]:
    def wrap(rule: Any) -> Rule:
        memory = _Memory()

        class Shared(kind):  # type: ignore[misc, valid-type]
            def begin(self, view: View) -> Any:
                return memory.recall(view.adjacency, "begin", lambda: rule.begin(view))

            def count(self, used: Any, edge: Edge) -> Any:
                return memory.recall(used, edge, lambda: rule.count(used, edge))

            def complete(self, used: Any) -> bool:
                return bool(memory.recall(used, "complete", lambda: rule.complete(used)))

        shared_rule: Rule = Shared()
        return shared_rule

    return wrap


def _gap(rule: Gap) -> Rule:
    memory = _Memory()

    def spines(view: View) -> dict[Rank, set[Rank]]:
        found: dict[Rank, set[Rank]] = {rank: set() for rank in view.adjacency}
        for i, j in backbone(view.adjacency):
            found[i].add(j)
            found[j].add(i)
        return found

    class Shared(Gap):
        def start(self, view: View) -> GapState:
            return GapState(frozenset(memory.recall(view.adjacency, "spines", lambda: spines(view))[view.rank]))

    return Shared(rule.quorum, rule.window)


_SHARED: dict[type[Any], Callable[[Any], Rule]] = {Dtur: _epochs(Dtur), Pathsearch: _epochs(Pathsearch), Gap: _gap}
