"""Processor time of a round with a small model: all of it, and without the pauses between looks for messages."""

from __future__ import annotations

import time
from typing import Any

from mpi4py import MPI

import consensus
from benchmarks.ranks.blocks import alternate, mean
from benchmarks.ranks.entry import Specification, serve
from benchmarks.ranks.network import Still, network
from benchmarks.ranks.sampler import Sampler


def measure(specification: Specification) -> dict[str, Any]:
    """Processor seconds per round, mean over ranks, by block; and the share of each account in the attached loop."""
    model = network(specification["widths"])
    plain, attached = Still(network(specification["widths"]).parameters()), Still(model.parameters())
    with consensus.attach(model, attached, topology=specification["topology"], rule="full"):
        sampler = Sampler()
        variants = {"plain": plain.step, "attached": sampler.charge(attached.step)}
        times = alternate(variants, seconds=specification["seconds"], clock=time.process_time)
        shares = sampler.shares()
    everybody = MPI.COMM_WORLD.allgather(shares)
    return {
        "seconds": {name: mean(ranks) for name, ranks in times.items()},
        "shares": {name: sum(theirs[name] for theirs in everybody) / len(everybody) for name in shares},
    }


if __name__ == "__main__":
    serve(measure)
