"""What averaging adds to a step, three ways, among the same processes."""

from __future__ import annotations

from typing import Any

import torch
from mpi4py import MPI
from torch.nn.parallel import DistributedDataParallel

import consensus
from benchmarks.ranks.bare import Bare
from benchmarks.ranks.blocks import alternate, slowest
from benchmarks.ranks.entry import Specification, serve
from benchmarks.ranks.gloo import process_group
from benchmarks.ranks.network import Still, forward_backward, network
from benchmarks.sizes import parameters


def measure(specification: Specification) -> dict[str, Any]:
    """Seconds per round and block of: bare, ours, a step, a step and ours, a step under DDP."""
    comm = MPI.COMM_WORLD
    widths, batch = specification["widths"], specification["batch"]
    neighbours = sorted({(comm.rank - 1) % comm.size, (comm.rank + 1) % comm.size})
    torch.manual_seed(0)
    model, replica = network(widths), network(widths)
    optimizer = Still(model.parameters())
    bare = Bare(comm, neighbours, parameters(widths))
    step = forward_backward(model, widths[0], batch)
    with process_group():
        under_ddp = forward_backward(DistributedDataParallel(replica), widths[0], batch)
        with consensus.attach(model, optimizer, topology="ring", rule="full"):

            def step_and_ours() -> None:
                step()
                optimizer.step()

            times = alternate(
                {"bare": bare.round, "ours": optimizer.step, "step": step, "step_ours": step_and_ours, "step_ddp": under_ddp},
                seconds=specification["seconds"],
            )
    return {"seconds": {name: slowest(ranks) for name, ranks in times.items()}}


if __name__ == "__main__":
    serve(measure)
