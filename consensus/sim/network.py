"""Real engines on a virtual clock: the network of a run without the cluster.

The engines, the rules and the messages are those of a real run; what is modelled is how long steps, messages and models take.
Links do not contend, averaging takes no time, and a message is handled when it arrives. A real rank that computes handles its
messages when it is done, but nothing of them matters to anybody before that.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Literal, TypeAlias

from consensus.errors import ConfigError, ProtocolError
from consensus.protocol.decision import Rule
from consensus.protocol.events import Control
from consensus.protocol.messages import WIRE_BYTES
from consensus.protocol.neighbour import NeighbourEngine, Weights
from consensus.protocol.rounds import Phase, RoundRecord
from consensus.protocol.story import Recorder
from consensus.rules.stateless import Stateless
from consensus.sim.kernel import Kernel
from consensus.sim.pages import enlarge
from consensus.sim.plant import Plant, Still
from consensus.sim.worker import Worker
from consensus.timing import Link, Stream
from consensus.topology.backbone import SharedGraph
from consensus.types import Rank, Round, Seconds

Stop: TypeAlias = Callable[[Rank, Round], bool]
"""Asked with (rank, its closed rounds) after each local step: whether the rank leaves."""

OnRound: TypeAlias = Callable[[Rank, RoundRecord, Seconds], None]
"""Told (rank, record, seconds of the local step before) of each round that is closed and mixed."""

_TOLD = 3
"""How many waiting ranks an error describes."""

_LARGE = 2000
"""From so many ranks on, large pages are worth the tenths of a second that it takes to move to them."""


class Network:
    """n engines, the links between them, and the models.

    Parameters
    ----------
    adjacency : Mapping[Rank, Collection[Rank]]
        The graph on 0 .. n-1.
    rule : Rule
        Of all ranks.
    streams : sequence of Stream
        How long each rank's local steps take: one duration a round, for all its ``every`` steps.
    link : Link
        How long messages and models take.
    stop : callable
        See :data:`Stop`.
    plant : Plant
        The models; none by default.
    model_bytes, control_bytes : int
        Sizes for the link, bytes.
    weights, every, order
        As of :func:`consensus.attach`.
    on_round : callable, optional
        See :data:`OnRound`.
    recorders : sequence of callable, optional
        See :data:`consensus.protocol.story.Recorder`, one a rank.
    kernel : Kernel, optional
        The clock, if others schedule on it too.

    Attributes
    ----------
    kernel : Kernel
        The clock.
    engines : list of NeighbourEngine
        By rank.
    ended_at : list of float
        When each rank left, seconds; NaN before.

    Raises
    ------
    ConfigError
        If there is not one stream a rank, or a size is negative; while it runs, if a step takes no finite time from 0 on.
    """

    def __init__(
        self,
        adjacency: Mapping[Rank, Collection[Rank]],
        rule: Rule,
        streams: Sequence[Stream],
        link: Link,
        *,
        stop: Stop,
        plant: Plant | None = None,
        model_bytes: int = 0,
        control_bytes: int = WIRE_BYTES,
        weights: Weights = "static",
        every: int = 1,
        order: Literal["adapt-combine", "combine-adapt"] = "adapt-combine",
        on_round: OnRound | None = None,
        recorders: Sequence[Recorder] | None = None,
        kernel: Kernel | None = None,
    ) -> None:
        size = len(adjacency)
        if len(streams) != size:
            raise ConfigError(f"{len(streams)} streams of compute times for {size} ranks, expected one each")
        if min(model_bytes, control_bytes) < 0:
            raise ConfigError(f"model_bytes = {model_bytes}, control_bytes = {control_bytes}: expected 0 bytes or more")
        self.kernel = kernel if kernel is not None else Kernel()
        self.size, self.link = size, link
        self.model_bytes, self.control_bytes = model_bytes, control_bytes
        self.plant: Plant = plant if plant is not None else Still()
        self.stop, self.on_round = stop, on_round
        self.every, self.combines_first = every, order == "combine-adapt"
        adjacency = SharedGraph(adjacency)
        # Rules without a memory look at neighbours only: nobody else need hear of a departure.
        everyone = not isinstance(rule, Stateless)
        self.engines = [NeighbourEngine(rank, adjacency, rule, weights=weights, everyone=everyone) for rank in range(size)]
        for engine in self.engines:
            engine.story = None  # with thousands of ranks, stories would be what memory is full of
        self.ended_at = [math.nan] * size
        self.times: dict[Seconds, Seconds] = {}
        self._workers = [Worker(self, engine, stream) for engine, stream in zip(self.engines, streams, strict=True)]
        if recorders is not None:
            for worker, recorder in zip(self._workers, recorders, strict=True):
                worker.record(recorder)
        for worker in self._workers:
            worker.connect(self._workers)
            self.kernel.at(self.kernel.now, worker.begin, None)

    def run(self, until: Seconds = math.inf) -> None:
        """Run to the end of all ranks, or to a time.

        Parameters
        ----------
        until : float
            Stop there, seconds, in the middle of whatever goes on; :meth:`run` may be called again.

        Raises
        ------
        ProtocolError
            If ranks wait for what will never come.
        """
        if self.size >= _LARGE and not self.kernel.events:
            enlarge()
        with _no_collections():
            self.kernel.run(until)
        if until == math.inf and not all(engine.phase is Phase.FINISHED for engine in self.engines):
            self._explain()

    def _explain(self) -> None:
        waiting = [engine for engine in self.engines if engine.phase is not Phase.FINISHED]
        told = "\n".join(engine.describe(self.kernel.now) for engine in waiting[:_TOLD])
        raise ProtocolError(f"ranks {[engine.rank for engine in waiting]} wait, and nothing can happen any more\n{told}")

    def bytes_sent(self, rank: Rank) -> int:
        """Models and control messages of ``rank`` so far, bytes."""
        worker = self._workers[rank]
        return worker.messages * self.control_bytes + worker.models * self.model_bytes

    def send_all(self, sender: Worker, letter: Control) -> None:
        """Deliver a broadcast: one event for all ranks that are equally far, however many."""
        sender.messages += self.size - 1
        now = self.kernel.now
        self.kernel.at(now + sender.delay, self._spread, (sender.apart, letter))
        for delay, ranks in sender.slow.items():
            self.kernel.at(now + delay, self._reach, (ranks, letter))

    def _spread(self, argument: tuple[set[Rank], Control]) -> None:
        apart, letter = argument
        self.kernel.events += self.size - len(apart) - 1
        for worker in self._workers:
            if worker.rank not in apart:
                worker.take(letter)

    def _reach(self, argument: tuple[list[Rank], Control]) -> None:
        ranks, letter = argument
        self.kernel.events += len(ranks) - 1
        for rank in ranks:
            self._workers[rank].take(letter)

    def swapped(self, argument: tuple[Worker, Worker, float | None]) -> None:
        """End a swap, at both ends."""
        one, other, weight = argument
        self.kernel.events += 1
        self.plant.exchange(one.rank, other.rank, weight)
        one.take(other.swapped)
        other.take(one.swapped)


@contextmanager
def _no_collections() -> Iterator[None]:
    """Keep the cycle collector off: engines make no cycles, and it would walk all of them again and again."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
