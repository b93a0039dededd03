"""Coded gradients on the in-process twin."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from consensus.coded_handle import CodedHandle, CodedWorkerHandle, MasterHandle
from consensus.coding import GradientCode, HierarchicalCode, construct
from consensus.errors import CodingError, ConfigError, NonFiniteLoss
from consensus.optim import attach
from consensus.transport.base import Transport
from consensus.transport.loopback import run
from consensus.transport.single import SingleTransport
from consensus.types import Rank
from tests.coded_worlds import FOR_EVER, loss_of, momentum, network, numbers_of, reference, silence, train

STEPS, PARTS = 8, 7
LAYOUT = [2, 3, 4]
EXACT = ["uncoded", "worker", "edge", "flat", "hgc"]


def size_of(code: GradientCode) -> int:
    return 1 + sum(code.workers_per_edge) + len(code.edges)


def losses(scheme: str, s_e: int = 1, s_w: int = 1) -> tuple[int, int]:
    """What a scheme survives of what it is asked to."""
    return s_e * (scheme not in ("uncoded", "worker")), s_w * (scheme not in ("uncoded", "edge"))


@pytest.mark.parametrize("scheme", EXACT)
@pytest.mark.parametrize("parts", [PARTS, 18, 2])
def test_every_step_is_the_exact_one_whoever_is_silent(scheme: str, parts: int) -> None:
    """Also with as few parts as leave some nodes without any."""
    s_e, s_w = losses(scheme)
    code = construct(scheme, LAYOUT, parts, s_e, s_w)
    silent = silence(code, s_e, s_w, STEPS, seed=parts)

    def body(transport: Transport) -> tuple[list[np.ndarray], np.ndarray]:
        seen, _, model = train(transport, code, STEPS, silent=silent, payload="float64", push="interrupt")
        return seen, numbers_of(model)

    results = run(size_of(code), body)
    np.testing.assert_allclose(results[0][0], reference(STEPS, parts), rtol=1e-10, atol=1e-12)
    for _, end in results:
        np.testing.assert_array_equal(end, results[0][0][-1])


@pytest.mark.parametrize("scheme", ["uncoded", "hgc"])
def test_waiting_mode_and_the_defaults(scheme: str) -> None:
    """float32 vectors, and workers that finish what they have begun."""
    code = construct(scheme, [2, 2], 4, *losses(scheme))

    def body(transport: Transport) -> tuple[list[np.ndarray], float]:
        model = network(torch.float32)
        seen, handle, _ = train(transport, code, STEPS, model=model)
        return seen, handle.worst_residual if isinstance(handle, MasterHandle) else 0.0

    seen, residual = run(7, body)[0]
    np.testing.assert_allclose(seen, reference(STEPS, 4, torch.float32), rtol=2e-4, atol=2e-6)
    assert residual < 1e-12


def test_half_precision_is_half_as_long_and_nearly_right() -> None:
    code = construct("hgc", [2, 2], 4, 1, 1)
    ends = {}
    for payload in ("float32", "bfloat16"):

        def body(transport: Transport, payload: str = payload) -> tuple[np.ndarray, int]:
            seen, handle, _ = train(transport, code, 3, model=network(torch.float32), payload=payload)
            return np.array(seen), handle.transport.bytes_sent

        ends[payload] = run(7, body)
    exact, rough = (ends[payload][0][0] for payload in ("float32", "bfloat16"))
    assert 0 < np.abs(rough - exact).max() < 0.02 * np.abs(exact).max()
    numel = exact.shape[1]
    # Rank 1 is an edge: what goes up is half as long, what goes down is not.
    assert ends["float32"][1][1] - ends["bfloat16"][1][1] == pytest.approx(2 * 3 * numel, abs=2 * numel)


def test_an_approximation_says_how_far_off_it_is() -> None:
    """The workers of an edge that is beyond its tolerance leave; the others' parts still train."""
    code = construct("uncoded", [1, 1], 4, 0, 0)

    def body(transport: Transport) -> tuple[float, int, list[int]]:
        model = network()
        counts: list[int] = []
        with attach(model, momentum(model), architecture="coded", code=code, transport=transport, approximate=True) as handle:
            assert isinstance(handle, CodedHandle)
            if transport.rank == 3:
                return 0.0, 0, []  # leaves without having trained
            handle.train(loss_of(model), steps=4, on_update=lambda loss, samples, residual: counts.append(samples))
        residual = handle.worst_residual if isinstance(handle, MasterHandle) else 0.0
        return residual, handle.statistics.rounds, counts

    residual, rounds, counts = run(5, body)[0]
    assert (residual, rounds) == (pytest.approx(1.0), 4)
    assert counts == [sum(2 + part % 3 for part in code.assignment(1, 0))] * 4


def test_beyond_the_tolerance_the_master_says_so() -> None:
    code = construct("hgc", [2, 2], 4, 1, 0)

    def body(transport: Transport) -> str:
        model = network()
        with attach(model, momentum(model), architecture="coded", code=code, transport=transport) as handle:
            assert isinstance(handle, CodedHandle)
            if transport.rank in (3, 5):
                return "left"
            if transport.rank == 0:
                with pytest.raises(CodingError) as caught:
                    handle.train(loss_of(model), steps=4)
                return str(caught.value)
            handle.train(loss_of(model), steps=4)
            return "trained"

    told, *others = run(7, body)
    assert "of ranks [1, 2], which send to the master, only [] are left, too few for the code" in told
    assert others == ["trained", "trained", "left", "trained", "left", "trained"]


def test_training_ends_when_the_master_wants_it() -> None:
    code = construct("uncoded", [2], 2, 0, 0)

    def body(transport: Transport) -> int:
        model = network()
        updates: list[float] = []
        with attach(model, momentum(model), architecture="coded", code=code, transport=transport) as handle:
            assert isinstance(handle, CodedHandle)
            handle.train(loss_of(model), until=lambda: len(updates) >= 5, on_update=lambda loss, *_: updates.append(loss))
            handle.average()
            handle.average()
        assert all(0 < loss < 2 for loss in updates)
        return handle.statistics.rounds

    assert run(4, body)[0] == 5


def test_a_gradient_that_is_not_finite_is_named() -> None:
    code = construct("uncoded", [1], 2, 0, 0)

    def body(transport: Transport) -> str:
        model = network()

        def part_loss(step: int, part: int) -> tuple[Tensor, int]:
            loss, count = loss_of(model)(step, part)
            return (loss * math.nan if (step, part) == (2, 1) else loss), count

        with attach(model, momentum(model), architecture="coded", code=code, transport=transport, approximate=True) as handle:
            assert isinstance(handle, CodedHandle)
            if transport.rank == 1:
                handle.train(part_loss, steps=4)  # an edge is silent when its workers have left
                return ""
            if transport.rank == 0:
                with pytest.raises(CodingError, match=r"only \[\] are left"):
                    handle.train(part_loss, steps=4)
                return ""
            with pytest.raises(NonFiniteLoss) as caught:
                handle.train(part_loss, steps=4)
            return str(caught.value)

    assert "the gradient of rank 2 at step 2, of parts [0, 1], is not finite" in run(3, body)[2]


def bad(message: str, transport: Transport | None = None, **options: Any) -> None:
    model = options.pop("model", None) or network()
    with pytest.raises(ConfigError, match=message):
        attach(model, momentum(model), architecture="coded", transport=transport or SingleTransport(), **options)


def test_bad_arguments() -> None:
    code = HierarchicalCode([3, 4, 5], 24, 1, 1)
    bad("code is missing: who computes what")
    bad(r"the code is for 16 ranks \(a master, 3 edges, 12 workers\), but there are 1; start 16", code=code)
    bad("push = 'pull': expected 'wait' or 'interrupt'", code=code, push="pull")
    bad("topology, rule, recorder and servers do not apply", code=code, topology="ring")
    with pytest.raises(ConfigError, match='add architecture="coded"'):
        attach(network(), momentum(network()), topology="ring", code=code, transport=SingleTransport())
    for s_e, s_w, message in [(3, 0, "edge_stragglers = 3"), (0, 3, "worker_stragglers = 3")]:
        with pytest.raises(ConfigError, match=message):
            HierarchicalCode([3, 4, 5], 24, s_e, s_w)


def on_three(message: str, body_of: Any) -> None:
    code = construct("uncoded", [1], 2, 0, 0)

    def body(transport: Transport) -> None:
        with pytest.raises(ConfigError, match=message):
            body_of(transport, code)

    run(3, body)


def test_what_three_ranks_may_not_do() -> None:
    def attached(transport: Transport, code: GradientCode, **options: Any) -> CodedHandle:
        model = options.pop("model", None) or network()
        handle = attach(model, momentum(model), architecture="coded", code=code, transport=transport, **options)
        assert isinstance(handle, CodedHandle)
        return handle

    def with_batch_norm(transport: Transport, code: GradientCode) -> None:
        attached(transport, code, model=nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)))

    def differently(transport: Transport, code: GradientCode) -> None:
        attached(transport, code if transport.rank else construct("uncoded", [1], 3, 0, 0))

    def with_an_own_step(transport: Transport, code: GradientCode) -> None:
        with attached(transport, code) as handle:
            handle.optimizer.step()

    def endlessly(transport: Transport, code: GradientCode) -> None:
        with attached(transport, code) as handle:
            handle.train(loss_of(handle.model))

    def no_steps(transport: Transport, code: GradientCode) -> None:
        with attached(transport, code) as handle:
            handle.train(loss_of(handle.model), steps=0)

    def twice(transport: Transport, code: GradientCode) -> None:
        with attached(transport, code) as handle:
            handle.train(loss_of(handle.model), steps=2)
            handle.train(loss_of(handle.model), steps=2)

    def averaging_first(transport: Transport, code: GradientCode) -> None:
        with attached(transport, code) as handle:
            handle.average()

    on_three('averaged buffers .* use buffers="local"', with_batch_norm)
    on_three("code differs between ranks: rank 0 has HierarchicalCode", differently)
    on_three("the master alone makes steps", with_an_own_step)
    on_three("nothing would end it", endlessly)
    on_three("steps = 0, expected a whole number of updates", no_steps)
    on_three("this session is over", twice)
    on_three("call handle.train", averaging_first)


def test_local_batch_norm_is_allowed_and_handles_know_their_place() -> None:
    code = construct("uncoded", [1], 2, 0, 0)

    def body(transport: Transport) -> tuple[bool, Rank]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, 3)).double()
        with attach(
            model, momentum(model), architecture="coded", code=code, transport=transport, buffers="local", payload="float64"
        ) as handle:
            assert isinstance(handle, CodedHandle)
            handle.train(loss_of(model), steps=3)
            handle.average()
        return isinstance(handle, CodedWorkerHandle) and handle.works, handle.layout.above(handle.rank) if handle.rank else -1

    assert run(3, body) == [(False, -1), (False, 0), (True, 1)]


def test_sleeping_for_ever_is_longer_than_any_test() -> None:
    """What the silent workers of these tests do; were they waited for, the twin's clock would show it."""
    code = construct("hgc", [2, 2], 4, 1, 1)
    silent = silence(code, 1, 1, STEPS, seed=1)

    def body(transport: Transport) -> float:
        train(transport, code, STEPS, silent=silent, push="interrupt")
        return transport.now()

    assert max(run(7, body)) < FOR_EVER / 10
