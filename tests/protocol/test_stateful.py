"""Four to eight engines on a random graph; hypothesis picks what happens next, and who leaves or dies when."""

from __future__ import annotations

import math
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from support.wire import Shuffle, connected

from consensus.protocol.rounds import Phase
from consensus.rules import build
from consensus.sim.explore import AnyTime

PICK = st.integers(0, 2**16)

CONFIGURATIONS: list[tuple[Any, str]] = [
    (build("full"), "static"),
    (build("full"), "active"),
    (build("static_backup", b=1), "static"),
    (build("static_backup", b=3), "static"),
    (build("dtur"), "static"),
    (build("dtur"), "active"),
    (build("pathsearch"), "static"),
    (build("gap", window=1), "static"),
    (build("deadline", seconds=0.02), "static"),
    (build("run_free"), "static"),
    (AnyTime(), "static"),
]


class AnyOrder(RuleBasedStateMachine):
    """Everything that can happen, in any order; the network itself checks after each event and at the end."""

    net: Shuffle

    @initialize(
        n=st.integers(4, 8),
        seed=PICK,
        density=st.sampled_from([0.0, 0.3, 0.7, 1.0]),
        configuration=st.sampled_from(CONFIGURATIONS),
        rounds=st.lists(st.integers(0, 4), min_size=8, max_size=8),
        stuck_after=st.sampled_from([math.inf, 0.005, 0.05]),
    )
    def begin(
        self, n: int, seed: int, density: float, configuration: tuple[Any, str], rounds: list[int], stuck_after: float
    ) -> None:
        wait_rule, weights = configuration
        graph = connected(n, seed, density)
        self.net = Shuffle(graph, wait_rule, rounds=rounds[:n], seed=seed, weights=weights, stuck_after=stuck_after)

    def busy(self) -> bool:
        return bool(self.net.pending)

    @precondition(busy)
    @rule(picks=st.lists(PICK, min_size=1, max_size=20))
    def go_on(self, picks: list[int]) -> None:
        for pick in picks:
            if self.net.pending:
                self.net.go(pick)

    @precondition(busy)
    @rule(pick=PICK)
    def newest_first(self, pick: int) -> None:
        """Let one rank's news travel fast while the rest stands still."""
        for _ in range(pick % 12):
            if self.net.pending:
                self.net.go(-1)

    def tell(self, rank: int) -> bool:
        """Tell ``rank`` to close, if it is of the kind that has to be told."""
        engine = self.net.engines[rank]
        if rank in self.net.dead or not isinstance(engine.rule, AnyTime) or engine.phase is not Phase.OPEN:
            return False
        engine.rule_state = True
        self.net.perform(("tick", rank))
        return True

    @rule(rank=st.integers(0, 7))
    def close(self, rank: int) -> None:
        self.tell(rank % self.net.n)

    @rule(rank=st.integers(0, 7))
    def leave(self, rank: int) -> None:
        self.net.perform(("leave", rank % self.net.n))

    @precondition(lambda self: len(self.net.dead) < 2)
    @rule(rank=st.integers(0, 7))
    def die(self, rank: int) -> None:
        self.net.perform(("die", rank % self.net.n))

    def teardown(self) -> None:
        if hasattr(self, "net"):
            self.net.settle()
            while sum(self.tell(rank) for rank in range(self.net.n)) > 0:
                self.net.settle()
            self.net.check_end()


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(
    max_examples=150, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
