"""One rank's endless walk through its share of the data, resumable at any batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from consensus.data.shuffle import Stream, permutation
from consensus.errors import ConfigError, DataError


class Sampler:
    """Mini-batches of indices, reshuffled every epoch, for ever.

    An epoch's order is a function of (seed, rank, epoch) alone, so the state is two counters, and the walk can be resumed
    without replaying it. Batches never straddle epochs: the last batch of an epoch may be short, or is dropped. A batch
    size above the share's size gives the whole share as one batch, dropped never.

    Parameters
    ----------
    indices : ndarray of int, shape (n,)
        The rank's share, n > 0.
    batch_size
        Samples a batch, at least 1.
    seed
        The run's seed.
    rank
        Whose walk; ranks shuffle independently.
    drop_last
        Whether to drop an epoch's last batch if it is short.

    Raises
    ------
    DataError
        If the share is empty.
    ConfigError
        If the batch size is below 1, or the seed below 0.

    Examples
    --------
    >>> sampler = Sampler(np.arange(10), batch_size=4, seed=0, rank=0)
    >>> [len(next(sampler)) for _ in range(4)]
    [4, 4, 2, 4]
    >>> sampler.epoch, sampler.position, sampler.samples_drawn
    (1, 4, 14)
    """

    def __init__(self, indices: NDArray[np.integer[Any]], batch_size: int, seed: int, rank: int, drop_last: bool = False) -> None:
        if batch_size < 1:
            raise ConfigError(f"batch size is {batch_size}, expected at least 1")
        if not len(indices):
            raise DataError(f"rank {rank} has no samples to draw from; take fewer ranks or another partition")
        self._indices = np.array(indices, dtype=np.int64)
        self._batch_size = batch_size
        self._seed = seed
        self._rank = rank
        size = len(self._indices)
        self._epoch_size = size - size % batch_size if drop_last and size > batch_size else size
        self._epoch = 0
        self._position = 0
        self._order = self._shuffled()

    def _shuffled(self) -> NDArray[np.int64]:
        return self._indices[permutation(len(self._indices), self._seed, Stream.SAMPLER, self._rank, self._epoch)]

    @property
    def epoch(self) -> int:
        """Epoch of the last batch drawn, from 0."""
        return self._epoch

    @property
    def position(self) -> int:
        """Samples drawn within that epoch."""
        return self._position

    @property
    def samples_drawn(self) -> int:
        """Samples drawn since the beginning, before a resume included."""
        return self._epoch * self._epoch_size + self._position

    def __iter__(self) -> Sampler:
        return self

    def __next__(self) -> NDArray[np.int64]:
        """The next batch's indices, int64 of shape (b,); never ends."""
        if self._position == self._epoch_size:
            self._epoch += 1
            self._position = 0
            self._order = self._shuffled()
        start = self._position
        self._position = min(start + self._batch_size, self._epoch_size)
        return self._order[start : self._position]

    def seek(self, batch: int) -> None:
        """Go to the ``batch``-th batch of the walk, from 0, as if those before it had been drawn."""
        if batch < 0:
            raise ConfigError(f"batch {batch}: expected 0 or more")
        epoch, place = divmod(batch, -(-self._epoch_size // self._batch_size))
        self._position = place * self._batch_size
        if epoch != self._epoch:
            self._epoch = epoch
            self._order = self._shuffled()

    def _identity(self) -> dict[str, int]:
        return {
            "seed": self._seed,
            "rank": self._rank,
            "batch_size": self._batch_size,
            "share_size": len(self._indices),
            "epoch_size": self._epoch_size,
        }

    def state_dict(self) -> dict[str, int]:
        """Where the walk is, as integers that JSON can hold, with what it is a walk of."""
        return {**self._identity(), "epoch": self._epoch, "position": self._position}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go to where another sampler with the same arguments was.

        Parameters
        ----------
        state
            What :meth:`state_dict` gave.

        Raises
        ------
        ConfigError
            If the state lacks something, is out of range, or belongs to other arguments: going on would repeat some
            samples and skip others.
        """
        identity = self._identity()
        missing = [key for key in (*identity, "epoch", "position") if key not in state]
        if missing:
            raise ConfigError(f"sampler state of rank {self._rank} lacks {', '.join(missing)}; expected what state_dict() gives")
        for key, here in identity.items():
            if state[key] != here:
                raise ConfigError(
                    f"sampler state was saved with {key} = {state[key]}, but this one has {here}; resume with the same settings"
                )
        epoch, position = state["epoch"], state["position"]
        if epoch < 0 or not 0 <= position <= self._epoch_size:
            limits = f"expected epoch >= 0 and position 0 to {self._epoch_size}"
            raise ConfigError(f"sampler state at epoch {epoch}, position {position}; {limits}")
        self._epoch, self._position = epoch, position
        self._order = self._shuffled()
