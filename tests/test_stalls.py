"""Who waits for long says for whom, in every architecture, and gives up if told to, but not while there is cause to wait."""

from __future__ import annotations

import logging
import math
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from consensus.coding import GradientCode, HierarchicalCode, construct
from consensus.errors import ConfigError, ConsensusError, StallError
from consensus.optim import attach
from consensus.rules import build
from consensus.transport.base import Transport
from consensus.transport.loopback import run
from consensus.transport.single import SingleTransport
from tests.coded_worlds import SilentTransport, loss_of, momentum, network
from tests.ranks import needs_mpirun, python
from tests.served_worlds import EVERY_SERVER_RULE
from tests.worlds import EVERY_RULE, Point, numbers

LONG = 900.0
"""Seconds that a slow step takes; the others take none."""

UNCODED = construct("uncoded", [2, 2], 4, 0, 0)
"""Every worker is needed."""


def neighbours(transport: Transport, slow: int, rule: Any, *, steps: int = 6, seconds: float = LONG, **options: Any) -> None:
    """Train on a ring; the second step of rank ``slow`` takes long, of everybody's if it is -1."""
    model = Point()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    handle = attach(model, optimizer, topology="ring", rule=rule, transport=transport, **options)
    train(transport, model, optimizer, slow, steps, seconds)
    handle.close()


def served(transport: Transport, slow: int, rule: Any, *, steps: int = 6, seconds: float = LONG, **options: Any) -> None:
    """Train with a server, or several."""
    model = Point(40)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    handle: Any = attach(model, optimizer, architecture="server", rule=rule, transport=transport, **options)
    if handle.works:
        train(transport, model, optimizer, slow, steps, seconds, handle)
    handle.close()


def coded(
    transport: Transport, slow: int, code: GradientCode, *, steps: int = 3, seconds: float = LONG, **options: Any
) -> None:
    """Train with coded gradients; the second step of rank ``slow`` takes long, every step of all workers if it is -1."""
    model = network()
    long = range(steps) if slow == -1 else {1} if transport.rank == slow else ()
    quiet = SilentTransport(transport, long, seconds)
    handle: Any = attach(model, momentum(model), architecture="coded", code=code, transport=quiet, **options)
    quiet.version = lambda: getattr(handle.engine, "version", -1)
    handle.train(loss_of(model), steps=steps)
    handle.close()


def train(
    transport: Transport, model: Point, optimizer: Any, slow: int, steps: int, seconds: float, handle: Any = None
) -> None:
    for step in range(steps):
        if step == 1 and slow in (-1, transport.rank):
            transport.sleep(seconds)
        optimizer.zero_grad()
        loss = model(numbers(transport.rank, model.w.numel()))
        loss.backward()
        if handle is not None:
            handle.report_loss(loss.item())
        optimizer.step()


def reports(caplog: pytest.LogCaptureFixture) -> str:
    return "\n".join(message for message in caplog.messages if message.startswith("stalled, and goes on waiting:"))


WAITING = ("bsp", "ssp", "dbw")
"""Server rules that wait for one of two workers when it takes long."""


# -- reports ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", ["full", "dtur", "pathsearch", "gap", "patience"])
def test_a_neighbour_names_the_rule_and_who_has_not_come(rule: str, caplog: pytest.LogCaptureFixture) -> None:
    chosen = build("patience", window=3) if rule == "patience" else EVERY_RULE[rule]
    with caplog.at_level(logging.WARNING, "consensus"):
        run(4, lambda transport: neighbours(transport, 2, chosen, stall_warning=400.0, stuck_after=math.inf))
    told = reports(caplog)
    assert re.search(rf"rank [013] is open in round \d for 400.0 s; rule {rule}: ", told)
    assert "\n  edge to 2: idle, it computes or waits for others in its round 1\n" in told
    assert "Control(peer=2, message=" in told


@pytest.mark.parametrize("rule", [name for name in EVERY_SERVER_RULE if name in WAITING])
def test_a_server_names_workers_and_a_worker_its_server(rule: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "consensus"):
        run(3, lambda transport: served(transport, 2, EVERY_SERVER_RULE[rule], stall_warning=400.0))
    told = reports(caplog)
    assert "rank 0 serves version " in told
    assert f" for 400.0 s; {rule}: " in told
    assert "\n  rank 2 computes, with version " in told
    assert "rank 1 waits for weights of rank 0 newer than version " in told
    assert re.search(r"s ago  (Control|ModelTaken)\(peer=0", told)


def test_a_shard_says_whose_orders_it_waits_for(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "consensus"):
        run(4, lambda transport: served(transport, 3, "bsp", servers=2, stall_warning=400.0))
    told = reports(caplog)
    assert "rank 1, a shard, waits for orders of rank 0; its last update was 400.0 s ago" in told
    assert "rank 0 serves version 1 for 400.0 s; bsp: 1 of 2 gradients, 2 wanted" in told
    assert "\n  rank 2 is held for 400.0 s, its gradient kept\n" in told


def test_master_edge_and_worker_of_a_code(caplog: pytest.LogCaptureFixture) -> None:
    """Ranks 1 and 2 are edges; rank 5, a worker of the second, is slow."""
    with caplog.at_level(logging.WARNING, "consensus"):
        run(7, lambda transport: coded(transport, 5, UNCODED, stall_warning=400.0))
    told = reports(caplog)
    assert "rank 0 serves version 1 for 400.0 s" in told
    assert "rank 2 serves version 1 for 400.0 s" in told
    assert "\n  rank 5 computes, with version 1" in told
    assert "\n  its combination is not ready for the master, rank 0; of newer weights none is coming" in told
    assert "\n  its combination has gone to the master, rank 0; of newer weights none is coming" in told
    assert "rank 6 waits for weights of rank 2 newer than version 1" in told


# -- giving up --------------------------------------------------------------------------------------------------------------


def test_a_neighbour_gives_up_and_says_what_to_do() -> None:
    with pytest.raises(StallError) as caught:
        run(4, lambda transport: neighbours(transport, 2, "full", stall_abort=100.0))
    told = str(caught.value)
    assert told.startswith("rank 1 has waited in one round for 100 s, which stall_abort allows\nrank 1 is open in round 2 for")
    assert "\n  edge to 2: idle, it computes" in told
    assert "--resume latest" in told
    assert isinstance(caught.value, ConsensusError)


@pytest.mark.parametrize("rule", [name for name in EVERY_SERVER_RULE if name in WAITING])
def test_with_a_server(rule: str) -> None:
    with pytest.raises(StallError, match="has waited in one round for 100 s"):
        run(3, lambda transport: served(transport, 2, EVERY_SERVER_RULE[rule], stall_abort=100.0))


def test_a_server_gives_up_when_a_worker_has_waited_too_long() -> None:
    """Also where the worker itself is more patient."""
    with pytest.raises(StallError, match="rank 0 has waited"):
        run(3, lambda t: served(t, 2, "bsp", stall_abort=100.0 if t.rank == 0 else math.inf))


def test_with_a_code() -> None:
    with pytest.raises(StallError, match="rank [0-6] has waited"):
        run(7, lambda transport: coded(transport, 5, UNCODED, stall_abort=100.0))


@pytest.mark.parametrize("rule", [*EVERY_RULE, "allreduce"])
def test_long_steps_are_no_stall(rule: str) -> None:
    """Nor is a rank alone with its step, if the rule does not wait for it; all-reduce cannot tell."""
    slow = -1 if rule not in ("static_backup", "deadline", "run_free", "allreduce") else 2
    chosen = EVERY_RULE.get(rule, rule)
    run(4, lambda transport: neighbours(transport, slow, chosen, stall_abort=100.0, stuck_after=math.inf))


@pytest.mark.parametrize("rule", EVERY_SERVER_RULE)
def test_long_steps_of_all_workers_are_no_stall(rule: str) -> None:
    run(3, lambda transport: served(transport, -1, EVERY_SERVER_RULE[rule], stall_abort=100.0))


def test_long_steps_of_coded_workers_are_no_stall() -> None:
    run(7, lambda transport: coded(transport, -1, UNCODED, stall_abort=100.0))


def test_whom_a_code_does_without_may_take_as_long_as_it_likes() -> None:
    code = HierarchicalCode([2, 2], 4, edge_stragglers=1, worker_stragglers=1)

    def body(transport: Transport) -> None:
        slow, seconds = (5, LONG) if transport.rank == 5 else (-1, 30.0)
        coded(transport, slow, code, steps=6, seconds=seconds, stall_abort=100.0)

    run(7, body)


@pytest.mark.parametrize("architecture", [neighbours, served])
def test_who_has_left_waits_for_the_others_as_long_as_it_takes(architecture: Any) -> None:
    def body(transport: Transport) -> None:
        rule = {neighbours: "run_free", served: "asp"}[architecture]
        architecture(transport, 2, rule, steps=1 if transport.rank == 1 else 3, stall_abort=100.0)

    run(4, body)


@pytest.mark.parametrize("name", ["stall_warning", "stall_abort", "stuck_after"])
@pytest.mark.parametrize("seconds", [0.0, -1.0, math.nan])
def test_no_time_at_all(name: str, seconds: float) -> None:
    model = Point()
    options: dict[str, Any] = {name: seconds}
    with pytest.raises(ConfigError, match=f"{name} = .*expected seconds above 0"):
        attach(model, torch.optim.SGD(model.parameters(), lr=0.1), topology="ring", transport=SingleTransport(), **options)


SCRIPT = """
import time, torch, consensus
model = torch.nn.Linear(2, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
with consensus.attach(model, optimizer, topology="ring", rule="full", stall_abort=1.0) as handle:
    for step in range(3):
        if handle.rank == 1 and step == 2:
            time.sleep(600)
        model(torch.ones(1, 2)).sum().backward()
        optimizer.step()
"""


@needs_mpirun
@pytest.mark.slow
def test_under_mpi_it_ends_the_job(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    done: subprocess.CompletedProcess[str] = python(str(tmp_path / "script.py"), ranks=2)
    assert done.returncode != 0
    assert "StallError: rank 0 has waited in one round for 1 s, which stall_abort allows" in done.stderr
    assert "edge to 1: idle, it computes" in done.stderr
