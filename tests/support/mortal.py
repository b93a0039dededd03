"""Ranks that learn digits, of which some kill themselves; a program of its own, see tests/kill_matrix.py.

The training is the one of a user's script: `consensus.attach`, a fixed number of rounds, an average at the end. Survivors report
how good that average is on the test samples.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any, NamedTuple

import networkx as nx
import torch
from torch.nn import functional

from consensus.data import catalogue
from consensus.flat import FlatModel
from consensus.models import build
from consensus.neighbours import NeighbourHandle
from consensus.optim import attach
from consensus.run.evaluation import quality
from consensus.transport.failures import prepare
from tests.support.fates import Fate, meet
from tests.worlds import EVERY_RULE

RATE, MOMENTUM, BATCH = 0.1, 0.9, 512
"""Batches are large so that little depends on which samples they hold, or on how many models are averaged."""
CHUNK_BYTES = 1 << 14
"""Small, so that a small model moves in several pieces, and a rank can die between them."""


class Training(NamedTuple):
    """What the ranks do.

    Attributes
    ----------
    rule : str
        Its name.
    edges : list of (int, int)
        Of the graph.
    deaths : dict
        Of the ranks that die, which are strings in JSON.
    rounds : int
        Of each rank.
    """

    rule: str
    edges: list[tuple[int, int]]
    deaths: dict[str, Fate]
    rounds: int


def train(training: Training) -> dict[str, Any]:
    """Train, and say what came of it."""
    from consensus.transport.mpi import MpiTransport

    transport = MpiTransport()
    if fate := training.deaths.get(str(transport.rank)):
        meet(Fate(*fate))
    dataset = catalogue.load("digits")
    model = build("2nn", dataset.input_shape, dataset.classes, seed=1)
    # Every rank draws from all samples: a death takes away a model, not data that only its rank had.
    inputs, labels = dataset.train.batch(slice(0, len(dataset.train)))
    chance = torch.Generator().manual_seed(100 + transport.rank)
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE, momentum=MOMENTUM)
    scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 1 / training.rounds, training.rounds)
    graph = nx.Graph(training.edges)
    with attach(model, optimizer, topology=graph, rule=EVERY_RULE[training.rule], transport=transport) as handle:
        assert isinstance(handle, NeighbourHandle)
        for _ in range(training.rounds):
            batch = torch.randint(len(labels), (BATCH,), generator=chance)
            optimizer.zero_grad()
            functional.cross_entropy(model(inputs[batch]), labels[batch]).backward()
            optimizer.step()
            scheduler.step()
        handle.average()
    accuracy, loss = quality(model, dataset.test)
    told = {"rank": transport.rank, "accuracy": accuracy, "loss": loss, "rounds": handle.statistics.rounds}
    return {**told, "members": [*transport.members]}


def main() -> None:
    """Do the training in the arguments."""
    prepare(os.environ)
    torch.set_num_threads(1)
    assert FlatModel.__init__.__kwdefaults__ is not None
    FlatModel.__init__.__kwdefaults__["chunk_bytes"] = CHUNK_BYTES
    print("\n" + json.dumps(train(Training(**json.loads(sys.argv[1])))), flush=True)
