r"""Updates one after the other, as the engines make them: what the runtime model knows, and what a node is still at.

The times are those of :mod:`consensus.coding.runtime`, and two things are different. Nodes go on as soon as what has come can be
decoded (:mod:`consensus.coding.completion`), and each worker is charged the parts that it has. And no node is idle when weights
come: links finish what they carry, a busy worker its parts (``"wait"``; with ``"interrupt"`` it drops them), and whoever is
behind is given the newest weights as soon as it has room. That is the protocol of :mod:`consensus.protocol.coded` where messages
take no time. A worker that is late in one update is late in the next for that, too.

Everything is ours.
"""

from __future__ import annotations

from typing import Literal, cast, get_args

import numpy as np

from consensus.coding.arrays import Floats, Mask
from consensus.coding.completion import Completion
from consensus.coding.gradient_code import GradientCode
from consensus.coding.runtime import Sample, check_sampling, samples
from consensus.coding.system import System
from consensus.errors import ConfigError

Push = Literal["wait", "interrupt"]

ROWS = 100
"""Successions that are simulated beside each other, or as many as there are draws."""

SETTLING = 0.25
"""Share of the updates that is left out, as all nodes are idle at first."""


class _Last:
    """The weights that workers were given last, and what has become or will become of them; arrays (rows, edges, workers).

    Attributes
    ----------
    came
        When they were there.
    sure
        If no others have come until then, a vector is sent: when computing begins, or, if it can be interrupted, when it ends.
    free
        When the vector before that one is sent.
    sent
        When the vector is at the edge.
    """

    __slots__ = ("came", "free", "sent", "sure")

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.came, self.sure, self.free, self.sent = (np.zeros(shape) for _ in range(4))

    def become(self, other: _Last, where: Mask) -> None:
        """Take over what is in another."""
        for name in self.__slots__:
            np.copyto(getattr(self, name), getattr(other, name), where=where)


class Succession:
    """Updates with one code, many successions of them beside each other.

    Parameters
    ----------
    code : GradientCode
        One with edges.
    push : "wait" or "interrupt"
        What a worker does that is busy when newer weights come.
    rows : int
        How many successions.

    Attributes
    ----------
    now : ndarray, shape (rows,), float64
        When the last update was made, seconds.
    """

    def __init__(self, code: GradientCode, push: Push, rows: int) -> None:
        self._push = check_push(push)
        if code.direct:
            raise ConfigError("a code without edges has no such updates; give one in which workers send to edges")
        workers, loads = code.workers_per_edge, iter(code.loads)
        self._load = np.ones((len(workers), max(workers)))
        for edge, count in enumerate(workers):
            self._load[edge, :count] = [next(loads) for _ in range(count)]
        self._edges, self._master = Completion(code.edges), Completion([code.master])
        self.now = np.zeros(rows)
        self._begun = False
        shape = (rows, len(workers))
        # Of each edge: when its weights came; when the vector before has left, when this one begins to, and when it is there.
        self._came, self._free, self._begins, self._there = (np.zeros(shape) for _ in range(4))
        # Of each worker: what it was given before its edge's present weights, and what it is given of those, from `_offered` on.
        self._given, self._next = _Last((*shape, max(workers))), _Last((*shape, max(workers)))
        self._offered = np.zeros((*shape, max(workers)))

    def advance(self, sample: Sample) -> Floats:
        """Make the next update.

        Parameters
        ----------
        sample : Sample
            What nodes take for the present weights, a draw for each row.

        Returns
        -------
        ndarray, shape (rows,), float64
            When it is made, seconds.
        """
        begun, self._begun = self._begun, True
        # At first all have the weights.
        offered_edge = np.maximum(self.now[:, None], self._came)
        came = offered_edge + sample.edge_down * begun
        free = np.where(self._begins < came, self._there, self._free)
        given = self._given
        if begun:
            before = _Last(self._offered.shape)
            before.become(given, where=np.asarray(True))
            before.become(self._next, where=self._offered < came[..., None])
            given = before
        offered = np.maximum(came[..., None], given.came)
        new = _Last(offered.shape)
        new.came = offered + sample.down * begun
        new.free = np.where(given.sure < new.came, given.sent, given.free)
        start = np.maximum(new.came, new.free)
        done = start + self._load * sample.part
        new.sure = done if self._push == "interrupt" else start
        new.sent = done + sample.up
        begins = np.maximum(self._edges.times(new.sent), free)
        there = begins + sample.edge_up
        self.now = self._master.times(there[:, None])[:, 0]
        taken = offered_edge < self.now[:, None]
        for old, fresh in ((self._came, came), (self._free, free), (self._begins, begins), (self._there, there)):
            np.copyto(old, fresh, where=taken)
        below = taken[..., None]
        self._given.become(given, where=below)
        self._next.become(new, where=below)
        np.copyto(self._offered, offered, where=below)
        return self.now


def update_seconds(
    system: System, code: GradientCode, push: Push = "wait", *, draws: int = 4000, seed: int = 0
) -> Floats:
    """Sample how long updates take when they follow one another.

    Parameters
    ----------
    system : System
        The nodes and their links.
    code : GradientCode
        Who computes what.
    push : "wait" or "interrupt"
        What a worker does that is busy when newer weights come.
    draws : int
        How many updates are simulated, all successions together.
    seed : int
        0 or more. Under the same seed different codes meet the same random numbers.

    Returns
    -------
    ndarray, shape (successions,), float64
        The mean seconds of an update of each; they are independent of each other.

    Raises
    ------
    ConfigError
        If a number is out of range, the code is for another system, or has no edges.

    Examples
    --------
    Two workers have the same parts, so that the quicker one is enough; and it has nothing to wait for:

    >>> from consensus.coding import HierarchicalCode
    >>> from consensus.coding.system import Edge, Worker
    >>> system = System([Edge(workers=[Worker(c=0.5), Worker(c=3.0)], tau=0.25)])
    >>> code = HierarchicalCode([2], parts=2, edge_stragglers=0, worker_stragglers=1)
    >>> print(update_seconds(system, code).mean())
    1.5
    """
    check_sampling(draws, seed)
    if code.workers_per_edge != system.workers_per_edge:
        raise ConfigError(
            f"the code is for {list(code.workers_per_edge)} workers per edge, the system has {list(system.workers_per_edge)}; "
            "give the system's own"
        )
    rows, updates, settled = course(draws)
    succession = Succession(code, push, rows)
    since = np.zeros(rows)
    for number, sample in enumerate(samples(system, rows * updates, seed, rows), 1):
        if number == settled:
            since = succession.advance(sample)
        else:
            succession.advance(sample)
    return (succession.now - since) / (updates - settled)


def check_push(push: str) -> Push:
    """Make sure that this is a way to treat a busy worker; raises ConfigError if it is not."""
    for known in get_args(Push):
        if push == known:
            return cast("Push", known)
    raise ConfigError(f"push = {push!r}: expected 'wait', or 'interrupt' if busy workers drop their parts for newer weights")


def course(draws: int) -> tuple[int, int, int]:
    """How many successions, updates of each, and updates of those that are left out, for so many draws.

    Examples
    --------
    >>> course(4000), course(2)
    ((100, 40, 10), (2, 1, 0))
    """
    rows = min(ROWS, draws)
    updates = draws // rows
    return rows, updates, int(SETTLING * updates)
