"""Optimizers attached to a parameter server, on the in-process twin."""

from __future__ import annotations

import atexit
import logging
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from consensus.errors import ConfigError
from consensus.optim import attach
from consensus.protocol.service import PushMode
from consensus.rules.asp import Asp
from consensus.rules.backup import Backup
from consensus.rules.dbw import Dbw
from consensus.serving import ServerHandle
from consensus.transport.base import Transport
from consensus.transport.loopback import run
from consensus.transport.single import SingleTransport
from tests.served_worlds import EVERY_RULE_AND_PUSH, EVERY_SERVER_RULE, Served, attached
from tests.worlds import Point, closure_of, numbers, slowed

every_rule = pytest.mark.parametrize(("rule", "push"), EVERY_RULE_AND_PUSH)
pushes = pytest.mark.parametrize("push", ["wait", "interrupt", "pull"])

OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9),
    "adam": lambda parameters: torch.optim.Adam(parameters, lr=0.02),
}


def network() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)).double()


def batches(steps: int, workers: int) -> torch.Tensor:
    """Inputs by step and worker, five samples each."""
    return torch.randn(steps, workers, 5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(8))


def state(model: nn.Module) -> np.ndarray:
    return np.concatenate([parameter.detach().numpy().ravel().copy() for parameter in model.parameters()])


def plain(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.1)


def one_step(handle: Served, inputs: torch.Tensor, corrupt: bool = False) -> None:
    handle.optimizer.zero_grad()
    loss = handle.model(inputs).square().mean()
    loss.backward()
    if corrupt:
        next(handle.model.parameters()).grad.view(-1)[0] = math.nan  # type: ignore[union-attr]
    handle.report_loss(loss.item())
    handle.optimizer.step()


def alone(optimizer: str, inputs: torch.Tensor, decay: float | None = None) -> Iterator[np.ndarray]:
    """One process that trains on all workers' samples at once: its model after each step."""
    model = network()
    stepper = OPTIMIZERS[optimizer](model.parameters())
    scheduler = torch.optim.lr_scheduler.ExponentialLR(stepper, decay) if decay else None
    for batch in inputs:
        stepper.zero_grad()
        model(batch.reshape(-1, 3)).square().mean().backward()
        stepper.step()
        if scheduler is not None:
            scheduler.step()
        yield state(model)


# -- the same as one process ------------------------------------------------------------------------------------------------


@pushes
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("decay", [None, 0.8])
def test_bsp_is_one_process_with_the_averaged_gradient(push: PushMode, optimizer: str, decay: float | None) -> None:
    """Also where a scheduler runs: it runs on the workers alone, and the server's steps follow."""
    inputs = batches(12, 3)

    def train(transport: Transport) -> list[np.ndarray]:
        model, seen = network(), []
        with attached(slowed(transport, 2), model, "bsp", OPTIMIZERS[optimizer](model.parameters()), push=push) as handle:
            if handle.works:
                scheduler = torch.optim.lr_scheduler.ExponentialLR(handle.optimizer, decay) if decay else None
                for batch in inputs:
                    one_step(handle, batch[transport.rank - 1])  # type: ignore[arg-type]
                    seen.append(state(model))
                    if scheduler is not None:
                        scheduler.step()
            else:
                seen.append(state(model))
        return seen

    server, *workers = run(4, train, seed=1)
    expected = list(alone(optimizer, inputs, decay))
    for seen in workers:
        np.testing.assert_allclose(seen, expected, rtol=1e-11, atol=1e-13)
        np.testing.assert_array_equal(seen, workers[0])
    np.testing.assert_array_equal(server[0], workers[0][-1])


@every_rule
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_with_one_worker_every_rule_is_plain_training(rule: str, push: PushMode, optimizer: str) -> None:
    inputs = batches(10, 1)

    def train(transport: Transport) -> list[np.ndarray]:
        model, seen = network(), []
        chosen = Backup(b=0) if rule == "backup" else EVERY_SERVER_RULE[rule]
        with attached(transport, model, chosen, OPTIMIZERS[optimizer](model.parameters()), push=push) as handle:
            if handle.works:
                for batch in inputs:
                    one_step(handle, batch[0])  # type: ignore[arg-type]
                    seen.append(state(model))
        return seen

    _, seen = run(2, train)
    np.testing.assert_allclose(seen, list(alone(optimizer, inputs)), rtol=1e-12, atol=1e-14)


@every_rule
def test_every_rule_trains_and_all_end_with_the_servers_model(rule: str, push: PushMode) -> None:
    def train(transport: Transport) -> tuple[list[float], list[float], list[float], int]:
        model = Point()
        with attached(slowed(transport, 5), model, EVERY_SERVER_RULE[rule], plain(model), push=push) as handle:
            if handle.works:
                for _ in range(40 + 7 * transport.rank):
                    handle.optimizer.zero_grad()
                    loss = model(numbers(9))
                    loss.backward()
                    handle.report_loss(loss.item())
                    handle.optimizer.step()
            before = model.w.tolist()
            with handle.averaged():
                lent = model.w.tolist()
            after = model.w.tolist()
            assert after == before
            handle.average()
        return before, lent, model.w.tolist(), handle.statistics.rounds

    results = run(4, train, seed=4)
    server = results[0][0]
    assert np.allclose(server, numbers(9), atol=0.1)
    for rank, (_, lent, end, rounds) in enumerate(results):
        assert lent == end == server
        assert rounds == 40 + 7 * rank or rank == 0
    assert results[0][3] > 0


def test_it_is_a_function_of_its_seed() -> None:
    def train(transport: Transport) -> list[float]:
        model = Point()
        with attached(slowed(transport, 5), model, "asp", plain(model)) as handle:
            for _ in range(20 * handle.works):
                one_point(handle, transport.rank)
        return model.w.tolist()

    assert run(4, train, seed=1) == run(4, train, seed=1)
    assert run(4, train, seed=1) != run(4, train, seed=2)


def one_point(handle: Served, target: int) -> None:
    handle.optimizer.zero_grad()
    handle.model(numbers(target)).backward()
    handle.optimizer.step()


# -- buffers ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("buffers", ["average", "local"])
def test_what_is_lent_is_given_back_buffers_too(buffers: str) -> None:
    def train(transport: Transport) -> list[float]:
        model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
        with attached(transport, model, "bsp", plain(model), buffers=buffers) as handle:
            for _ in range(5 * handle.works):
                one_step(handle, torch.randn(6, 3, generator=torch.Generator().manual_seed(transport.rank)))
            before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
            with handle.averaged():
                lent = torch.cat([parameter.flatten() for parameter in model.parameters()]).tolist()
            for name, tensor in model.state_dict().items():
                assert torch.equal(tensor, before[name]), name
        return lent

    server, *workers = run(3, train)
    assert workers == [server] * 2


def test_local_statistics_are_nothing_to_a_server(caplog: pytest.LogCaptureFixture) -> None:
    def train(transport: Transport) -> None:
        model = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 1))
        attached(transport, model, "bsp", plain(model), buffers="local").close()

    with caplog.at_level(logging.WARNING, "consensus"):
        run(3, train)
    (told,) = caplog.messages
    assert "the server sees no batches, so its model keeps the statistics" in told


def test_batch_normalisation_follows_the_workers_batches() -> None:
    def train(transport: Transport) -> torch.Tensor:
        model = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 1))
        with attached(transport, model, "bsp", plain(model)) as handle:
            for _ in range(60 * handle.works):
                one_step(handle, torch.randn(64, 3) + torch.tensor([0.0, 5.0, -5.0]))
            handle.average()
        return model.get_buffer("0.running_mean").clone()

    torch.manual_seed(0)
    server, *workers = run(3, train)
    assert server.tolist() == pytest.approx([0.0, 5.0, -5.0], abs=0.3)
    assert all(torch.equal(worker, server) for worker in workers)


# -- one that is not like the others ----------------------------------------------------------------------------------------


@every_rule
def test_a_worker_that_leaves_early(rule: str, push: PushMode) -> None:
    def train(transport: Transport) -> tuple[int, list[float]]:
        model = network()
        with attached(slowed(transport, 3), model, EVERY_SERVER_RULE[rule], plain(model), push=push) as handle:
            for step in range((5 if transport.rank == 1 else 30) * handle.works):
                one_step(handle, batches(30, 3)[step, transport.rank - 1])
        return handle.statistics.rounds, state(model).tolist()

    results = run(4, train, seed=6)
    assert [rounds for rounds, _ in results[1:]] == [5, 30, 30]
    assert results[0][0] > 0


@every_rule
def test_the_others_go_on_without_one_that_raised(rule: str, push: PushMode, monkeypatch: pytest.MonkeyPatch) -> None:
    exits: list[Callable[[], None]] = []
    monkeypatch.setattr(atexit, "register", exits.append)

    def train(transport: Transport) -> int:
        model = network()
        handle = attached(slowed(transport, 4), model, EVERY_SERVER_RULE[rule], plain(model), push=push)
        try:
            with handle:
                for step in range(25 * handle.works):
                    if transport.rank == 1 and step == 4:
                        raise ArithmeticError
                    one_step(handle, batches(25, 3)[step, transport.rank - 1])
        except ArithmeticError:
            for goodbye in exits:
                goodbye()
        return handle.statistics.rounds

    assert run(4, train, seed=2)[1:] == [4, 25, 25]
    assert len(exits) == 1


@every_rule
def test_a_gradient_that_is_not_finite_is_in_no_update(rule: str, push: PushMode, caplog: pytest.LogCaptureFixture) -> None:
    def train(transport: Transport) -> tuple[int, bool, Any]:
        model = network()
        with attached(slowed(transport, 4), model, EVERY_SERVER_RULE[rule], plain(model), push=push) as handle:
            for step in range(20 * handle.works):
                one_step(handle, batches(20, 3)[step, transport.rank - 1], corrupt=(transport.rank, step) == (2, 6))
            handle.average()
        return handle.statistics.rounds, bool(np.isfinite(state(model)).all()), handle.engine

    with caplog.at_level(logging.WARNING, "consensus"):
        results = run(4, train, seed=3)
    assert [rounds for rounds, *_ in results[1:]] == [20] * 3
    assert all(finite for _, finite, _ in results)
    engine = results[0][2]
    assert engine.rejected.total() <= 1
    if push != "interrupt":  # there the batch may have been dropped before it was pushed
        assert engine.rejected == {2: 1}
        assert "of rank 2's step 7, at version" in caplog.text


def test_the_server_steps_as_long_as_the_rate_rule_says() -> None:
    def train(transport: Transport) -> list[float]:
        def quarter(k: int, n: int) -> float:
            return 0.25 * k / n

        model = Point()
        # Each rank has a function of its own; they are called alike.
        with attached(transport, model, "bsp", plain(model), learning_rate=quarter) as handle:
            for _ in range(handle.works):
                one_point(handle, 5)
        return model.w.tolist()

    for end in run(3, train):
        assert end == pytest.approx((0.025 * numbers(5)).tolist())


def test_a_server_that_waits_for_long_says_for_whom(caplog: pytest.LogCaptureFixture) -> None:
    def train(transport: Transport) -> None:
        slow, model = slowed(transport, 1, seconds=1.0, probability=0.0), Point()
        patience = 0.3 if transport.rank == 0 else math.inf
        with attached(slow, model, "bsp", plain(model), stall_warning=patience) as handle:
            for _ in range(handle.works):
                one_point(handle, 1)

    with caplog.at_level(logging.WARNING, "consensus"):
        run(3, train)
    first = caplog.messages[0].splitlines()
    assert first[0] == "stalled, and goes on waiting:"
    assert first[1].startswith("rank 0 serves version 0 for 0.3 s; bsp: no gradient has come yet")
    assert first[2:] == ["  rank 1 computes, with version 0", "  rank 2 computes, with version 0"]


# -- what a scheduler changes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", ["bsp", "dbw"])
def test_a_warm_up_from_nothing_and_a_decay_to_it(rule: str) -> None:
    rates = [0.0, 0.05, 0.1, 0.1, 0.0, 0.0]

    def train(transport: Transport) -> tuple[int, list[float]]:
        model = Point()
        optimizer = plain(model)
        with attached(transport, model, rule, optimizer) as handle:
            for rate in rates * handle.works:
                optimizer.param_groups[0]["lr"] = rate
                handle.report_loss(1.0)
                one_point(handle, 5)
        return handle.statistics.rounds, model.w.tolist()

    expected = numbers(5) * (1 - math.prod(1 - rate for rate in rates))
    for rounds, end in run(3, train):
        assert rounds == len(rates)
        assert end == pytest.approx(expected.tolist())


class TwoGroups(nn.Module):
    """Two layers, whose groups have learning rates of their own; the first one's is 0 to begin with."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.body, self.head = nn.Linear(3, 4), nn.Linear(4, 1)
        groups = [{"params": self.body.parameters(), "lr": 0.0}, {"params": self.head.parameters()}]
        self.optimizer = torch.optim.SGD(groups, lr=0.2, momentum=0.5, weight_decay=0.01)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(self.head(torch.tanh(self.body(inputs))))


def train_two_groups(model: TwoGroups) -> list[float]:
    """As scripts do: groups on schedules of their own, momentum that changes, a layer that is frozen for a while."""
    draw = torch.Generator().manual_seed(2)
    for step in range(12):
        model.optimizer.param_groups[0]["lr"] = 0.05 * (step % 4)
        model.optimizer.param_groups[1].update(lr=0.2 * 0.8**step, momentum=0.5 + 0.03 * step)
        model.body.requires_grad_(not 4 <= step < 8)
        model.optimizer.zero_grad()
        model(torch.randn(5, 3, generator=draw)).square().mean().backward()
        model.optimizer.step()
    return [number for parameter in model.parameters() for number in parameter.flatten().tolist()]


def test_groups_momentum_and_frozen_layers_are_as_without_a_server() -> None:
    def train(transport: Transport) -> list[float]:
        model = TwoGroups()
        with attached(transport, model, "bsp", model.optimizer) as handle:
            if handle.works:
                train_two_groups(model)
            handle.average()
        return [number for parameter in model.parameters() for number in parameter.flatten().tolist()]

    alone = train_two_groups(TwoGroups())
    for end in run(2, train):
        assert end == alone


def test_a_second_session_steps_with_the_rates_that_it_finds() -> None:
    def train(transport: Transport) -> list[float]:
        model = Point()
        optimizer = plain(model)
        for _ in range(2):
            with attached(transport, model, "bsp", optimizer) as handle:
                if handle.works:
                    one_point(handle, 5)
                    optimizer.param_groups[0]["lr"] = 0.01
        return model.w.tolist()

    for end in run(3, train):
        assert end == pytest.approx((numbers(5) * (1 - 0.9 * 0.99)).tolist())


def test_a_gradient_scaler_of_a_fused_optimizer() -> None:
    """GradScaler leaves it to such ones to unscale gradients, and to do nothing if there is an infinity."""

    def train(transport: Transport) -> tuple[int, list[float]]:
        model = Point()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, fused=True)
        scaler = torch.amp.GradScaler("cpu", init_scale=64.0)
        with attached(transport, model, "bsp", optimizer) as handle:
            for overflows in [False, True, False] * handle.works:
                optimizer.zero_grad()
                scaler.scale(model(numbers(5)) * (math.inf if overflows else 1.0)).backward()
                scaler.step(optimizer)
                scaler.update()
        return handle.statistics.rounds, model.w.tolist()

    for rounds, end in run(3, train):
        assert rounds == 2
        assert end == pytest.approx((numbers(5) * (1 - 0.9**2)).tolist())


# -- what is refused --------------------------------------------------------------------------------------------------------


def test_dbw_needs_the_losses() -> None:
    def train(transport: Transport) -> int:
        model = Point()
        with attached(transport, model, "dbw", plain(model)) as handle:
            for _ in range(2 * handle.works):
                model(numbers(1)).backward()
                with pytest.raises(ConfigError, match=r"'dbw' decides by the batches' losses: call handle.report_loss"):
                    handle.optimizer.step()
                handle.report_loss(1.0)
                handle.optimizer.step()
        return handle.statistics.rounds

    assert run(3, train)[1:] == [2, 2]


def test_the_serving_rank_does_not_train_and_workers_need_gradients_at_hand() -> None:
    def train(transport: Transport) -> None:
        model = Point()
        with attached(transport, model, "bsp", plain(model)) as handle:
            assert handle.works == (transport.rank != 0)
            if not handle.works:
                with pytest.raises(ConfigError, match="this rank has served and must not train as well"):
                    one_point(handle, 1)
                return
            one_point(handle, 1)
            with pytest.raises(ConfigError, match="computes them in a closure"):
                handle.optimizer.step(closure_of(model, handle.optimizer, numbers(1)))
            one_point(handle, 1)

    run(3, train)


def test_after_averaging_the_session_is_over() -> None:
    def train(transport: Transport) -> None:
        model = Point()
        with attached(transport, model, "bsp", plain(model)) as handle:
            if handle.works:
                one_point(handle, 1)
            handle.average()
            if handle.works:
                with pytest.raises(ConfigError, match="has left the parameter server .* attach again"):
                    one_point(handle, 1)

    run(3, train)


def test_attached_again_it_goes_on() -> None:
    def train(transport: Transport) -> list[float]:
        model = Point()
        for _ in range(2):
            with attached(transport, model, "bsp", plain(model)) as handle:
                if handle.works:
                    one_point(handle, 1)
        return model.w.tolist()

    for end in run(3, train):
        assert end == pytest.approx((0.19 * numbers(1)).tolist())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"topology": "ring"}, ["topology", "do not apply"]),
        ({"every": 2}, ["every", "do not apply"]),
        ({"order": "combine-adapt"}, ["order", "do not apply"]),
        ({"step_scale": "participation"}, ["step_scale", "do not apply"]),
        ({"weights": "active"}, ["weights", "do not apply"]),
        ({"architecture": "sever"}, ["architecture = 'sever'", "did you mean 'server'?"]),
        ({"rule": "dwb"}, ["dwb", "did you mean 'dbw'?"]),
        ({"rule": "dtur"}, ["dtur", "bsp"]),
        ({"rule": Asp}, ["Asp", "expected a server rule's name or a server rule object"]),
        ({"rule": 3}, ["rule = 3", "expected a server rule's name"]),
        ({"learning_rate": "proportionl"}, ["did you mean 'proportional'?"]),
        ({"learning_rate": "knee"}, ["knee", "table"]),
        ({"learning_rate": 0.5}, ["learning_rate = 0.5", "a factor(k, n)"]),
        ({"learning_rate": {"table": {1: 1.0}}}, ["has no name"]),
        ({"learning_rate": lambda k: 1.0}, ["cannot be called with (k, n)"]),
        ({"learning_rate": lambda k, n: math.nan}, ["gives [nan, nan] for 1 and 1 gradients"]),
        ({"servers": "2"}, ["servers = '2'", "a whole number"]),
        ({"stall_abort": "1"}, ["stall_abort = '1'", "expected seconds above 0"]),
        ({}, ["servers = 1 with 1 ranks", "start more"]),
        ({"architecture": "neighbours", "topology": "ring", "push": "wait"}, ["push", 'architecture="server"']),
        ({"architecture": "neighbours", "topology": "ring", "learning_rate": "knee"}, ["learning_rate", 'architecture="server"']),
    ],
)
def test_bad_arguments(options: dict[str, Any], words: list[str]) -> None:
    model = Point()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(ConfigError) as refused:
        attach(model, optimizer, transport=SingleTransport(), **{"architecture": "server", **options})
    for word in words:
        assert word in str(refused.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rule": "asp", "push": "wait"}, "push = 'wait' does not go with rule 'asp'"),
        ({"rule": Backup(b=2)}, "b = 2 with 2 workers, expected at most 1"),
        ({"push": "shove"}, "push = 'shove', expected"),
    ],
)
def test_all_ranks_refuse(options: dict[str, Any], words: str) -> None:
    def attempt(transport: Transport) -> None:
        model = Point()
        with pytest.raises(ConfigError, match=words):
            attached(transport, model, optimizer=plain(model), **{"rule": "bsp", **options})

    run(3, attempt)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("rule", [Dbw(), Dbw(window=5)]),
        ("push", ["pull", "wait"]),
        ("learning_rate", ["proportional", "constant"]),
        ("learning_rate", [math.hypot, math.pow]),
    ],
)
def test_arguments_that_differ(name: str, values: list[Any]) -> None:
    def attempt(transport: Transport) -> None:
        model, theirs = Point(), {"rule": "bsp", name: values[min(transport.rank, 1)]}
        with pytest.raises(ConfigError, match=f"{name} differs between ranks: .* ranks 1, 2 have other values"):
            attached(transport, model, optimizer=plain(model), **theirs)

    run(3, attempt)


def test_the_defaults() -> None:
    def train(transport: Transport) -> tuple[str, str]:
        model = Point()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        with attach(model, optimizer, architecture="server", transport=transport) as handle:
            assert isinstance(handle, Served)
            if isinstance(handle, ServerHandle):
                return handle.engine.rule.name, handle.engine.push
            return "dbw", handle.engine.push

    assert run(3, train) == [("dbw", "wait")] * 3
