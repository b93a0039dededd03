"""From when on what has come can be decoded, for many draws of arrival times at once: the rule of the engines, vectorised.

A node of a layer goes on as soon as the vectors that are there can be decoded (:class:`consensus.rules.coded.Sufficient`). Nodes
fall into groups that know nothing of each other (:class:`~consensus.coding.layer.Group`), and the layer is complete when its last
group is. A group of which as many are needed as could ever do is complete with a certain arrival, however the coefficients are.
Of others it depends on who has come: those sets are asked of the code, each once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from consensus.coding.arrays import Floats, Indices, Mask
from consensus.coding.layer import Group, Layer

TABLED = 12
"""Of larger groups ``needed`` nodes are waited for, though fewer may do: there are too many sets to ask about."""

_UNKNOWN, _TOO_FEW, _ENOUGH = 0, 1, 2


class _Counted(NamedTuple):
    """Groups of as many nodes each, all complete with as many arrivals."""

    layers: Indices
    nodes: Indices
    needed: int


class Completion:
    """When each of some layers is complete.

    Parameters
    ----------
    layers : sequence of Layer
        Those of all edges, or the master's alone.
    """

    def __init__(self, layers: Sequence[Layer]) -> None:
        counted: dict[tuple[int, int], list[tuple[int, tuple[int, ...]]]] = {}
        self._asked: list[tuple[int, _Asked]] = []
        for number, layer in enumerate(layers):
            for group in layer.groups:
                if group.least == group.needed or len(group.nodes) > TABLED:
                    counted.setdefault((len(group.nodes), group.needed), []).append((number, group.nodes))
                else:
                    self._asked.append((number, _Asked(layer, group)))
        self._size = len(layers)
        self._counted = [
            _Counted(np.array([number for number, _ in found]), np.array([nodes for _, nodes in found]), needed)
            for (_, needed), found in counted.items()
        ]

    def times(self, arrivals: Floats) -> Floats:
        """When the layers are complete.

        Parameters
        ----------
        arrivals : ndarray, shape (draws, layers, nodes), float64
            When each node's vector is there; infinite if it never is.

        Returns
        -------
        ndarray, shape (draws, layers), float64
            Minus infinity for a layer that waits for nobody.
        """
        found = np.full((len(arrivals), self._size), -np.inf)
        for layers, nodes, needed in self._counted:
            own = arrivals[:, layers[:, None], nodes]
            complete = own.min(axis=-1) if needed == 1 else np.partition(own, needed - 1, axis=-1)[..., needed - 1]
            for column, layer in enumerate(layers):
                np.maximum(found[:, layer], complete[:, column], out=found[:, layer])
        for layer, group in self._asked:
            np.maximum(found[:, layer], group.times(arrivals[:, layer]), out=found[:, layer])
        return found


class _Asked:
    """A group of which it depends on who has come."""

    def __init__(self, layer: Layer, group: Group) -> None:
        self._layer, self._group = layer, group
        self._nodes = np.array(group.nodes)
        self._others = [node for node in layer.participants if node not in group.nodes]
        self._known = np.full(1 << len(group.nodes), _UNKNOWN, dtype=np.int8)

    def times(self, arrivals: Floats) -> Floats:
        """When it is complete, shape (draws,), by arrivals of shape (draws, nodes of the layer)."""
        own = arrivals[:, self._nodes]
        order = np.argsort(own, axis=-1)
        come = np.cumsum(np.left_shift(1, order), axis=-1)
        count = np.full(len(own), self._group.needed)
        # Whoever suffices still does when others come; so from what always does down to what does not.
        left = np.arange(len(own))
        for fewer in range(self._group.needed - 1, self._group.least - 1, -1):
            left = left[self._enough(come[left, fewer - 1])]
            count[left] = fewer
        rows = np.arange(len(own))
        complete: Floats = own[rows, order[rows, count - 1]]
        return complete

    def _enough(self, sets: Indices) -> Mask:
        for one in np.unique(sets[self._known[sets] == _UNKNOWN]).tolist():
            came = [node for place, node in enumerate(self._group.nodes) if one >> place & 1]
            self._known[one] = _ENOUGH if self._layer.sufficient([*came, *self._others]) else _TOO_FEW
        return np.asarray(self._known[sets] == _ENOUGH)
