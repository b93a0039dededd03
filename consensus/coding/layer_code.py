"""A one-layer gradient code: any s of its nodes may be silent, and the sum of all items is had back exactly."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from copy import copy

import numpy as np

from consensus.coding.amplification import Amplification
from consensus.coding.arcs import Ring, rings
from consensus.coding.arrays import Floats
from consensus.coding.coefficients import coefficients
from consensus.coding.counts import check_count
from consensus.coding.decoder import Decoder
from consensus.coding.layer import Combination, Group
from consensus.coding.turnout import present, too_few
from consensus.errors import ConfigError


class LayerCode:
    """A code for nodes that hold given numbers of items.

    Parameters
    ----------
    counts : sequence of int, shape (size,)
        Items at each node: s + 1 times the number of items in all, and no count above that number. Nodes of 0 take no part.
    stragglers : int
        s, how many nodes may be silent.
    kind : {"auto", "ones", "trig", "gaussian"}
        Of coefficients, see :mod:`consensus.coding.coefficients`.
    seed : int
        Of what ``trig`` and ``gaussian`` draw.
    name, child : str
        What messages call the layer and a node below it.

    Attributes
    ----------
    name : str
        As given.
    size, items : int
        Nodes; items that their vectors sum to.
    participants : tuple of int
        Nodes that hold something.
    needed : int
        So many of them, whichever, are always enough.
    groups : tuple of Group
        The rings of the placement.
    kinds : tuple of str
        The kind that each ring of the placement got.
    matrix : ndarray, shape (size, items), float64
        Coefficients, read-only.

    Raises
    ------
    ConfigError
        If the counts cannot be laid out, or the kind is unknown or impossible for them.

    Examples
    --------
    >>> code = LayerCode([2, 2, 2, 2], stragglers=1)
    >>> code.items, code.needed, code.held(3)
    (4, 3, (2, 3))
    >>> code.combine([0, 1, 3]).weights
    array([0.5, 0.5, 1. ])
    >>> code.combine([0, 1])
    Traceback (most recent call last):
    consensus.errors.CodingError: layer: 2 of 4 nodes came (0, 1), 3 are needed, as 1 may be silent; ...
    """

    def __init__(
        self,
        counts: Sequence[int],
        stragglers: int,
        *,
        kind: str = "auto",
        seed: int = 0,
        name: str = "layer",
        child: str = "node",
    ) -> None:
        _check(counts, stragglers)
        self.name, self._child, self.size = name, child, len(counts)
        self.items = sum(counts) // (stragglers + 1)
        placed = rings(counts, stragglers)
        self.participants = tuple(node for node, count in enumerate(counts) if count)
        self.needed = max(0, len(self.participants) - stragglers)
        self.groups = tuple(_group(ring, stragglers) for ring in placed)
        self.matrix: Floats = np.zeros((self.size, self.items))
        held: list[tuple[int, ...]] = [()] * self.size
        kinds = []
        for ring in placed:
            chosen, matrix = coefficients(ring, stragglers, kind, seed)
            kinds.append(chosen)
            self.matrix[list(ring.nodes), ring.first : ring.first + ring.size] = matrix
            for node, arc in zip(ring.nodes, ring.arcs, strict=True):
                held[node] = tuple(ring.first + offset for offset in arc)
        self.matrix.flags.writeable = False
        self.kinds = tuple(kinds)
        self._held = tuple(held)
        self._decoder = Decoder(self.matrix)
        self._amplification = Amplification(placed, self.matrix, stragglers)

    def held(self, node: int) -> tuple[int, ...]:
        """The items at a node, in the order of its walk."""
        return self._held[node]

    def renamed(self, name: str) -> LayerCode:
        """The same code under another name, for a layer with the same counts; what is remembered is shared."""
        other = copy(self)
        other.name = name
        return other

    def sufficient(self, alive: Iterable[int]) -> bool:
        """Whether the sum of all items is had back exactly from these nodes; sometimes fewer than ``needed`` are enough."""
        return self._decoder.exact(present(self.name, alive, self.size, self.participants))

    def combine(self, alive: Iterable[int], *, approximate: bool = False) -> Combination:
        """Minimum-norm weights of the nodes that came, remembered for later.

        Parameters
        ----------
        alive : iterable of int
            Nodes that came.
        approximate : bool
            If they are not enough, take the weights that come nearest in least squares instead of raising.

        Returns
        -------
        Combination
            Its residual is that of the weights, whether approximate or not.

        Raises
        ------
        CodingError
            If they are not enough, nobody came, or one of them is no node of this layer.
        """
        came = present(self.name, alive, self.size, self.participants)
        nothing = self.items > 0 and not came
        if nothing or not (approximate or self._decoder.exact(came)):
            raise too_few(self.name, self._child, came, self.participants, self.needed)
        return Combination(self.name, *self._decoder.solve(came))

    def worst(self, factors: Floats | None = None) -> Floats:
        """The largest amplification of each item's rounding errors over the sets of silent nodes, shape (items,)."""
        return self._amplification.worst(factors)

    @property
    def kappa(self) -> float:
        r"""The largest amplification, :math:`\max_{k, S} \sum_i |a_i| |b_{ik}|`; from below if not ``kappa_exact``."""
        return float(self.worst().max(initial=0.0))

    @property
    def kappa_exact(self) -> bool:
        """Whether ``kappa`` is over all sets of up to s silent nodes rather than consecutive and random ones."""
        return self._amplification.complete


def _group(ring: Ring, stragglers: int) -> Group:
    """A ring by itself; fewer nodes than it takes of the largest to hold all its items are never enough."""
    return Group(ring.nodes, least=-(-ring.size // max(ring.counts)), needed=len(ring.nodes) - stragglers)


def _check(counts: Sequence[int], stragglers: int) -> None:
    check_count("stragglers", stragglers, 0)
    for node, count in enumerate(counts):
        check_count(f"counts[{node}]", count, 0)
    items, over = divmod(sum(counts), stragglers + 1)
    if over or max(counts, default=0) > items:
        raise ConfigError(
            f"counts = {list(counts)}: with {stragglers} stragglers every item is at {stragglers + 1} nodes, so that the sum, "
            f"{sum(counts)}, must be a multiple of {stragglers + 1} and no count above {items}; change the counts"
        )
