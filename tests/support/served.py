"""A simulated parameter server for server rules: compute times, nothing on the way, and every verdict checked when it comes.

It knows the rules' interface alone, none of the engine: what a rule may rely on is written here a second time.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from consensus.protocol.service import Arrival, Factor, PushMode, ServerRule, ServerView, Update, Verdict


def snapshot(view: ServerView) -> tuple[object, ...]:
    """All that a rule might change."""
    return view.workers, view.version, view.updated_at, dict(view.kept), dict(view.iterations), set(view.held)


@dataclass
class Worker:
    """What one worker is at: the version it computes (None: it waits), the newest it may go on from, its pushes so far."""

    computing: int | None = 0
    next: int | None = None
    turn: int = 0
    pushes: int = 0


@dataclass
class Served:
    """A server under ``rule`` and ``n`` workers numbered from 1, whose iterations take ``draw(worker)``.

    ``departures`` are (time, worker); a gradient of a departed worker that is kept stays so unless ``forget``. An update takes
    ``apply_seconds``, during which gradients come and nobody is asked. Every gradient has norm 1, the mean of k the squared norm
    ``square(k)``: 1/k is noise alone, 1 none at all; one at version v reports ``loss(v)``. ``watch`` is called when all is done
    that followed from an update.
    """

    rule: ServerRule
    n: int
    draw: Callable[[int], float]
    push: PushMode = "wait"
    departures: Iterable[tuple[float, int]] = ()
    forget: bool = False
    factor: Factor = lambda k, n: 1.0
    loss: Callable[[int], float] = lambda version: 1.0 / (1 + version)
    square: Callable[[int], float] = lambda k: 1.0 / k
    apply_seconds: float = 0.0
    audit: bool = True
    watch: Callable[[Served], None] | None = None

    now: float = 0.0
    updates: list[Update] = field(default_factory=list)
    made_at: list[float] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)
    fates: dict[tuple[int, int], str] = field(default_factory=dict)
    arrived: Counter[int] = field(default_factory=Counter)
    leads: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rule.fit(self.n)
        self.view = ServerView(tuple(range(1, self.n + 1)), factor=self.factor, push=self.push)
        self.view.iterations.update(dict.fromkeys(self.view.workers, 0))
        self.state: Any = self.rule.start(self.view, 0.0)
        self.workers = {rank: Worker() for rank in self.view.workers}
        self._order = itertools.count()
        self._events: list[tuple[float, int, int, int]] = []
        self._queue: list[Arrival] = []
        self._applying: tuple[Verdict, tuple[Arrival, ...]] | None = None
        for rank in self.view.workers:
            self._compute(rank, 0)
        for at, rank in self.departures:
            self._schedule(at, -rank, 0)

    # -- time -----------------------------------------------------------------------------------------------------------

    def run(self, updates: int | None = None, until: float = math.inf) -> Served:
        """Go on until so many updates are made, or so late; that nothing more happens before is a deadlock."""
        while (updates is None or len(self.updates) < updates) and self.view.workers:
            assert self._events, f"deadlock at {self.now}: {self.verdicts[-1].reason}"
            if self._events[0][0] > until:
                break
            self.now, _, rank, turn = heapq.heappop(self._events)
            if rank == 0:
                self._applied()
            elif rank < 0:
                self._depart(-rank)
            elif self.workers[rank].turn == turn and rank in self.view.workers:
                self._finished(rank)
        return self

    def _schedule(self, at: float, rank: int, turn: int) -> None:
        heapq.heappush(self._events, (at, next(self._order), rank, turn))

    # -- workers --------------------------------------------------------------------------------------------------------

    def _compute(self, rank: int, version: int) -> None:
        worker = self.workers[rank]
        worker.computing, worker.next, worker.turn = version, None, worker.turn + 1
        self.leads.append(worker.pushes - min(self.workers[other].pushes for other in self.view.workers))
        self._schedule(self.now + self.draw(rank), rank, worker.turn)

    def _finished(self, rank: int) -> None:
        worker, view = self.workers[rank], self.view
        assert worker.computing is not None
        worker.pushes += 1
        self.arrived[rank] += 1
        gradient = Arrival(rank, worker.computing, worker.pushes, self.now, self.loss(worker.computing), 1.0)
        newer = worker.next
        worker.computing = None
        self._queue.append(gradient)
        if newer is not None:
            # Pulling takes the newest there is; else it has been sent already.
            self._compute(rank, view.version if self.push == "pull" else newer)
        self._take()

    # -- the server -----------------------------------------------------------------------------------------------------

    def _take(self) -> None:
        """Let in what has come, one gradient a worker; while an update is made, without asking the rule."""
        for gradient in tuple(self._queue):
            if gradient.worker in self.view.kept:
                continue
            self._queue.remove(gradient)
            self.view.kept[gradient.worker] = gradient
            self.view.held.add(gradient.worker)
            self.view.iterations[gradient.worker] = gradient.iteration
            if self._applying is None:
                self._judge(gradient)

    def _judge(self, arrival: Arrival | None) -> None:
        view = self.view
        before = snapshot(view) if self.audit else ()
        verdict, self.state = self.rule.decide(view, arrival, self.state, self.now)
        if self.audit:
            self._check(verdict, before)
        self.verdicts.append(verdict)
        for rank in verdict.discard:
            self._end(view.kept.pop(rank), "discarded")
        if verdict.apply:
            self._applying = verdict, tuple(view.kept.pop(rank) for rank in verdict.apply)
            if self.apply_seconds:
                self._schedule(self.now + self.apply_seconds, 0, 0)
            else:
                self._applied()
        else:
            self._release(verdict)

    def _applied(self) -> None:
        assert self._applying is not None
        verdict, arrivals = self._applying
        self._applying = None
        for gradient in arrivals:
            self._end(gradient, "applied")
        view = self.view
        view.version += 1
        view.updated_at = self.now
        update = Update(arrivals, self.square(len(arrivals)), 0.1 * self.factor(len(arrivals), max(1, len(view.workers))))
        self.updates.append(update)
        self.made_at.append(self.now)
        self.state = self.rule.applied(view, update, self.state, self.now)
        self._release(verdict)
        # Whatever came or went meanwhile.
        self._judge(None)
        if self.watch is not None and self._applying is None:
            self.watch(self)
        self._take()

    def _release(self, verdict: Verdict) -> None:
        for rank in verdict.release:
            if rank not in self.view.workers:
                continue
            self.view.held.discard(rank)
            worker = self.workers[rank]
            if worker.computing is None or (self.push == "interrupt" and worker.computing < self.view.version):
                self._compute(rank, self.view.version)
            elif worker.computing < self.view.version:
                worker.next = self.view.version

    def _depart(self, rank: int) -> None:
        view = self.view
        view.workers = tuple(other for other in view.workers if other != rank)
        view.held.discard(rank)
        if self.forget:
            if (gradient := view.kept.pop(rank, None)) is not None:
                self._end(gradient, "forgotten")
            self._queue = [gradient for gradient in self._queue if gradient.worker != rank]
        self.state = self.rule.departed(rank, view, self.state, self.now)
        if self._applying is None:
            self._judge(None)
            self._take()

    # -- checks ----------------------------------------------------------------------------------------------------------

    def _end(self, gradient: Arrival, fate: str) -> None:
        key = gradient.worker, gradient.iteration
        assert key not in self.fates, f"gradient {key} is {fate} after it was {self.fates[key]}"
        self.fates[key] = fate

    def _check(self, verdict: Verdict, before: tuple[object, ...]) -> None:
        view = self.view
        assert snapshot(view) == before, "a rule changed what it may only look at"
        assert verdict.reason
        settled = [*verdict.apply, *verdict.discard]
        assert len(settled) == len(set(settled)), f"a gradient settled twice: {verdict}"
        assert set(settled) <= view.kept.keys(), f"no such gradient is kept: {verdict}, {view}"
        assert len(verdict.release) == len(set(verdict.release))
        assert set(verdict.release) <= set(view.workers), f"{verdict} releases one that has left"
        assert not set(verdict.release) & (view.kept.keys() - set(settled)), f"released while its gradient is kept: {verdict}"
        if not self.rule.synchronous:
            assert set(verdict.release) <= view.held, f"released one that computes: {verdict}"
        else:
            assert all(view.kept[rank].version == view.version for rank in verdict.apply), f"stale: {verdict}"
