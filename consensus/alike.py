"""What every attached optimizer begins with: the model as one buffer, and ranks that were given the same."""

from __future__ import annotations

from typing import Any, Literal
from weakref import WeakSet

from torch import nn
from torch.optim import Optimizer

from consensus.bundle import shared_chunk_bytes
from consensus.errors import ConfigError
from consensus.flat import FlatModel
from consensus.transport.base import Transport

PARTIAL: WeakSet[nn.Module] = WeakSet()
"""Models of which only a share is trained: those of one server among several, until all have averaged."""


def flatten(model: nn.Module, optimizer: Optimizer, buffers: Literal["average", "local"], servers: int = 1) -> FlatModel:
    """The parameters that ``optimizer`` trains as one buffer, in chunks that ``servers`` servers can share out.

    Raises
    ------
    ConfigError
        If the model cannot be exchanged, or is a share of one.
    """
    if model in PARTIAL:
        raise ConfigError(
            "this model was served by several ranks, and only its own share of it is trained here; call handle.average() at all "
            "ranks before you attach again"
        )
    trainable = [parameter for group in optimizer.param_groups for parameter in group["params"] if parameter.requires_grad]
    return FlatModel(model, trainable, buffers=buffers, chunk_bytes=shared_chunk_bytes(trainable, servers))


def start_alike(transport: Transport, flat: FlatModel, agreed: dict[str, Any]) -> None:
    """Check that all ranks were given the same, then copy rank 0's model to all."""
    if transport.size == 1:
        return
    told = transport.gather(agreed)
    everybody = dict(zip(transport.members, told, strict=True))
    leader = min(everybody)  # 0, if it lives
    first = everybody[leader]
    for name in first:
        ranks = [rank for rank, theirs in everybody.items() if theirs.get(name) != first[name]]
        if ranks:
            other = _short(everybody[ranks[0]].get(name))
            who = f"rank {ranks[0]} has {other}"
            if len(ranks) > 1:
                who = f"ranks {', '.join(map(str, ranks))} have other values: {ranks[0]} has {other}"
            raise ConfigError(
                f"{name} differs between ranks: rank {leader} has {_short(first[name])}, {who}; "
                "call consensus.attach with the same arguments on all ranks (and seed a random graph alike)"
            )
    state = flat.initial_state()
    for part in state:
        transport.broadcast(part)
    flat.load_initial_state(state)


def _short(value: Any, limit: int = 120) -> str:
    text = str(value)
    return text if len(text) <= limit else text[:limit] + "..."
