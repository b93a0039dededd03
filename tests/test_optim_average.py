"""Averages over all ranks, in the middle and at the end; leaving in order and on an exception."""

from __future__ import annotations

import atexit
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

from consensus.errors import ConfigError
from consensus.neighbours import NeighbourHandle
from consensus.transport.base import Transport
from consensus.transport.loopback import run
from tests.worlds import EVERY_RULE, attached_point, descend, numbers, random_graph, slowed

SIZE = 5


def attached(transport: Transport, seed: int = 0, **options: Any) -> NeighbourHandle:
    options = {"lr": 0.1, "rule": "full", **options}
    return attached_point(slowed(transport, seed), topology=random_graph(SIZE, seed), **options)[0]


@pytest.mark.parametrize("rule", EVERY_RULE)
@pytest.mark.parametrize("order", ["adapt-combine", "combine-adapt"])
def test_average_at_different_rounds_and_training_goes_on(rule: str, order: str) -> None:
    def train(transport: Transport) -> tuple[list[float], list[float], list[float], int]:
        with attached(transport, 1, rule=EVERY_RULE[rule], order=order) as handle:
            target = numbers(transport.rank)
            descend(handle, 2 + 3 * transport.rank, target)
            before = handle.model.w.tolist()
            handle.average()
            middle = handle.model.w.tolist()
            descend(handle, 20 - 3 * transport.rank, target)
            handle.average()
            handle.average()
        return before, middle, handle.model.w.tolist(), handle.statistics.rounds

    results = run(SIZE, train, seed=2)
    for _, middle, end, rounds in results:
        np.testing.assert_allclose(middle, np.mean([before for before, *_ in results], axis=0), rtol=1e-12)
        np.testing.assert_allclose(end, results[0][2], rtol=1e-12)
        assert rounds == 22
    assert not np.allclose(results[0][1], results[0][2])


def test_averaged_lends_the_mean_and_puts_the_own_model_back() -> None:
    def look(transport: Transport) -> tuple[list[float], list[float], list[float], int]:
        with attached(transport, rule="dtur") as handle:
            descend(handle, transport.rank, numbers(0))
            before = handle.model.w.tolist()
            with handle.averaged() as model:
                assert model is handle.model
                mean = model.w.tolist()
            after = handle.model.w.tolist()
            with pytest.raises(KeyError), handle.averaged():
                raise KeyError
            assert handle.model.w.tolist() == after
            descend(handle, 7, numbers(0))
            return before, mean, after, handle.statistics.rounds

    results = run(SIZE, look)
    for rank, (before, mean, after, rounds) in enumerate(results):
        assert after == before
        np.testing.assert_allclose(mean, np.mean([model for model, *_ in results], axis=0), rtol=1e-12)
        assert rounds == rank + 7


def test_the_lent_model_may_be_run_but_not_trained() -> None:
    def look(transport: Transport) -> int:
        with attached(transport, order="combine-adapt") as handle:
            descend(handle, 2, numbers(0))
            with handle.averaged() as model:
                model(numbers(0)).backward()
                with pytest.raises(ConfigError, match=r"inside averaged\(\)"):
                    handle.optimizer.step()
            descend(handle, 3, numbers(0))
        return handle.statistics.rounds

    assert run(SIZE, look) == [5] * SIZE


def test_close_twice_and_average_after_close() -> None:
    def train(transport: Transport) -> list[float]:
        handle = attached(transport, rule="dtur")
        descend(handle, 1 + transport.rank, numbers(transport.rank))
        handle.close()
        handle.close()
        handle.average()
        return handle.model.w.tolist()

    results = run(SIZE, train)
    np.testing.assert_allclose(results, np.tile(results[0], (SIZE, 1)), rtol=1e-12)


def fails(transport: Transport, exits: list[Any], notes: list[str], rule: str, when: str) -> int:
    """Rank 2 raises after three steps, catches it outside, and ends as processes do: with its exit handlers."""
    rank = transport.rank
    handle = attached(transport, 3, rule=EVERY_RULE[rule])
    try:
        with handle:
            descend(handle, 3, numbers(rank))
            if rank == 2:
                if when == "averaged":
                    with handle.averaged():
                        raise ArithmeticError("a bad batch")
                raise ArithmeticError("a bad batch")
            if when == "averaged":
                with handle.averaged():
                    pass
            descend(handle, 9, numbers(rank))
    except ArithmeticError as error:
        notes.extend(error.__notes__)
        (goodbye,) = exits
        exits.clear()
        transport.sleep(1.0)
        goodbye()
    descend(handle, 1, numbers(rank))  # detached: a step of its own
    return handle.statistics.rounds


@pytest.mark.parametrize("rule", EVERY_RULE)
@pytest.mark.parametrize("when", ["training", "averaged"])
def test_the_others_go_on_without_a_rank_that_raised(rule: str, when: str, monkeypatch: pytest.MonkeyPatch) -> None:
    exits: list[Any] = []
    monkeypatch.setattr(atexit, "register", exits.append)
    notes: list[str] = []
    assert run(SIZE, lambda transport: fails(transport, exits, notes, rule, when), seed=4) == [12, 12, 3, 12, 12]
    assert notes == [f"on rank 2 of {SIZE}"]


def test_alone_there_is_no_word_of_ranks() -> None:
    def raises(transport: Transport) -> None:
        handle, _ = attached_point(transport, lr=0.1, topology="ring")
        with handle:
            raise KeyError("x")

    with pytest.raises(KeyError) as caught:
        run(1, raises)
    assert not any(note == "on rank 0 of 1" for note in caught.value.__notes__)


def test_before_change_sees_every_model_before_it_changes() -> None:
    """What an evaluation at clock marks hangs on: at each call the model is still the one of the call before's change."""

    def watch(transport: Transport) -> list[list[float]]:
        handle = attached(transport)
        seen: list[list[float]] = []
        with handle:
            handle.before_change = lambda: seen.append(handle.model.w.tolist())
            descend(handle, 2, torch.zeros(3, dtype=torch.float64))
            handle.average()
        return seen

    for seen in run(SIZE, watch):
        # step, mix, step, mix, average
        assert len(seen) == 5
        assert all(one != other for one, other in pairwise(seen))
        np.testing.assert_allclose(seen[1], 0.9 * np.array(seen[0]), rtol=1e-14)
