"""What an edge or the master needs to know of the nodes below it: who must come, and how to sum what they sent."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from consensus.coding.arrays import Floats, Vector
from consensus.coding.vectors import weighted_sum


@dataclass(frozen=True)
class Combination:
    """How the vectors of the nodes that came are summed.

    Parameters
    ----------
    layer : str
        ``"master"`` or ``"edge 2"``.
    nodes : tuple of int
        Those whose vectors are used, rising; nodes that hold nothing are not among them.
    weights : ndarray, shape (len(nodes),), float64
        Read-only.
    residual : float
        Largest distance from one of an item's sum of coefficients; 0 to rounding if the sum is exact.
    """

    layer: str
    nodes: tuple[int, ...]
    weights: Floats
    residual: float

    def sum(self, received: Mapping[int, Vector]) -> Vector:
        """The layer's vector.

        Parameters
        ----------
        received : mapping of int to ndarray, shape (size,)
            By node, of one floating dtype.

        Returns
        -------
        ndarray, shape (size,)
            Of that dtype.

        Raises
        ------
        CodingError
            If the vectors do not fit together.
        """
        return weighted_sum(self.weights, [received[node] for node in self.nodes], self.layer)


class Group(NamedTuple):
    """Nodes of a layer that can be decoded or not whoever of its other nodes has come.

    Attributes
    ----------
    nodes : tuple of int
    least : int
        Fewer of them are never enough.
    needed : int
        So many, whichever they are, always are.
    """

    nodes: tuple[int, ...]
    least: int
    needed: int


class Layer(Protocol):
    """Nodes below an edge or the master, the same for every scheme."""

    @property
    def name(self) -> str:
        """``"master"`` or ``"edge 2"``, as messages call it."""
        ...

    @property
    def size(self) -> int:
        """How many nodes there are below it; they are 0 to ``size - 1``."""
        ...

    @property
    def participants(self) -> tuple[int, ...]:
        """The nodes that hold something, and so send; nobody waits for the others."""
        ...

    @property
    def needed(self) -> int:
        """So many of the participants, whichever they are, are always enough."""
        ...

    @property
    def groups(self) -> tuple[Group, ...]:
        """The participants in groups: they are enough if those of each group are."""
        ...

    def sufficient(self, alive: Iterable[int]) -> bool:
        """Whether these nodes are enough; in a code, fewer than ``needed`` sometimes are."""
        ...

    def combine(self, alive: Iterable[int], *, approximate: bool = False) -> Combination:
        """How to sum what these nodes sent.

        Parameters
        ----------
        alive : iterable of int
            Nodes that came, participants or not.
        approximate : bool
            If they are not enough, come as near as they allow instead of raising; the residual says how near.

        Raises
        ------
        CodingError
            If they are not enough, nobody came, or one of them is no node of this layer.
        """
        ...

    @property
    def kappa_exact(self) -> bool:
        """Whether :meth:`worst` has gone through all sets of silent nodes; if not it is an estimate from below."""
        ...

    def worst(self, factors: Floats | None = None) -> Floats:
        """By how much rounding errors in what the nodes send are amplified at most, item by item.

        Parameters
        ----------
        factors : ndarray, shape (size, items), float64, optional
            By how much they are amplified already in what a node sends of an item.

        Returns
        -------
        ndarray, shape (items,), float64
        """
        ...
