"""Dynamic backup workers: as many gradients as promise the fastest descent, chosen anew at each update."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from consensus.protocol.service import Arrival, ServerView, Update, Verdict
from consensus.rules.dbw.choice import bound_after_rise, bound_on_fall, choose, choose_blindly
from consensus.rules.dbw.fitted import FittedTimes
from consensus.rules.dbw.horizon import HorizonGain
from consensus.rules.dbw.steady import SteadyTimes
from consensus.rules.quorum import Quorum
from consensus.types import Rank, Seconds


@dataclass(slots=True)
class DbwState:
    """What has been learnt, and the choice in force.

    Attributes
    ----------
    gain : HorizonGain
        How much k gradients lower the loss.
    times : SteadyTimes or FittedTimes
        How long they take.
    first : int
        The version that serving began with.
    k : int
        Gradients to wait for at the present version.
    """

    gain: HorizonGain
    times: SteadyTimes | FittedTimes
    first: int
    k: int


@dataclass(frozen=True)
class Dbw(Quorum):
    r"""Wait for the :math:`k_t = \arg\max_k G_k / T_k` fastest gradients.

    G is estimated by :class:`~consensus.rules.dbw.horizon.HorizonGain`, the fall of the loss over the coming updates, T by
    :class:`~consensus.rules.dbw.steady.SteadyTimes`, the time that an update takes if every one waits for k: a choice is judged
    as if it were kept. After many gradients were waited for, many workers are idle, and the next few gradients come soon; to
    count that in their favour leads to choices that take turns and are worse than each kept. Both are ours.

    A k that gains nothing is out of the question, and if none gains anything, or too little is known, all are waited for. If the
    loss has risen, k is greater than it was, and never is it less than half of what it was. There is nothing to tune; what there
    is to set says how far to look, and is for comparison.

    The learning rate of k gradients is the one that ``view.factor`` gives them; the step of the update just made tells its unit.

    Parameters
    ----------
    window : int
        Updates that the gradients' variance, norm and smoothness are estimated from, at least 2.
    smoothness_window : int or None
        Updates that the smoothness L is estimated from, not fewer than ``window``; None (default): as many.
    horizon : int
        Updates that a gain is counted over, at least 1; the trend of the losses is taken from twice as many.
    history : int
        Updates in which a waiting time loses nearly two thirds of its weight, at least 1.
    blind : bool
        Choose :math:`\arg\max_k k / T_k`, whatever the gradients say: the most gradients per time. For comparison.
    resample : bool
        Tell times by round trips drawn again; false: by how long each k was waited for when it was tried
        (:class:`~consensus.rules.dbw.fitted.FittedTimes`), as it is under ``interrupt`` anyway. For comparison.

    References
    ----------
    Xu, Neglia, Sebastianelli, *Dynamic Backup Workers for Parallel Machine Learning*, arXiv 2004.14696. The paper's body was not
    at hand: the estimators are derived here.
    """

    name: ClassVar[str] = "dbw"
    uses_losses: ClassVar[bool] = True
    window: int = 20
    smoothness_window: int | None = None
    horizon: int = 40
    history: int = 15
    blind: bool = False
    resample: bool = True

    def __post_init__(self) -> None:
        self._estimators(1)

    def _estimators(self, workers: int, dropped: bool = False) -> tuple[HorizonGain, SteadyTimes | FittedTimes]:
        gain = HorizonGain(self.window, self.smoothness_window, self.horizon)
        # Of round trips that are dropped nothing is known.
        return gain, SteadyTimes(self.history) if self.resample and not dropped else FittedTimes(workers, self.history, dropped)

    def start(self, view: ServerView, now: Seconds) -> DbwState:
        """Know nothing, and wait for all."""
        n = len(view.workers)
        return DbwState(*self._estimators(n, view.push == "interrupt"), view.version, n)

    def quota(self, view: ServerView, state: DbwState) -> int:
        """The choice in force."""
        return min(state.k, len(view.workers))

    def decide(self, view: ServerView, arrival: Arrival | None, state: DbwState, now: Seconds) -> tuple[Verdict, DbwState]:
        """Take the time of what has come, and judge as with any quorum."""
        # The first batches take longer than any later one: programs warm up, and not all workers began when the server did.
        if view.version > state.first:
            for gradient in [arrival] if arrival is not None else view.kept.values():
                state.times.gradient(gradient.worker, gradient.version, gradient.version < view.version, gradient.at)
        return super().decide(view, arrival, state, now)

    def applied(self, view: ServerView, update: Update, state: DbwState, now: Seconds) -> DbwState:
        """Learn from an update, and choose how many gradients the next one waits for."""
        n = len(view.workers)
        if not n:
            return state
        used = len(update.arrivals)
        # A worker that left after it had pushed may make it more.
        idle = min(used, n)
        state.times.update(view.version, idle, view.workers, view.updated_at)
        if not self.blind:
            if not update.step > 0:
                # Warm-up from nothing, or a decay to it: the weights stay, and of gains it tells nothing.
                return state
            state.gain.observe(
                used,
                update.square,
                math.fsum(arrival.square for arrival in update.arrivals),
                math.fsum(arrival.loss for arrival in update.arrivals) / used,
                update.step,
            )
        factor = view.factor(used, n)
        state.k = self._choose(state, view, idle, n, update.step / factor if factor > 0 else 0.0)
        return state

    def departed(self, worker: Rank, view: ServerView, state: DbwState, now: Seconds) -> DbwState:
        """Count with those that are left."""
        n = len(view.workers)
        if n:
            state.times.leave(worker, view.workers)
            state.k = min(state.k, n)
        return state

    def learnt(self, state: DbwState) -> dict[str, Any]:
        """Return what the estimators have seen, and the choice in force; which gradients are awaited is the session's affair."""
        return {"gain": state.gain.state_dict(), "times": state.times.state_dict(), "k": state.k}

    def resume(self, learnt: dict[str, Any], view: ServerView, now: Seconds) -> DbwState:
        """Go on with these estimates."""
        state, n = self.start(view, now), len(view.workers)
        state.gain.load_state_dict(learnt["gain"])
        # Times are told in another way where work is dropped, and say nothing of each other.
        if learnt["times"].keys() == state.times.state_dict().keys():
            state.times.load_state_dict(learnt["times"], view.workers)
        state.k = min(learnt["k"], n)
        return state

    def _choose(self, state: DbwState, view: ServerView, used: int, n: int, unit: float) -> int:
        times = state.times.expected(view.workers)
        if self.blind:
            # All times unknown is no reason to prefer any k but the safe one, which tells the most as well.
            return choose_blindly(times) if times.any() else n
        if not state.gain.ready:
            return n
        steps = [unit * view.factor(k, n) for k in range(1, n + 1)]
        gains = [state.gain.gain(k, step) if step > 0 else 0.0 for k, step in enumerate(steps, 1)]
        return choose(gains, times, max(bound_after_rise(used, n, state.gain.loss_rose), bound_on_fall(used)))
