"""A parameter server's training on the virtual clock: MNIST, synchronous rules, and only the gradients that count."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional

from consensus import models
from consensus.data.catalogue import load
from consensus.errors import ProtocolError
from consensus.protocol.events import Applied, Event, GradientTaken, ModelTaken
from consensus.protocol.service import SERVER, Factor, PushMode, ServerRule
from consensus.sim.kernel import Kernel
from consensus.sim.served import ServedNetwork
from consensus.sim.sites import Chunks
from consensus.timing import ComputeTime, Constant, Link, ShiftedExponential, Stream
from consensus.types import Rank, Round, Seconds

INSTANT = Link(0.0, math.inf)
"""Round-trip times are in the steps."""

SAMPLES, JUDGED = 12_000, 500
"""Training samples that batches are drawn from, and the first of them, whose loss is looked at."""

EVERY, SMOOTHED = 5, 5
"""Updates between two looks at the loss, and looks that are averaged, as many before as after, to say when it was reached."""


def round_trips(a: float) -> ComputeTime:
    """Steps of 1 - a + a Exp(1) seconds."""
    return ShiftedExponential(shift=1.0 - a, mean=a) if a else Constant(1.0)


class Slowing(Stream):
    """The steps of a worker that is slower from some moment on.

    Parameters
    ----------
    stream : Stream
        Its steps until then.
    kernel : Kernel
        The clock.
    after : float
        When, in seconds; a step that has begun before is not touched.
    factor : float
        How much longer they take then.
    """

    def __init__(self, stream: Stream, kernel: Kernel, after: Seconds, factor: float) -> None:
        super().__init__(iter(stream.next, None))
        self._kernel, self._after, self._factor = kernel, after, factor

    def next(self) -> Seconds:
        """The duration of the next step, seconds."""
        duration = super().next()
        return duration * self._factor if self._kernel.now >= self._after else duration


class Learner:
    """A model, the samples it learns from, and its loss after every few updates.

    Batches are drawn with replacement from all samples, for each worker by its own generator.

    Parameters
    ----------
    folder : Path
        Where MNIST is.
    batch : int
        Samples of a gradient.
    lr : float
        The learning rate.
    target : float
        The loss that is to be reached.
    seed : int
        Of the model and the batches.
    samples : int, optional
        Training samples that batches are drawn from; all there are by default.

    Attributes
    ----------
    losses : list of float
        After 0, ``EVERY``, 2 ``EVERY`` ... updates.
    """

    def __init__(self, folder: Path, batch: int, lr: float, target: float, seed: int, samples: int | None = SAMPLES) -> None:
        inputs, self._labels = _samples(folder, samples)
        self._inputs, self._batch, self._lr, self.target, self._seed = inputs, batch, lr, target, seed
        self._model = models.build("2nn", tuple(inputs.shape[1:]), classes=10, seed=seed)
        parameters = list(self._model.parameters())
        self._weights = torch.cat([parameter.detach().reshape(-1) for parameter in parameters])
        self.gradient = torch.zeros_like(self._weights)
        start = 0
        for parameter in parameters:
            part = slice(start, start := start + parameter.numel())
            parameter.data, parameter.grad = self._weights[part].view_as(parameter), self.gradient[part].view_as(parameter)
        self.updates = 0
        self.losses: list[float] = []
        self._look()

    def draws(self, worker: Rank) -> np.random.Generator:
        """The generator of a worker's batches."""
        return np.random.default_rng([self._seed, worker])

    def backward(self, generators: Sequence[np.random.Generator]) -> float:
        """Take the mean gradient of one batch of each generator; return the loss."""
        indices = np.concatenate([generator.integers(0, len(self._labels), self._batch) for generator in generators])
        batch = torch.from_numpy(indices)
        self.gradient.zero_()
        loss = functional.cross_entropy(self._model(self._inputs[batch]), self._labels[batch])
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.item()

    def descend(self, gradient: torch.Tensor, factor: float) -> float:
        """Make a step; return the learning rate it took."""
        step = self._lr * factor
        self._weights.sub_(gradient, alpha=step)
        self.updates += 1
        if self.updates % EVERY == 0:
            self._look()
        return step

    @torch.no_grad()
    def _look(self) -> None:
        self.losses.append(functional.cross_entropy(self._model(self._inputs[:JUDGED]), self._labels[:JUDGED]).item())

    @property
    def over(self) -> bool:
        """Whether the target has been reached, or never will be."""
        return reached(self.losses, self.target) < math.inf or not math.isfinite(self.losses[-1])


class Tested(Learner):
    """In place of the loss stands the share of the first test samples that it gets wrong.

    Parameters
    ----------
    folder, batch, lr, seed, samples
        See :class:`Learner`.
    target : float
        The accuracy that is to be reached.
    shown : int
        Test samples that are looked at.
    """

    def __init__(self, folder: Path, batch: int, lr: float, target: float, seed: int, *, samples: int | None, shown: int) -> None:
        self._shown, self._right = _test_samples(folder, shown)
        super().__init__(folder, batch, lr, 1.0 - target, seed, samples)

    @torch.no_grad()
    def _look(self) -> None:
        self.losses.append((self._model(self._shown).argmax(1) != self._right).float().mean().item())


def reached(losses: Sequence[float], target: float) -> float:
    """After how many updates the smoothed loss was down at ``target``; infinite if it was not.

    Examples
    --------
    >>> reached([3.0, 3.0, 3.0, 2.0, 1.0, 0.0, 0.0, 0.0], target=0.9)
    22.5
    """
    smooth = np.convolve(losses, np.ones(SMOOTHED) / SMOOTHED, mode="valid") if len(losses) >= SMOOTHED else np.empty(0)
    below = np.nonzero(smooth <= target)[0]
    if not len(below):
        return math.inf
    first = int(below[0])
    after = (smooth[first - 1] - target) / (smooth[first - 1] - smooth[first]) - 1.0 if first else 0.0
    return EVERY * (first + float(after) + SMOOTHED // 2)


@cache
def _samples(folder: Path, count: int | None) -> tuple[torch.Tensor, torch.Tensor]:
    split = load("mnist", folder, count).train
    return split.batch(np.arange(len(split.labels)))


@cache
def _test_samples(folder: Path, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    return load("mnist", folder, count).test.batch(np.arange(count))


@contextmanager
def one_thread() -> Iterator[None]:
    """Keep torch from using more."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def learn(learner: Learner, k: int, factor: float, most: int) -> float:
    """Updates to the target, k gradients each: with synchronous updates it does not matter when they are made."""
    generators = [learner.draws(worker) for worker in range(1, k + 1)]
    while not learner.over and learner.updates < most:
        learner.backward(generators)
        learner.descend(learner.gradient, factor)
    return reached(learner.losses, learner.target)


class _Worker:
    """Computes a gradient if it can still count: on the server's present weights, so that none have to be moved but a number."""

    def __init__(self, rank: Rank, learner: Learner) -> None:
        self._generator, self._learner = learner.draws(rank), learner
        self._landing, self._version = np.zeros(1, dtype=np.int64), 0
        self._loss = learner.losses[0]
        self.gradient, self.at = torch.zeros_like(learner.gradient), -1

    def outgoing(self, peer: Rank) -> Chunks:
        return ()

    def release(self, peer: Rank, index: int) -> None:
        raise ProtocolError("no chunk is sent")

    def lend(self, peer: Rank, index: int) -> np.ndarray:
        return self._landing.view(np.uint8)

    def deliver(self, peer: Rank, index: int, data: np.ndarray) -> None:
        """It is where it belongs."""

    def taken(self, peer: Rank) -> Event:
        return ModelTaken(peer)

    def install(self) -> None:
        self._version = int(self._landing[0])

    def step(self, round: Round) -> float:
        if self._version == self._learner.updates:
            self._loss = self._learner.backward([self._generator])
            self.gradient.copy_(self._learner.gradient)
            self.at = self._version
        return self._loss


class _Server:
    def __init__(self, learner: Learner, workers: Sequence[_Worker], times: Callable[[], Seconds]) -> None:
        self._learner, self._workers, self._now = learner, workers, times
        self._version = np.zeros(1, dtype=np.int64)
        self.times, self.counts = [0.0], [0]

    def outgoing(self, peer: Rank) -> Chunks:
        return [self._version.view(np.uint8)]

    def release(self, peer: Rank, index: int) -> None:
        """Nothing is to be reused."""

    def lend(self, peer: Rank, index: int) -> np.ndarray:
        raise ProtocolError("gradients are where they are")

    def deliver(self, peer: Rank, index: int, data: np.ndarray) -> None:
        """Nothing comes."""

    def taken(self, peer: Rank) -> Event:
        gradient = self._workers[peer - 1].gradient
        return GradientTaken(peer, float(gradient @ gradient))

    def discard(self, peer: Rank) -> None:
        """Nothing is kept here."""

    def apply(self, workers: Sequence[Rank], factor: float) -> Event:
        chosen = [self._workers[worker - 1] for worker in workers]
        if any(worker.at != self._learner.updates for worker in chosen):
            raise ProtocolError("an update takes a gradient of an older version; only synchronous rules are simulated here")
        mean = chosen[0].gradient.clone()
        for worker in chosen[1:]:
            mean += worker.gradient
        mean /= len(chosen)
        step = self._learner.descend(mean, factor)
        self._version = np.array([self._learner.updates])
        self.times.append(self._now())
        self.counts.append(len(chosen))
        return Applied(float(mean @ mean), step)


Streams = Callable[[Kernel], Sequence[Stream]]
"""The workers' steps on a clock."""


class Made(NamedTuple):
    """When each version was made, seconds, and of how many gradients; the first was there at 0."""

    times: list[Seconds]
    counts: list[int]


def train(
    rule: ServerRule, streams: Streams, learner: Learner, *, factor: Factor, most: int, push: PushMode = "wait"
) -> Made:
    """Train until the target is reached or ``most`` updates are made."""
    kernel = Kernel()
    drawn = streams(kernel)
    workers = [_Worker(rank, learner) for rank in range(1, len(drawn) + 1)]
    server = _Server(learner, workers, lambda: kernel.now)
    network = ServedNetwork(
        rule,
        drawn,
        INSTANT,
        stop=_never,
        push=push,
        factor=factor,
        server=server,
        workers=workers,
        kernel=kernel,
    )
    until = 0.0
    while not learner.over and learner.updates < most:
        until += 1.0
        network.run(until)
    return Made(server.times, server.counts)


def versions(rule: ServerRule, streams: Streams, updates: int, push: PushMode = "wait") -> list[Seconds]:
    """When each of so many versions is made, seconds, if nothing is computed."""
    kernel = Kernel()
    made = [0.0]

    def note(rank: Rank, record: object, compute: Seconds) -> None:
        if rank == SERVER:
            made.append(kernel.now)

    network = ServedNetwork(rule, streams(kernel), INSTANT, stop=_never, push=push, on_round=note, kernel=kernel)
    until = 0.0
    while len(made) <= updates:
        until += 1.0
        network.run(until)
    return made


def _never(rank: Rank, round: Round) -> bool:
    return False
