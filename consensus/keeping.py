"""What a rank keeps for others: versions of the weights while they leave, and what has come of each until it is used."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar

from consensus.bundle import Bundle
from consensus.flat import FlatModel
from consensus.transport.base import Bytes
from consensus.types import Rank


class Versions:
    """The present version of the weights, and those that are still on their way to somebody. Memory is reused.

    Parameters
    ----------
    flat : FlatModel
        Whose weights; those that it has now are the first version.

    Attributes
    ----------
    present : Bundle
        The newest; not to be written.
    """

    def __init__(self, flat: FlatModel) -> None:
        self._flat = flat
        self._spare: list[Bundle] = []
        self._leaving: dict[Rank, Bundle] = {}
        self.present = Bundle(flat)
        self.present.copy_weights(flat)

    def leave(self, peer: Rank) -> Bundle:
        """The present version, which stays as it is until :meth:`left`."""
        self._leaving[peer] = self.present
        return self.present

    def left(self, peer: Rank) -> None:
        """Nothing is on its way to ``peer`` any more."""
        version = self._leaving.pop(peer, None)
        if version is not None and version is not self.present and not self._is_leaving(version):
            self._spare.append(version)

    def take(self, flat: FlatModel) -> None:
        """Make the weights that ``flat`` has now the present version."""
        if self._is_leaving(self.present):
            self.present = self.blank()
        self.present.copy_weights(flat)

    def replace(self, version: Bundle) -> None:
        """Make ``version`` the present one; it is this object's from now on."""
        before, self.present = self.present, version
        if not self._is_leaving(before):
            self._spare.append(before)

    def blank(self) -> Bundle:
        """Memory for a version; what is in it means nothing."""
        return self._spare.pop() if self._spare else Bundle(self._flat)

    def _is_leaving(self, version: Bundle) -> bool:
        return any(each is version for each in self._leaving.values())


class Chunked(Protocol):
    """Numbers in memory of their own, in chunks."""

    @property
    def chunks(self) -> Sequence[Bytes]:
        """Views of them."""


_T = TypeVar("_T", bound=Chunked)


class Arrivals(Generic[_T]):
    """What has come of each sender, or is coming, until it is used or forgotten. Memory is reused.

    Parameters
    ----------
    make : callable
        Makes memory for one.
    """

    def __init__(self, make: Callable[[], _T]) -> None:
        self._make = make
        self._here: dict[Rank, _T] = {}
        self._coming: set[Rank] = set()
        self._spare: list[_T] = []

    def lend(self, peer: Rank) -> _T:
        """Where what ``peer`` sends is to be written."""
        self._coming.add(peer)
        return self._of(peer)

    def came(self, peer: Rank) -> _T:
        """What ``peer`` has sent: all of it is here."""
        self._coming.discard(peer)
        return self._of(peer)

    def _of(self, peer: Rank) -> _T:
        if peer not in self._here:
            self._here[peer] = self._spare.pop() if self._spare else self._make()
        return self._here[peer]

    def use(self, peers: Sequence[Rank]) -> list[_T]:
        """What has come of these; not to be touched after something else has begun to come."""
        used = [self._here.pop(peer) for peer in peers]
        self._spare += used
        return used

    def forget(self, peer: Rank) -> None:
        """Drop what has come of ``peer``, if anything has."""
        if peer not in self._here:
            return
        memory = self._here.pop(peer)
        if peer in self._coming:
            # Of a rank that died in the middle: a transport may write there even now, so it is nobody else's.
            self._coming.remove(peer)
        else:
            self._spare.append(memory)

    def lose(self, peer: Rank) -> None:
        """Drop what has come of ``peer``, which is dead, unless it is whole."""
        if peer in self._coming:
            self.forget(peer)
