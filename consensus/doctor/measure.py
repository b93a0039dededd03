"""What computing and links take on the ranks at hand, as a system for the choice of a code, without a run.

*Computing*: steps of one model, the 2NN, on made-up images, by all workers at once, as in training. What else a machine does is
in it; emulated slowness is not, nor whatever a run's own model, data or batch make different. For those, record a run and ask
``consensus select``.

*Links*: one vector, the 2NN's gradient, there and back, one link after the other. What links share they do not feel here: in a
run all workers of an edge may send to it at a time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from itertools import chain

from consensus.coding.fit import fit_link, fit_worker
from consensus.coding.layout import MASTER, Layout
from consensus.coding.system import Edge, System
from consensus.doctor.session import PING, Ballast, Inbox, is_ping, session
from consensus.protocol.events import ModelGiven, ModelTaken
from consensus.transport.base import Transport
from consensus.types import Edge as Pair
from consensus.types import Rank, Seconds

BATCH = 32
"""Samples in a part, the default of run files."""

IMAGE = (1, 28, 28)
"""Shape of an image, MNIST's."""

CLASSES = 10

GRADIENT_BYTES = 4 * 269_322
"""What the 2NN's gradient takes in float32."""

STEPS, WARM = 60, 5
"""Steps that are timed, and steps before."""

TRANSFERS = 100
"""Vectors over each link, each way."""


def gradient_steps() -> list[Seconds]:
    """Seconds that each of :data:`STEPS` gradients of one part takes."""
    import torch
    from torch.nn import functional

    from consensus.models import build

    model = build("2nn", IMAGE, CLASSES, seed=0)
    generator = torch.Generator().manual_seed(0)
    inputs = torch.rand(BATCH, *IMAGE, generator=generator)
    labels = torch.randint(CLASSES, (BATCH,), generator=generator)
    seconds = []
    for _ in range(WARM + STEPS):
        began = time.perf_counter()
        model.zero_grad()
        torch.autograd.backward(functional.cross_entropy(model(inputs), labels))
        seconds.append(time.perf_counter() - began)
    return seconds[WARM:]


def measure_system(transport: Transport, layout: Layout, compute: Callable[[], Sequence[Seconds]] = gradient_steps) -> System:
    """Measure the nodes and links of a layout. Collective.

    Parameters
    ----------
    transport : Transport
        Of as many ranks as the layout has, not connected.
    layout : Layout
        Who would be what.
    compute : callable
        Computes parts, at workers, and says how many seconds each took.

    Returns
    -------
    System
        The same at every rank.
    """
    own: Sequence[Seconds] = []
    with session(transport, [], Ballast(1)):
        if layout.seat(transport.rank) is not None:
            own = compute()
    steps = transport.gather(own)
    links = {pair: _link(transport, pair) for pair in _pairs(layout)}
    return System(
        [
            Edge(
                workers=[fit_worker({1: steps[worker]}, links[edge, worker]) for worker in workers],
                **fit_link(links[MASTER, edge])._asdict(),
            )
            for edge, workers in zip(layout.edges, layout.workers, strict=True)
        ]
    )


def _pairs(layout: Layout) -> Iterator[Pair]:
    yield from ((MASTER, edge) for edge in layout.edges)
    yield from ((layout.above(worker), worker) for worker in chain(*layout.workers))


def _link(transport: Transport, pair: Pair) -> list[Seconds]:
    """Seconds from when a rank knows of a vector until it has it, down and up in turn."""
    own = transport.rank
    partners = [rank for rank in pair if rank != own] if own in pair else []
    taken: list[Seconds] = []
    with session(transport, partners, Ballast(GRADIENT_BYTES)) as inbox:
        for turn in range(2 * TRANSFERS if partners else 0):
            if own == pair[turn % 2]:
                _give(transport, inbox, partners[0])
            else:
                taken.append(_take(transport, inbox, partners[0]))
    everybody = transport.gather(taken)
    return [*everybody[pair[0]], *everybody[pair[1]]]


def _give(transport: Transport, inbox: Inbox, peer: Rank) -> None:
    transport.give(peer)
    transport.send(peer, PING)
    inbox.next(lambda event: isinstance(event, ModelGiven))


def _take(transport: Transport, inbox: Inbox, peer: Rank) -> Seconds:
    inbox.next(is_ping)
    began = transport.now()
    transport.take(peer)
    inbox.next(lambda event: isinstance(event, ModelTaken))
    return transport.now() - began
