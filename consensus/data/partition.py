"""Which samples each rank trains on.

Every rank computes the whole partition from the labels and the seed, so nothing about it is sent. Every sample goes to
exactly one rank.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from consensus.data.shuffle import Stream, bit_generator, permutation
from consensus.errors import ConfigError, DataError

Labels = NDArray[np.integer[Any]]
Shares = list[NDArray[np.int64]]


class Scheme(Protocol):
    """A way of dealing samples to ranks; a frozen value."""

    def deal(self, labels: Labels, ranks: int, seed: int) -> Shares:
        """One index array per rank, together every index once; :func:`partition` checks and sorts them."""

    @property
    def remedy(self) -> str:
        """What a user can change if a rank got nothing."""


def _shuffled_members(labels: Labels, seed: int) -> Shares:
    """Per class that occurs, in order, its samples in random order."""
    order = permutation(len(labels), seed, Stream.PARTITION)
    by_class = order[np.argsort(labels[order], kind="stable")]
    _, starts = np.unique(labels[by_class], return_index=True)
    return np.split(by_class, starts[1:])


@dataclass(frozen=True)
class Iid:
    """Shuffle and cut into equal pieces: every rank sees the same distribution, and sizes differ by one sample at most."""

    remedy = "take fewer ranks or more data"

    def deal(self, labels: Labels, ranks: int, seed: int) -> Shares:
        """See :class:`Scheme`."""
        return np.array_split(permutation(len(labels), seed, Stream.PARTITION), ranks)


@dataclass(frozen=True)
class ByClass:
    """Give each rank few classes.

    Parameters
    ----------
    classes_per_rank
        None: sort by class and cut into equal pieces, so that a rank holds about classes / ranks classes and its piece's
        ends may be shared. k: every rank holds exactly k classes, and a class is cut equally among the ranks that hold
        it. It needs ranks x k >= classes, for every sample is used. Sizes are as equal as the classes allow.

    Notes
    -----
    McMahan et al. cut the sorted samples into ranks x k pieces and deal k to each rank; a piece may straddle two classes,
    so a rank may see up to 2k. Here k is exact; this completion is ours.

    References
    ----------
    McMahan, Moore, Ramage, Hampson, Aguera y Arcas, "Communication-efficient learning of deep networks from decentralized
    data", 2017, arXiv:1602.05629.
    """

    classes_per_rank: int | None = None
    remedy = "take fewer ranks, more classes per rank, or more data"

    def __post_init__(self) -> None:
        if self.classes_per_rank is not None and self.classes_per_rank < 1:
            raise ConfigError(f"classes_per_rank is {self.classes_per_rank}, expected at least 1")

    def deal(self, labels: Labels, ranks: int, seed: int) -> Shares:
        """See :class:`Scheme`."""
        members = _shuffled_members(labels, seed)
        if self.classes_per_rank is None:
            return np.array_split(np.concatenate(members), ranks)
        classes, k = len(members), self.classes_per_rank
        if k > classes:
            raise ConfigError(f"classes_per_rank is {k}, but the data has {classes} classes; expected at most that")
        if ranks * k < classes:
            raise ConfigError(
                f"{ranks} ranks with {k} classes each cannot hold all {classes} classes; expected classes_per_rank of at least "
                f"{math.ceil(classes / ranks)}, or at least {math.ceil(classes / k)} ranks"
            )
        # Slots are filled with classes in rotation: k consecutive slots hold k different classes, and every class gets
        # its fair number of slots. Who sits where is random, lest the rotation line up with the topology's numbering.
        slots = permutation(classes, seed, Stream.PARTITION, 1)[np.arange(ranks * k) % classes].reshape(ranks, k)
        slots = slots[permutation(ranks, seed, Stream.PARTITION, 2)]
        shares: list[list[NDArray[np.int64]]] = [[] for _ in range(ranks)]
        for index, samples in enumerate(members):
            holders = np.flatnonzero((slots == index).any(axis=1))
            for rank, piece in zip(holders, np.array_split(samples, len(holders)), strict=True):
                shares[rank].append(piece)
        return [np.concatenate(pieces) for pieces in shares]


@dataclass(frozen=True)
class Dirichlet:
    r"""Cut each class into random proportions: for class c, :math:`p_c \sim \mathrm{Dir}(\alpha, ..., \alpha)` over the ranks.

    Small alpha: most of a class sits on one rank. Large alpha: nearly iid. Sizes differ between ranks.

    Parameters
    ----------
    alpha
        Concentration, above 0.

    Notes
    -----
    Two variants are in use. Hsu et al. draw a mixture of classes for every client and give all clients equally many
    samples; with finite classes that runs out of some and leaves others over. Drawing per class the proportions over
    clients, as Yurochkin et al. do, uses every sample exactly once and is what most code calls the Dirichlet partition;
    this is that one. A draw that leaves a rank empty is thrown away and drawn again, at most 100 times in all: ours, not
    the papers'. The proportions come from NumPy's own Dirichlet sampler: ranks need one NumPy version to agree on them.

    References
    ----------
    Hsu, Qi, Brown, "Measuring the effects of non-identical data distribution for federated visual classification", 2019,
    arXiv:1909.06335.
    Yurochkin et al., "Bayesian nonparametric federated learning of neural networks", 2019, arXiv:1905.12022.
    """

    alpha: float
    remedy = "take a larger alpha or fewer ranks"

    def __post_init__(self) -> None:
        if not (math.isfinite(self.alpha) and self.alpha > 0):
            raise ConfigError(f"alpha is {self.alpha}, expected a finite number above 0 (0.1: very uneven, 100: nearly even)")

    def deal(self, labels: Labels, ranks: int, seed: int) -> Shares:
        """See :class:`Scheme`."""
        members = _shuffled_members(labels, seed)
        counts = np.array([len(samples) for samples in members])
        generator = np.random.Generator(bit_generator(seed, Stream.PARTITION, 3))
        for _ in range(100):
            proportions = generator.dirichlet(np.full(ranks, self.alpha), size=len(members))
            # Rounding the cumulated shares, not each share, makes the pieces add up to the class.
            cuts = np.rint(np.cumsum(proportions, axis=1)[:, :-1] * counts[:, np.newaxis]).astype(np.int64)
            sizes = np.diff(cuts, axis=1, prepend=0, append=counts[:, np.newaxis]).sum(axis=0)
            if sizes.all():
                break
        pieces = [np.split(samples, cut) for samples, cut in zip(members, cuts, strict=True)]
        return [np.concatenate(share) for share in zip(*pieces, strict=True)]


def partition(labels: Labels, ranks: int, scheme: Scheme, seed: int) -> Shares:
    """Deal the samples to the ranks, each sample to exactly one.

    Parameters
    ----------
    labels : ndarray of int, shape (n,)
        Class of each sample.
    ranks
        How many shares, at least 1.
    scheme
        :class:`Iid`, :class:`ByClass` or :class:`Dirichlet`.
    seed
        Same labels, ranks, scheme and seed: same partition, on every rank.

    Returns
    -------
    list of ndarray of int64
        Per rank its samples' indices, ascending.

    Raises
    ------
    ConfigError
        If the scheme does not fit the number of ranks and classes.
    DataError
        If a rank is left without a sample.

    Examples
    --------
    >>> labels = np.array([0, 0, 1, 1, 2, 2])
    >>> [share.tolist() for share in partition(labels, 3, ByClass(), seed=0)]
    [[0, 1], [2, 3], [4, 5]]
    """
    if ranks < 1:
        raise ConfigError(f"partition over {ranks} ranks, expected at least 1")
    if len(labels) < ranks:
        raise DataError(
            f"{len(labels)} samples cannot be dealt to {ranks} ranks: rank {len(labels)} and above get none; "
            "take fewer ranks or more data"
        )
    shares = [np.sort(share) for share in scheme.deal(labels, ranks, seed)]
    empty = [rank for rank, share in enumerate(shares) if not len(share)]
    if empty:
        sizes = ", ".join(str(len(share)) for share in shares)
        who = f"rank {empty[0]}" if len(empty) == 1 else "ranks " + ", ".join(map(str, empty))
        raise DataError(f"{scheme} leaves {who} without samples (sizes by rank: {sizes}); {scheme.remedy}")
    return shares
