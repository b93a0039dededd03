"""Server rules and attached ranks for the tests of parameter servers, in-process and under MPI."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from consensus.optim import attach
from consensus.protocol.service import PushMode, ServerRule
from consensus.rules.elastic import Elastic
from consensus.rules.serving import SERVER_RULES, build_server
from consensus.rules.ssp import Ssp
from consensus.serving import ServerHandle, WorkerHandle
from consensus.transport.base import Transport

Served = ServerHandle | WorkerHandle

EVERY_SERVER_RULE: dict[str, ServerRule] = {
    **{name: build_server(name) for name in SERVER_RULES},
    "ssp": Ssp(s=1),  # the defaults are made for longer runs
    "elastic": Elastic(R=3),
}


def modes(rule: str) -> list[PushMode]:
    """The ways of pushing that go with a rule."""
    return ["wait", "interrupt", "pull"] if SERVER_RULES[rule].synchronous else ["pull"]


EVERY_RULE_AND_PUSH = [(rule, push) for rule in EVERY_SERVER_RULE for push in modes(rule)]


def attached(transport: Transport, model: nn.Module, rule: Any, optimizer: torch.optim.Optimizer, **options: Any) -> Served:
    """A rank's handle; on the serving rank when all others have left."""
    handle = attach(model, optimizer, architecture="server", rule=rule, transport=transport, **options)
    assert isinstance(handle, Served)
    return handle
