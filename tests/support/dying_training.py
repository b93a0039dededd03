"""Ranks of a parameter server or of coded gradients, some of which die; a program of its own, see tests/test_dead_training.py.

The arguments are a kind and its sessions, which the ranks go through one after the other, with whoever is left. In each, the
victims kill themselves inside a given call of a given method; the others report what they have seen.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch

from consensus.coded_handle import CodedHandle, MasterHandle
from consensus.coded_models import CodedWorkerModel, MasterModel, RelayModel
from consensus.coding import HierarchicalCode
from consensus.optim import attach
from consensus.pushed import PushedModel
from consensus.served import ServedModel
from consensus.serving import ServedHandle, ServerHandle
from consensus.transport.base import Transport
from consensus.transport.failures import prepare
from tests.support.dying import die
from tests.worlds import Point, numbers

SIZE = 400_000
"""Numbers of the model, float64: more than three chunks."""
CHUNKS = 4
STEPS, BEFORE = 12, 3
"""Steps of a session, and steps or transfers before a death."""
RATE = 0.1
PARTS = 4

PLACES: dict[str, tuple[type[Any], str, int]] = {
    "computing": (Point, "forward", BEFORE + 1),
    "pushing": (PushedModel, "release", BEFORE * CHUNKS + 2),
    "being given": (PushedModel, "deliver", BEFORE * CHUNKS + 2),
    "updating": (ServedModel, "apply", BEFORE + 1),
    "serving": (ServedModel, "deliver", BEFORE * CHUNKS + 1),
    "sending": (CodedWorkerModel, "release", BEFORE * CHUNKS + 2),
    "relaying": (RelayModel, "install", 1),
    "decoding": (MasterModel, "apply", BEFORE + 1),
}
"""Where a rank dies: in which call of which method."""


class Session(NamedTuple):
    """Who dies where, and under which rule."""

    victims: list[int]
    place: str
    rule: str = "bsp"
    servers: int = 1


def mark(session: Session) -> None:
    """Make this process die in the session's place."""
    kind, name, calls = PLACES[session.place]
    original, count = getattr(kind, name), itertools.count(1)

    def fatal(self: Any, *args: Any) -> Any:
        if next(count) == calls:
            die()
        return original(self, *args)

    setattr(kind, name, fatal)


def served(transport: Transport, session: Session) -> dict[str, Any]:
    """A session with a parameter server."""
    model, target = Point(SIZE), numbers(transport.rank, SIZE)
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
    options = {"rule": session.rule, "servers": session.servers, "transport": transport}
    with attach(model, optimizer, architecture="server", **options) as handle:
        assert isinstance(handle, ServedHandle)
        for _ in range(STEPS * handle.works):
            optimizer.zero_grad()
            loss = model(target)
            loss.backward()
            handle.report_loss(loss.item())
            optimizer.step()
        handle.average()
    told = {"model": float(model.w.detach().sum()), "steps": handle.statistics.rounds}
    if isinstance(handle, ServerHandle):
        parcel: Any = handle._driver._mixer
        told["kept"] = len(parcel._versions._leaving) + len(parcel._kept._here)
        told["updates"] = handle.engine.round
    return told


def coded(transport: Transport, session: Session) -> dict[str, Any]:
    """A session with coded gradients: any edge of two, and any worker of two, are enough."""
    model = Point(SIZE)
    targets = [numbers(part, SIZE) for part in range(PARTS)]
    code = HierarchicalCode([2, 2], PARTS, edge_stragglers=1, worker_stragglers=1)
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
    expected, mean, errors = np.zeros(SIZE), torch.stack(targets).mean(0).numpy(), []

    def updated(loss: float, samples: int, residual: float) -> None:
        expected[:] -= RATE * (expected - mean)
        errors.append(float(np.abs(model.w.detach().numpy() - expected).max()))

    options = {"code": code, "payload": "float64", "transport": transport}
    with attach(model, optimizer, architecture="coded", **options) as handle:
        assert isinstance(handle, CodedHandle)
        handle.train(lambda step, part: (model(targets[part]), 1), steps=STEPS, on_update=updated)
        handle.average()
    told: dict[str, Any] = {"model": float(model.w.detach().sum())}
    return {**told, "updates": len(errors), "error": max(errors)} if isinstance(handle, MasterHandle) else told


KINDS: dict[str, Callable[[Transport, Session], dict[str, Any]]] = {"served": served, "coded": coded}


def main() -> None:
    """Go through the sessions in the arguments."""
    prepare(os.environ)
    from consensus.transport.mpi import MpiTransport

    torch.set_num_threads(1)
    transport = MpiTransport()
    for number, session in enumerate(itertools.starmap(Session, json.loads(sys.argv[2]))):
        if transport.rank in session.victims:
            mark(session)
        told = KINDS[sys.argv[1]](transport, session)
        print("\n" + json.dumps({"session": number, "rank": transport.rank, **told}), flush=True)


if __name__ == "__main__":
    main()
