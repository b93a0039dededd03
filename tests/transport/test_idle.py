"""Pauses grow with the time waited, and never while a model moves."""

from __future__ import annotations

import os
import time

import pytest

from consensus.transport.idle import Idle, cpus, crowded


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float | str]:
    log: list[float | str] = []
    monkeypatch.setattr(time, "sleep", log.append)
    monkeypatch.setattr(os, "sched_yield", lambda: log.append("yield"))
    return log


def test_a_rank_yields_first_and_then_sleeps_ever_longer(pauses: list[float | str]) -> None:
    idle = Idle(patience=1e-3, longest=1e-3, fraction=0.25)
    for waited in (0.0, 5e-4, 1e-3, 2e-3, 4e-3, 60.0):
        idle.pause(waited, moving=False)
    assert pauses == ["yield", "yield", 2.5e-4, 5e-4, 1e-3, 1e-3]


def test_a_rank_never_sleeps_while_a_model_is_under_way(pauses: list[float | str]) -> None:
    Idle(patience=0.0, longest=1e-3).pause(10.0, moving=True)
    assert pauses == ["yield"]


def test_ranks_bound_to_a_processor_each_are_not_crowded() -> None:
    assert not crowded(frozenset({cpu}) for cpu in range(4))
    assert crowded([frozenset({0})] * 2)
    assert crowded([frozenset({0, 1})] * 3)
    assert not crowded([cpus()])


def test_without_affinities_all_processors_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    assert cpus() == {0, 1, 2}
