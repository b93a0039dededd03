"""The exchanges of a run as both ends saw them, on one clock."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from consensus.report.columns import Floats
from consensus.trace import Trace


@dataclass(frozen=True)
class Swaps:
    """Exchanges whose two ends are known; times in seconds on one clock, arrays of one entry an exchange.

    Attributes
    ----------
    ends : ndarray of int, shape (exchanges, 2)
        The two ranks, the lower one first.
    opened : ndarray of float64
        When both rounds were open.
    agreed : ndarray of float64
        When both ends knew that they had agreed, and the models began to move.
    done : ndarray of float64
        When both ends had each other's model.
    offsets : ndarray of float64, shape (ranks,)
        By how much each rank's clock is ahead of the common one.
    """

    ends: NDArray[np.intp]
    opened: Floats
    agreed: Floats
    done: Floats
    offsets: Floats

    def __len__(self) -> int:
        return len(self.ends)


def match(traces: Sequence[Trace]) -> Swaps:
    """Put both ends' records of each exchange together, in order of time.

    The ranks' clocks start alike only as far as they leave a barrier together, which takes milliseconds where processors are
    shared: more than a message does. What sets them right is that a swap is over at both ends at about the same time: how far the
    two ends of an edge are apart then, in the median, is how far their clocks are, and the offsets fit all edges in the sense of
    least squares. Clocks that drift during the run are not put right.

    The first round of a rank pays for warming up and is left out.

    Parameters
    ----------
    traces
        Of all ranks.
    """
    size = len(traces)
    seen = {
        (trace.rank, record.round, peer, theirs): (record.opened, agreed, complete)
        for trace in traces
        for record in trace.rounds
        for peer, theirs, agreed, complete in record.exchanges
        if record.round > 1 and theirs > 1
    }
    pairs = [(key, other) for key in seen if key[0] < key[2] and (other := (key[2], key[3], key[0], key[1])) in seen]
    ends = np.array([(key[0], key[2]) for key, _ in pairs], np.intp).reshape(-1, 2)
    times = np.array([(seen[key], seen[other]) for key, other in pairs]).reshape(-1, 2, 3)
    offsets = _offsets(size, ends, times[:, 0, 2] - times[:, 1, 2])
    common = (times - offsets[ends][:, :, None]).max(axis=1)
    order = np.argsort(common[:, 1], kind="stable")
    opened, agreed, done = common[order].T
    return Swaps(ends[order], opened, agreed, np.maximum(done, agreed), offsets)


def _offsets(size: int, ends: NDArray[np.intp], apart: Floats) -> Floats:
    edges, which = np.unique(ends, axis=0, return_inverse=True)
    if not len(edges):
        return np.zeros(size)
    rows = np.zeros((len(edges), size))
    numbers = np.arange(len(edges))
    rows[numbers, edges[:, 0]], rows[numbers, edges[:, 1]] = 1.0, -1.0
    medians = np.array([np.median(apart[which.ravel() == number]) for number in numbers])
    # The solution of least norm: the mean clock of ranks that are connected is the common one.
    return np.asarray(np.linalg.lstsq(rows, medians, rcond=None)[0])
