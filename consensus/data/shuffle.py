"""Seeded shuffles that every rank, machine and NumPy version agrees on.

NumPy promises that the raw streams of its bit generators and seed sequences never change, but makes no such promise for
``Generator.permutation``. A rank that resumes after an upgrade, or two hosts with different installations, must still see
one order; so the order is the argsort of raw words.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from consensus.errors import ConfigError


class Stream(IntEnum):
    """What the random numbers are for; uses of one seed draw from unrelated streams."""

    SPLIT = 1
    PARTITION = 2
    SAMPLER = 3


def bit_generator(seed: int, stream: Stream, *counters: int) -> np.random.Philox:
    """A counter-based bit generator for one use of a seed.

    Parameters
    ----------
    seed
        The run's seed, at least 0.
    stream
        What the numbers are for.
    counters
        Where in that use: a rank, an epoch, a class. Each at least 0.

    Returns
    -------
    numpy.random.Philox
        Freshly seeded; equal arguments give equal streams.

    Raises
    ------
    ConfigError
        If the seed is negative.
    """
    if seed < 0:
        raise ConfigError(f"seed is {seed}, expected 0 or more")
    # A spawn key, not a longer entropy list: entropy is zero-padded, so [7] and [7, 0] would be one stream.
    return np.random.Philox(np.random.SeedSequence(seed, spawn_key=(int(stream), *counters)))


def permutation(size: int, seed: int, stream: Stream, *counters: int) -> NDArray[np.int64]:
    """The numbers 0 .. ``size`` - 1 in random order.

    Parameters
    ----------
    size
        How many.
    seed, stream, counters
        As for :func:`bit_generator`.

    Returns
    -------
    ndarray of int64, shape (size,)

    Examples
    --------
    >>> permutation(5, 0, Stream.SAMPLER, 0, 0).tolist() == permutation(5, 0, Stream.SAMPLER, 0, 0).tolist()
    True
    """
    words = bit_generator(seed, stream, *counters).random_raw(size)
    return np.argsort(words, kind="stable").astype(np.int64, copy=False)
