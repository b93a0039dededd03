"""Ranks that work out the same thing share it: pathsearch as it is, with a memory for a whole simulated network.

Every rank of a real network follows the epochs by itself, and under pathsearch each announcement has it label all ranks anew. In
a simulation of 1,024 ranks in one process that is the same work 1,024 times over, and nearly all of the time goes into it. Here
what one has worked out is handed to the others as the same object, and a pair of (object, edge) is worked out once. Nothing is
decided otherwise; a test compares the two. (The other rules are fast enough: the backbone is shared by the network itself.)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from consensus.protocol.decision import Rule, View
from consensus.rules import build
from consensus.rules.pathsearch import Pathsearch
from consensus.types import Edge

_MOST = 4096
"""Results that are remembered; old ones are never asked for again."""


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
    >>> shared("pathsearch").name, shared("full").name
    ('pathsearch', 'full')
    """
    rule = build(name, **parameters)
    return _Shared() if isinstance(rule, Pathsearch) else rule


class _Shared(Pathsearch):
    """Pathsearch for one network."""

    def __init__(self) -> None:
        object.__setattr__(self, "_memory", _Memory())

    def begin(self, view: View) -> Any:
        return self._memory.recall(view.adjacency, "begin", lambda: super(_Shared, self).begin(view))

    def count(self, used: Any, edge: Edge) -> Any:
        return self._memory.recall(used, edge, lambda: super(_Shared, self).count(used, edge))

    def complete(self, used: Any) -> bool:
        return bool(self._memory.recall(used, "complete", lambda: super(_Shared, self).complete(used)))
