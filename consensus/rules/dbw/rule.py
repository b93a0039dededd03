"""Dynamic backup workers: as many gradients as promise the fastest descent, chosen anew at each update."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from consensus.protocol.service import Arrival, Factor, ServerView, Update, Verdict
from consensus.rules.dbw.arrivals import FirstArrivals
from consensus.rules.dbw.choice import bound_after_rise, choose, choose_blindly
from consensus.rules.dbw.gain import GainEstimator
from consensus.rules.dbw.waiting import WaitingTimes
from consensus.rules.quorum import Quorum
from consensus.types import Rank, Seconds


@dataclass(slots=True)
class DbwState:
    """What has been learnt, and the choice in force.

    Attributes
    ----------
    gain : GainEstimator
        How much k gradients lower the loss.
    times : WaitingTimes
        How long they take.
    arrivals : FirstArrivals
        What samples of these times an arrival yields.
    first : int
        The version that serving began with.
    k : int
        Gradients to wait for at the present version.
    """

    gain: GainEstimator
    times: WaitingTimes
    arrivals: FirstArrivals
    first: int
    k: int


@dataclass(frozen=True)
class Dbw(Quorum):
    r"""Wait for the :math:`k_t = \arg\max_k G_k / T_k` fastest gradients.

    G is estimated by :class:`~consensus.rules.dbw.gain.GainEstimator`, T by :class:`~consensus.rules.dbw.waiting.WaitingTimes`. A
    k that gains nothing is out of the question, and if none gains anything, or too little is known, all are waited for. If the
    loss has risen, k is greater than it was. There is nothing to tune; what there is to set says how far back to look.

    The learning rate of k gradients is the one that ``view.factor`` gives them; the step of the update just made tells its unit.

    Parameters
    ----------
    window : int
        Updates that gains are estimated from, at least 2.
    smoothness_window : int or None
        Updates that the smoothness L is estimated from, not fewer than ``window``; None (default): as many.
    history : int
        Waiting times remembered of each kind, at least 1.
    blind : bool
        Choose :math:`\arg\max_k k / T_k`, whatever the gradients say: the most gradients per time. For comparison.

    References
    ----------
    Xu, Neglia, Sebastianelli, *Dynamic Backup Workers for Parallel Machine Learning*, arXiv 2004.14696. The paper's body was not
    at hand: the estimators are derived here.
    """

    name: ClassVar[str] = "dbw"
    uses_losses: ClassVar[bool] = True
    window: int = 20
    smoothness_window: int | None = None
    history: int = 50
    blind: bool = False

    def __post_init__(self) -> None:
        self._estimators(1)

    def _estimators(self, workers: int) -> tuple[GainEstimator, WaitingTimes]:
        return GainEstimator(self.window, self.smoothness_window), WaitingTimes(workers, self.history)

    def start(self, view: ServerView, now: Seconds) -> DbwState:
        """Know nothing, and wait for all."""
        n = len(view.workers)
        # Dropped work yields no sample: then a version is open until the next one is made, no longer.
        arrivals = FirstArrivals(n, memory=1) if view.push == "interrupt" else FirstArrivals(n)
        return DbwState(*self._estimators(n), arrivals, view.version, n)

    def quota(self, view: ServerView, state: DbwState) -> int:
        """The choice in force."""
        return min(state.k, len(view.workers))

    def decide(self, view: ServerView, arrival: Arrival | None, state: DbwState, now: Seconds) -> tuple[Verdict, DbwState]:
        """Take the time of what has come, and judge as with any quorum."""
        # The first batches take longer than any later one: programs warm up, and not all workers began when the server did.
        if view.version > state.first:
            n = state.times.workers
            for gradient in [arrival] if arrival is not None else view.kept.values():
                for sample in state.arrivals.gradient(gradient.worker, gradient.version, gradient.at):
                    state.times.observe(min(sample.previous, n), sample.i, sample.duration)
        return super().decide(view, arrival, state, now)

    def applied(self, view: ServerView, update: Update, state: DbwState, now: Seconds) -> DbwState:
        """Learn from an update, and choose how many gradients the next one waits for."""
        n = len(view.workers)
        if not n:
            return state
        used = len(update.arrivals)
        # A worker that left after it had pushed may make it more.
        idle = min(used, n)
        # Where work is dropped, it does not matter how many were busy: all start together.
        previous = n if view.push == "interrupt" else idle
        state.arrivals.update(view.version, previous, view.updated_at)
        if not self.blind:
            state.gain.observe(
                used,
                update.square,
                math.fsum(arrival.square for arrival in update.arrivals),
                math.fsum(arrival.loss for arrival in update.arrivals) / used,
                update.step,
            )
        state.k = self._choose(state, view.factor, idle, previous, n, update.step / view.factor(used, n))
        return state

    def departed(self, worker: Rank, view: ServerView, state: DbwState, now: Seconds) -> DbwState:
        """Count with those that are left."""
        n = len(view.workers)
        if n:
            state.arrivals.resize(n)
            state.times.resize(n)
            state.k = min(state.k, n)
        return state

    def _choose(self, state: DbwState, factor: Factor, used: int, previous: int, n: int, unit: float) -> int:
        if self.blind:
            times = state.times.expected(previous)
            # All times unknown is no reason to prefer any k but the safe one, which tells the most as well.
            return choose_blindly(times) if times.any() else n
        if not state.gain.ready:
            return n
        gains = [state.gain.gain(k, unit * factor(k, n)) for k in range(1, n + 1)]
        return choose(gains, state.times.expected(previous), bound_after_rise(used, n, state.gain.loss_rose))
