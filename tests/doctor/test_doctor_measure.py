"""A system that is measured without a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import pytest

from consensus.coding.layout import Layout
from consensus.coding.system import Node, System, Worker
from consensus.doctor import measure
from consensus.doctor.measure import GRADIENT_BYTES, gradient_steps, measure_system
from consensus.models import build
from consensus.transport.base import CHUNK_BYTES, Transport
from consensus.transport.loopback import LoopbackTransport, run

LAYOUT = Layout((1, 2))
BANDWIDTH = 1e9
PART = {3: 0.01, 4: 0.02, 5: 0.03}
"""Seconds, by worker."""


class Hasty:
    """A transport whose clock goes the faster the higher its rank is, so that every link seems to have a speed of its own."""

    def __init__(self, transport: LoopbackTransport) -> None:
        self._transport = transport

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def now(self) -> float:
        return self._transport.now() * (1 + self._transport.rank)


def measured(transport: LoopbackTransport) -> System:
    def compute() -> Sequence[float]:
        return [PART[transport.rank]] * 5  # of another rank there are none

    return measure_system(cast(Transport, Hasty(transport)), LAYOUT, compute)


def test_computing_and_links_are_those_of_the_layout() -> None:
    systems = run(LAYOUT.size, measured, bandwidth=BANDWIDTH, latency=(1e-5, 1e-5))
    assert systems == [systems[0]] * LAYOUT.size
    system = systems[0]
    assert system.workers_per_edge == LAYOUT.workers_per_edge
    workers: list[Worker] = [worker for edge in system.edges for worker in edge.workers]
    assert [worker.mean_part for worker in workers] == pytest.approx(list(PART.values()))
    nodes: list[Node] = [*system.edges, *workers]
    # Half of a link's transfers are timed by each of its ends.
    hastes = [1 + (pair[0] + pair[1]) / 2 for pair in [(0, 1), (0, 2), (1, 3), (2, 4), (2, 5)]]
    assert [node.mean_transfers / 2 / GRADIENT_BYTES * BANDWIDTH for node in nodes] == pytest.approx(hastes, rel=0.1)
    assert System.from_dict(system.to_dict()) == system


def test_gradients_take_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "STEPS", 2)
    monkeypatch.setattr(measure, "WARM", 1)
    seconds = gradient_steps()
    assert len(seconds) == 2
    assert min(seconds) > 0


def test_what_is_sent_is_as_large_as_the_2nns_gradient() -> None:
    model = build("2nn", measure.IMAGE, measure.CLASSES, seed=0)
    assert 4 * sum(parameter.numel() for parameter in model.parameters()) == GRADIENT_BYTES
    assert [chunk.size for chunk in measure.Ballast(GRADIENT_BYTES).chunks] == [CHUNK_BYTES, GRADIENT_BYTES - CHUNK_BYTES]
