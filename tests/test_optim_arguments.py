"""What attach refuses, and what it notices later."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import networkx as nx
import pytest
import torch
from torch import nn

import consensus
from consensus.errors import ConfigError, TopologyError
from consensus.optim import attach
from consensus.rules.full import Full
from consensus.rules.gap import Gap
from consensus.transport.base import Transport
from consensus.transport.loopback import run
from consensus.transport.single import SingleTransport
from tests.worlds import Point, numbers


def alone(**options: Any) -> Any:
    model = Point()
    return attach(
        model, torch.optim.SGD(model.parameters(), lr=0.1), transport=SingleTransport(), **{"topology": "ring", **options}
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"order": "adapt_combine"}, ["order = 'adapt_combine'", "did you mean 'adapt-combine'?"]),
        ({"weights": "dynamic"}, ["weights = 'dynamic'", "static", "active"]),
        ({"buffers": "avrage"}, ["buffers = 'avrage'", "did you mean 'average'?"]),
        ({"every": 0}, ["every = 0", "1 or more"]),
        ({"every": True}, ["every = True"]),
        ({"every": 2.0}, ["every = 2.0", "whole number"]),
        ({"rule": "dturr"}, ["unknown rule 'dturr'", "did you mean 'dtur'?"]),
        ({"rule": "allredcue"}, ["unknown rule 'allredcue'", "did you mean 'allreduce'?"]),
        ({"rule": Full}, ["Full", "expected a rule's name or a rule object"]),
        ({"rule": 3}, ["rule = 3", "expected a rule's name or a rule object"]),
        ({"rule": "gap", "weights": "active"}, ["'gap'", 'weights="active"', 'weights="static"']),
        ({"rule": "allreduce", "every": 2}, ["allreduce", "every"]),
        ({"rule": "allreduce", "order": "combine-adapt"}, ["allreduce", "order"]),
        ({"rule": "allreduce", "weights": "active"}, ["allreduce", "weights"]),
        ({"topology": "rnig"}, ["unknown topology 'rnig'", "did you mean 'ring'?"]),
        ({"topology": nx.path_graph(3)}, ["3", "1"]),
    ],
)
def test_bad_arguments(options: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ConfigError) as refused:
        alone(**options)
    for word in words:
        assert word in str(refused.value)


def test_nothing_to_exchange() -> None:
    model = Point()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model.w.requires_grad_(False)
    with pytest.raises(ConfigError, match="no parameter to exchange"):
        attach(model, optimizer, topology="ring", transport=SingleTransport())


def test_a_disconnected_graph() -> None:
    with pytest.raises(TopologyError, match="connected"):
        run(4, lambda transport: with_arguments(transport, topology=nx.Graph([(0, 1), (2, 3)])))


def with_arguments(transport: Transport, model: nn.Module | None = None, **options: Any) -> None:
    model = Point() if model is None else model
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    attach(model, optimizer, transport=transport, **{"topology": "ring", "rule": "full", **options}).close()


@pytest.mark.parametrize(
    ("name", "first", "others"),
    [
        ("rule", Gap(window=3), Gap(window=4)),
        ("rule", Full(), "allreduce"),
        ("rule", "allreduce", Full()),
        ("every", 1, 2),
        ("order", "adapt-combine", "combine-adapt"),
        ("weights", "static", "active"),
        ("topology", "ring", "star"),
        ("model", Point(3), Point(4)),
        ("model", Point(3), Point(3, torch.float32)),
    ],
)
def test_arguments_that_differ_are_refused_by_all_ranks(name: str, first: Any, others: Any) -> None:
    def attempt(transport: Transport) -> str:
        value = others if transport.rank in (2, 3) else first
        if isinstance(value, nn.Module):
            value = type(value)(value.w.numel(), value.w.dtype)
        with pytest.raises(ConfigError) as refused:
            with_arguments(transport, **{name: value})
        return str(refused.value)

    messages = run(4, attempt)
    assert set(messages) == {messages[0]}
    assert messages[0].startswith(f"{name} differs between ranks: rank 0 has ")
    assert ", ranks 2, 3 have other values: 2 has " in messages[0]


def test_buffers_that_differ_are_refused() -> None:
    def attempt(transport: Transport) -> str:
        with pytest.raises(ConfigError) as refused:
            with_arguments(transport, nn.BatchNorm1d(3), buffers="local" if transport.rank else "average")
        return str(refused.value)

    assert {message.split(":")[0] for message in run(2, attempt)} == {"model differs between ranks"}


def add_group(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(1))]})


def unfreeze(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    model.frozen.requires_grad_(True)


def cast(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    model.float()


def reassign(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    model.w = nn.Parameter(torch.zeros(3, dtype=torch.float64))


def reload(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    model.load_state_dict({name: tensor.clone() for name, tensor in model.state_dict().items()}, assign=True)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (add_group, "parameter group was added"),
        (unfreeze, "was frozen at consensus.attach"),
        (cast, "'w' was moved, cast or re-assigned"),
        (reassign, "'w' was moved, cast or re-assigned"),
        (reload, "'w' was moved, cast or re-assigned"),
    ],
)
def test_changes_after_attach_are_noticed(change: Callable[..., None], word: str) -> None:
    model = Point()
    model.frozen = nn.Parameter(torch.zeros(2), requires_grad=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    handle = attach(model, optimizer, topology="ring", transport=SingleTransport())
    change(model, optimizer)
    with pytest.raises(ConfigError, match=word):
        optimizer.step()
    handle.close()


@pytest.mark.parametrize("mode", ["eval", "part"])
def test_combine_adapt_that_never_combines_is_noticed(mode: str) -> None:
    point = Point()
    model = nn.Sequential(point)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    handle = attach(model, optimizer, topology="ring", order="combine-adapt", transport=SingleTransport())
    if mode == "eval":
        model.eval()
    (point if mode == "part" else model)(numbers(0)).backward()
    with pytest.raises(ConfigError, match="call the attached model itself"):
        optimizer.step()
    handle.close()


def test_a_leaf_of_another_model_may_be_frozen_in_training() -> None:
    """Freezing after attach is no error: the parameter is still exchanged, its steps are over."""
    model = Point()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with attach(model, optimizer, topology="ring", transport=SingleTransport()) as handle:
        model.w.requires_grad_(False)
        optimizer.step()
    assert handle.statistics.rounds == 1


SCRIPT = """
import sys
sys.modules["mpi4py"] = None
import consensus, torch
model = torch.nn.Linear(2, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
with consensus.attach(model, optimizer, topology="torus", rule={rule!r}) as handle:
    for _ in range(3):
        model(torch.ones(1, 2)).sum().backward()
        optimizer.step()
    with handle.averaged():
        pass
    handle.average()
print(handle.rank, handle.size, handle.statistics.rounds, "mpi4py.MPI" in sys.modules)
"""


@pytest.mark.parametrize("rule", ["dtur", "allreduce"])
def test_one_rank_needs_no_mpi(rule: str) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("OMPI_", "PMI", "PMIX_", "MPI_"))}
    root = os.path.dirname(os.path.dirname(consensus.__file__))
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(rule=rule)], cwd=root, env=environment, capture_output=True, text=True, timeout=60
    )
    assert (done.stdout, done.stderr, done.returncode) == ("0 1 3 False\n", "", 0)
