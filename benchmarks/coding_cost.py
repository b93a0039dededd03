"""(k) What coding costs beside the gradients themselves: encoding and both decodings, of the 2NN's gradients."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.jobs import say
from benchmarks.markdown import table, verdict
from benchmarks.simulated.served import one_thread
from benchmarks.stats import Spread, ratios
from consensus import models
from consensus.alike import flatten
from consensus.coded_handle import encode, share_of
from consensus.coded_models import CodedWorkerModel
from consensus.coding import GradientCode, construct
from consensus.coding.layer import Layer
from consensus.coding.layout import Layout
from consensus.payload import CodedVector, Payload

SHARE = 0.05
"""Encoding and decoding should take no more of the time of a worker's gradients."""

INPUTS, CLASSES = (1, 28, 28), 10


@dataclass(frozen=True)
class Scale:
    """How much is measured: workers of the edges, samples of a part, blocks."""

    layouts: tuple[tuple[int, ...], ...] = ((2, 3, 4), (6, 8, 9, 11))
    batches: tuple[int, ...] = (16, 64, 256, 512, 1764)
    blocks: int = 25


QUICK = Scale(layouts=((2, 3, 4),), batches=(16, 64), blocks=4)


class _NoVector:
    """In place of a worker's model: takes no gradient."""

    def encode(self, loss: float, samples: float, told: Callable[[], str]) -> None:
        """Do nothing."""


class Bench:
    """A worker, an edge and the master of a code with one straggler in each layer, and something for them to do.

    Parameters
    ----------
    workers
        By edge; a part for each of them.
    batch
        Samples of a part.
    """

    def __init__(self, workers: Sequence[int], batch: int) -> None:
        self.code = _code(workers)
        layout = Layout(tuple(workers))
        self._model = models.build("2nn", INPUTS, CLASSES, seed=0)
        self._optimizer = torch.optim.SGD(self._model.parameters())
        flat = flatten(self._model, self._optimizer, "local")
        self._payload = payload = Payload(flat, "float32")
        self._worker = CodedWorkerModel(flat, payload)
        busiest = max(range(len(self.code.loads)), key=lambda worker: self.code.loads[worker])
        self._share = share_of(self.code, layout, layout.edges.stop + busiest)
        generator = torch.Generator().manual_seed(1)
        self._inputs = torch.randn((batch, *INPUTS), generator=generator)
        self._labels = torch.randint(CLASSES, (batch,), generator=generator)
        self._zero = torch.zeros((), requires_grad=True)
        self._edge = max(range(len(workers)), key=lambda edge: workers[edge])
        self._vectors = [CodedVector(payload) for _ in range(max(*workers, len(workers)))]
        for vector in self._vectors:
            vector.numbers.normal_(generator=generator)
        self._sum = CodedVector(payload)
        self._mean = torch.zeros_like(self._sum.numbers)

    def gradients(self) -> None:
        """The gradients of the worker's parts and nothing else."""
        self._optimizer.zero_grad()
        for part in self._share.parts:
            torch.autograd.backward(self._part_loss(0, part)[0])

    def encoded(self) -> None:
        """The same, coded."""
        encode(self._worker, self._optimizer, self._part_loss, self._share, 0, lambda: False)

    def around(self) -> None:
        """What encoding does about parts that need no computing, without a vector: seeds, coefficients, sums of losses."""
        no_vector: Any = _NoVector()
        encode(no_vector, self._optimizer, self._no_loss, self._share, 0, lambda: False)

    def nothing(self) -> None:
        """What :meth:`gradients` does about them."""
        self._optimizer.zero_grad()
        for part in self._share.parts:
            torch.autograd.backward(self._no_loss(0, part)[0])

    def taken(self) -> None:
        """The vector made of gradients that are there."""
        self._worker.encode(1.0, 1.0, str)

    def edge(self) -> None:
        """An edge's combination of all its workers' vectors but one, its weights known."""
        self._combine(self.code.edges[self._edge])

    def master(self) -> None:
        """The master's of all its edges' but one, and the mean made the model's gradient."""
        self._combine(self.code.master)
        torch.div(self._sum.numbers, 100.0, out=self._mean)
        self._payload.spread(self._mean)

    def _combine(self, layer: Layer) -> None:
        combination = layer.combine(layer.participants[1:])
        self._sum.combine(combination.weights.tolist(), [self._vectors[node] for node in combination.nodes])

    def _no_loss(self, step: int, part: int) -> tuple[Tensor, int]:
        return self._zero * 1.0, 1

    def _part_loss(self, step: int, part: int) -> tuple[Tensor, int]:
        return functional.cross_entropy(self._model(self._inputs), self._labels, reduction="sum"), len(self._labels)


def weights(code: GradientCode) -> None:
    """The weights of an edge's and of the master's combination."""
    edge = max(code.edges, key=lambda layer: layer.size)
    for layer in (edge, code.master):
        layer.combine(layer.participants[1:])


def _code(workers: Sequence[int]) -> GradientCode:
    return construct("hgc", workers, sum(workers), 1, 1)


def measure(workers: Sequence[int], batch: int, blocks: int) -> dict[str, Any]:
    """Seconds of everything, by block."""
    bench = Bench(workers, batch)
    seconds: dict[str, list[float]] = {}
    for _ in range(1 + blocks):
        fresh = _code(workers)
        unknown = known = partial(weights, fresh)
        # In this order: gradients are there when they are taken, and weights are known from the second time on.
        turns: dict[str, tuple[Callable[[], None], int]] = {
            "encoded": (bench.encoded, 2), "gradients": (bench.gradients, 2), "taken": (bench.taken, 10),
            "edge": (bench.edge, 10), "master": (bench.master, 10), "cold": (unknown, 1), "warm": (known, 10),
            "around": (bench.around, 10), "nothing": (bench.nothing, 10),
        }  # fmt: skip
        bench.gradients()
        for name, (work, times) in turns.items():
            began = time.thread_time()
            for _ in range(times):
                work()
            seconds.setdefault(name, []).append((time.thread_time() - began) / times)
        seconds.setdefault("extra", []).append(seconds["around"][-1] - seconds["nothing"][-1])
    # The first block warms up.
    return {name: values[1:] for name, values in seconds.items()}


def run(scale: Scale) -> dict[str, Any]:
    """Measure."""
    cases = []
    with one_thread():
        for workers in scale.layouts:
            for batch in scale.batches:
                seconds = measure(workers, batch, scale.blocks)
                cases.append({"workers": workers, "batch": batch, "load": _code(workers).load, "seconds": seconds})
                say(f"coding_cost: {list(workers)}, {batch}: {shares(seconds).middle:.2%}")
    return {"mpi": "without MPI", "cases": cases}


# -- what is made of it ---------------------------------------------------------------------------------------------------


PIECES = ("extra", "taken", "edge", "master")
"""What coding adds to an iteration, one after the other; weights are known by then."""


def shares(seconds: Mapping[str, Sequence[float]], pieces: Sequence[str] = PIECES) -> Spread:
    """Seconds of some pieces in units of those of the gradients, block by block.

    Examples
    --------
    >>> shares({"gradients": [4.0, 8.0], "taken": [1.0, 2.0], "edge": [1.0, 2.0]}, ["taken", "edge"]).middle
    0.5
    """
    return ratios([sum(values) for values in zip(*(seconds[name] for name in pieces), strict=True)], seconds["gradients"])


def report(result: dict[str, Any]) -> str:
    """The table, in Markdown."""
    lines = []
    for case in result["cases"]:
        seconds = case["seconds"]
        middle = {name: statistics.median(values) for name, values in seconds.items()}
        whole = shares(seconds)
        lines.append([
            list(case["workers"]), case["batch"], case["load"], f"{1e3 * middle['gradients']:.2f}",
            f"{1e3 * (middle['extra'] + middle['taken']):.2f}", f"{1e3 * middle['edge']:.2f}", f"{1e3 * middle['master']:.2f}",
            *(f"{shares(seconds, pieces).middle:.1%}" for pieces in (("extra", "taken"), ("edge",), ("master",))),
            f"{whole.middle:.1%} ({whole.low:.1%} to {whole.high:.1%})", verdict(whole.middle < SHARE),
            f"{shares(seconds, ['encoded']).middle:.3f}", f"{1e3 * middle['cold']:.2f}", f"{1e6 * middle['warm']:.0f}",
        ])  # fmt: skip
    header = [
        "workers", "samples of a part", "D", "gradients of D parts, ms", "encode, ms", "edge, ms", "master, ms", "encode", "edge",
        "master", "all (quartiles)", f"< {SHARE:.0%}", "gradients coded / not", "weights, cold, ms", "known, us",
    ]  # fmt: skip
    return table(header, lines)
