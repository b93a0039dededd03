"""Elastic bulk synchronous parallel: supersteps that end when all workers are predicted to be done at nearly the same time."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from consensus.errors import ConfigError, ProtocolError
from consensus.protocol.service import Arrival, ServerView, Verdict
from consensus.rules.memoryless import Memoryless
from consensus.rules.zipline import Objective, zipline
from consensus.types import Rank, Seconds


@dataclass(slots=True)
class ElasticState:
    """A superstep.

    Attributes
    ----------
    began : Seconds
        When the last barrier opened.
    noted : dict[Rank, int]
        The newest push of each worker that has been counted, by its iteration.
    pushed : dict[Rank, tuple[Seconds, ...]]
        The last two times at which each worker pushed since ``began``, until the prediction.
    quotas : dict[Rank, int]
        Iterations of each worker from the prediction to the barrier; empty while monitoring.
    done : dict[Rank, int]
        Pushes since the prediction.
    """

    began: Seconds
    noted: dict[Rank, int] = field(default_factory=dict)
    pushed: dict[Rank, tuple[Seconds, ...]] = field(default_factory=dict)
    quotas: dict[Rank, int] = field(default_factory=dict)
    done: dict[Rank, int] = field(default_factory=dict)

    def monitored(self, worker: Rank) -> bool:
        """Whether ``worker`` has pushed twice."""
        return len(self.pushed.get(worker, ())) == 2

    def waits(self, worker: Rank) -> bool:
        """Whether ``worker`` has reached its quota."""
        return worker in self.quotas and self.done[worker] == self.quotas[worker]


@dataclass(frozen=True)
class Elastic(Memoryless):
    """Predict where the workers' iterations nearly coincide, and put a barrier there.

    A superstep begins at a barrier and has two parts. In the first, gradients are applied as they come, until every living worker
    has pushed twice. Then, from each worker's last interval I between pushes, the ends of its next R iterations are predicted as
    last + i I, and :func:`~consensus.rules.zipline.zipline` chooses one of each: the i-th makes a quota of i more iterations.
    Until its quota a worker's gradients are still applied as they come; the last one is kept and the worker held. When all are
    held, the kept gradients are averaged into one update and all go on from the same weights.

    From the prediction to the barrier no worker makes more than R iterations: nobody is more than R ahead there. Before the
    prediction there is no such bound, since how fast a worker is cannot be known before it has pushed.

    When a worker leaves, the quotas of the others stand: their predicted ends are no further apart without it, and no newer
    prediction is better founded than theirs.

    Parameters
    ----------
    R : int
        Iterations looked ahead, at least 1.
    objective : {'spread', 'rate'}
        What is least at the barrier: the time that the first waits for the last, or (ours) its share of the superstep.

    References
    ----------
    Zhao, Papagelis, An, Chen, Liu, Hu, *Elastic Bulk Synchronous Parallel Model for Distributed Deep Learning*, ICDM 2019,
    arXiv 2001.01347. The paper's body was not at hand: reading the chosen end's index as a quota is ours.
    """

    name: ClassVar[str] = "elastic"
    synchronous: ClassVar[bool] = False
    uses_losses: ClassVar[bool] = False
    R: int = 15
    objective: Objective = "spread"

    def __post_init__(self) -> None:
        if self.R < 1:
            raise ConfigError(f"elastic: R = {self.R}, expected 1 iteration or more to look ahead; 15 is usual")

    def start(self, view: ServerView, now: Seconds) -> ElasticState:
        """Begin the first superstep."""
        return ElasticState(now)

    def decide(
        self, view: ServerView, arrival: Arrival | None, state: ElasticState, now: Seconds
    ) -> tuple[Verdict, ElasticState]:
        """Apply at once what is below its quota; close the superstep when all are at theirs."""
        for gradient in [arrival] if arrival is not None else view.kept.values():
            self._note(gradient, view, state)
        if not state.quotas and view.workers and all(map(state.monitored, view.workers)):
            self._predict(view, state)
        for worker in view.kept:
            if not state.waits(worker):
                released = (worker,) if worker in view.workers else ()
                return Verdict(self._story(view, state), apply=(worker,), release=released), state
        if view.kept and view.workers and all(map(state.waits, view.workers)):
            opened = ElasticState(now, state.noted)
            return Verdict("barrier: all have done their quotas", tuple(view.kept), release=view.workers), opened
        return Verdict(self._story(view, state)), state

    def _note(self, gradient: Arrival, view: ServerView, state: ElasticState) -> None:
        worker = gradient.worker
        if state.noted.get(worker) == gradient.iteration:
            return
        state.noted[worker] = gradient.iteration
        if worker in state.quotas:
            state.done[worker] += 1
            if state.done[worker] > state.quotas[worker]:
                raise ProtocolError(
                    f"elastic: worker {worker} pushed {state.done[worker]} times since the prediction, expected at most its "
                    f"quota of {state.quotas[worker]} (R = {self.R}): it was not held"
                )
        elif not state.quotas:
            state.pushed[worker] = (*state.pushed.get(worker, ())[-1:], gradient.at)

    def _predict(self, view: ServerView, state: ElasticState) -> None:
        # From the superstep's beginning: large clock readings would swallow short intervals.
        last = {worker: state.pushed[worker][1] - state.began for worker in view.workers}
        intervals = {worker: state.pushed[worker][1] - state.pushed[worker][0] for worker in view.workers}
        # Two pushes at one tick of a coarse clock, or taken at once after having queued, are some time apart all the same: at
        # most the least interval that the clock has shown. If it has shown none, any unit makes equals of all workers.
        least = min((interval for interval in intervals.values() if interval > 0), default=1.0)
        predictions = {
            worker: [last[worker] + i * (intervals[worker] or least) for i in range(1, self.R + 1)] for worker in view.workers
        }
        state.quotas = zipline(predictions, self.objective).quotas
        state.done = dict.fromkeys(state.quotas, 0)

    def _story(self, view: ServerView, state: ElasticState) -> str:
        if not state.quotas:
            return f"{sum(map(state.monitored, view.workers))} of {len(view.workers)} workers have pushed twice"
        return f"{sum(map(state.waits, view.workers))} of {len(view.workers)} workers at their quotas"
