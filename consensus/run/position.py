"""Where a rank of a run goes on, from a set of checkpoints."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import nn

from consensus.bundle import Bundle, share, shared_chunk_bytes
from consensus.checkpoint.state import restore
from consensus.checkpoint.store import Store
from consensus.config import RunConfig
from consensus.errors import CheckpointError, ConfigError, DeadRanks
from consensus.flat import FlatModel
from consensus.protocol.service import SERVER
from consensus.run.checkpoints import FOLDER, Found
from consensus.run.prepare import Task, build_model
from consensus.statistics import Statistics
from consensus.transport.base import Transport
from consensus.types import Rank, Round, Seconds

_LOG = logging.getLogger("consensus")

_Model: TypeAlias = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Position:
    """Where one rank goes on.

    Attributes
    ----------
    found : Found
        The set of checkpoints.
    rounds : int
        That it had closed.
    steps : int
        Local steps that it had taken; with coded gradients updates.
    samples : int
        That it had processed.
    seconds : float
        On the run's clock, the same at all ranks.
    statistics : Statistics
        Its sums so far.
    training : mapping or None
        What :func:`consensus.checkpoint.state.capture` took; None if all ranks start from one model.
    engine : mapping
        Where a server or master was, see :meth:`consensus.protocol.server.ServerEngine.state`; the same at all ranks.
    """

    found: Found
    rounds: Round
    steps: int
    samples: int
    seconds: Seconds
    statistics: Statistics
    training: Mapping[str, Any] | None
    engine: Mapping[str, Any] = field(default_factory=dict)

    def check_start(self, transport: Transport) -> None:
        """Make sure that what all start from has come to all; after the ranks started alike.

        Raises
        ------
        DeadRanks
            If rank 0 has died, which alone had it. The others then had another rank's model instead, which was never trained.
        """
        if self.training is None and 0 not in transport.members:
            raise _orphaned(transport.rank, self.found)

    def restore(self, task: Task) -> None:
        """Put the training back where it was.

        Raises
        ------
        CheckpointError, ConfigError
            If it does not fit ``task``; with the name of the run that it is of.
        """
        if self.training is None:
            return
        try:
            restore(self.training, task.model, task.optimizer, task.scheduler, task.sampler)
        except (CheckpointError, ConfigError) as error:
            raise type(error)(f"{self.found.run / FOLDER / str(self.found.moment)}: {error}") from error


def take_up(found: Found, config: RunConfig, task: Task, transport: Transport) -> Position:
    """Where this rank goes on. Collective; before the ranks start alike.

    With as many ranks as before each goes on where it was, the workers of a parameter server with its newest weights. With
    another number, or where a rank left no file, all start from the server's model or from the mean of the models, and say so:
    optimizers and samplers start afresh. With coded gradients all there is to know is the master's, and any layout will do.

    Parameters
    ----------
    found
        The set.
    config
        Of the run that goes on.
    task
        What is trained.
    transport
        Not connected.

    Raises
    ------
    CheckpointError
        If a file cannot be read, or is of another model.
    DeadRanks
        If rank 0 has died, where all start from what it has read.
    """
    reader = _Reader(found, config, task, transport)
    if config.codes:
        return reader.of_master()
    return reader.own() if reader.fits else reader.afresh()


class _Reader:
    """Reads what a set of checkpoints has for the ranks of a run."""

    def __init__(self, found: Found, config: RunConfig, task: Task, transport: Transport) -> None:
        self._found, self._config, self._task, self._transport = found, config, task, transport
        self._store = Store(found.run / FOLDER, 0, 1)
        self._headers = self._store.headers(found.moment)
        self._seconds = max(header.seconds for header in self._headers.values())

    @property
    def fits(self) -> bool:
        """Whether there is a file for every rank, of one that did the same."""
        size, servers = self._transport.size, self._config.server.servers
        return self._found.ranks == size == len(self._headers) and self._found.config.server.servers == servers

    def own(self) -> Position:
        """Where this very rank was."""
        config, rank = self._config, self._transport.rank
        state = self._read(rank)
        statistics, training, engine = Statistics(**state["statistics"]), state["training"], state["engine"]
        if config.serves:
            engine = engine if rank == SERVER else self._read(SERVER)["engine"]
            if config.worker(rank, self._transport.size) >= 0:
                training = {**training, "model": self._with_served(training["model"])}
        counts = statistics.rounds, state["steps"], state["samples"]
        return Position(self._found, *counts, self._seconds, statistics, training, engine)

    def of_master(self) -> Position:
        """Where the master was, which is all that the others need to know; their own counts begin anew."""
        state, master = self._read(SERVER), self._transport.rank == SERVER
        training = state["training"]
        before, parts = self._found.config.shares(self._found.ranks), self._config.shares(self._transport.size)
        if before != parts:
            training = {**training, "sampler": self._task.sampler.state_dict()}
            if master:
                told = "%s had its data in %d parts, and now there are %d: training goes on where it was, with other samples"
                _LOG.warning(told, self._found.run, before, parts)
        statistics, samples = (Statistics(**state["statistics"]), state["samples"]) if master else (Statistics(), 0)
        updates = state["engine"]["version"]
        return Position(self._found, updates, updates, samples, self._seconds, statistics, training, state["engine"])

    def afresh(self) -> Position:
        """A common start from what all had come to: rank 0's model becomes that."""
        found, config, rank, size = self._found, self._config, self._transport.rank, self._transport.size
        before: _Before | None = None
        if rank == 0:
            model, whose = (self._served(), "server's model") if config.serves else (self._mean(), "mean of the models")
            _load(self._task.model, model, found)
            before = self._before()
            _LOG.warning(
                "%s has checkpoints of %d ranks, %d of them whole, and now there are %d: all start from the %s, after %d rounds; "
                "optimizers, learning-rate schedules and samplers start afresh",
                found.run, found.ranks, len(self._headers), size, whose, before.trained.rounds,
            )  # fmt: skip
        before = self._transport.gather(before)[0]
        if before is None:
            raise _orphaned(rank, found)
        worker, workers = config.worker(rank, size), config.workers(size)
        samples = before.samples
        own = samples // workers + (worker < samples % workers) if worker >= 0 else 0
        statistics = before.trained if worker >= 0 else before.served
        steps = statistics.rounds * config.exchange.every if worker >= 0 else 0
        came = {"version": before.served.rounds, "arrived": samples // config.data.batch}
        engine: dict[str, Any] = {**came, "discarded": {}, "rejected": {}, "rule": "", "learnt": None}
        return Position(found, statistics.rounds, steps, own, self._seconds, statistics, None, engine)

    def _before(self) -> _Before:
        """What all had done, whoever goes on."""
        config, ranks, samples = self._found.config, self._found.ranks, 0
        counts: dict[Rank, Statistics] = {}
        for rank in self._headers:
            state = self._read(rank)
            counts[rank] = Statistics(**state["statistics"])
            samples += state["samples"]
        trained = _mean_of([own for rank, own in counts.items() if config.worker(rank, ranks) >= 0])
        return _Before(samples, trained, counts[SERVER] if config.serves else Statistics())

    def _read(self, rank: Rank) -> Any:
        return self._store.read(self._found.moment, rank)

    @torch.no_grad()
    def _mean(self) -> _Model:
        """The mean of all ranks' models."""
        total: dict[str, torch.Tensor] = {}
        for rank in self._headers:
            for name, value in self._read(rank)["training"]["model"].items():
                if not _is_number(value):
                    total.setdefault(name, value)
                elif name in total:
                    total[name] += value.to(total[name].dtype)
                else:
                    total[name] = value.to(torch.float64 if value.is_floating_point() else torch.complex128)
        return {name: value / len(self._headers) if _is_number(value) else value for name, value in total.items()}

    def _served(self) -> _Model:
        """A parameter server's model; of several servers' each one's share."""
        models: list[_Model] = [self._read(server)["training"]["model"] for server in range(self._found.config.server.servers)]
        if len(models) == 1:
            return models[0]
        model = build_model(self._config, self._task.dataset)
        chunk_bytes = shared_chunk_bytes(model.parameters(), len(models))
        flat = FlatModel(model, model.parameters(), buffers="local", chunk_bytes=chunk_bytes)
        whole = Bundle(flat)
        for server, state in enumerate(models):
            _load(model, state, self._found)
            for index in share(len(flat.chunks), len(models), server):
                whole.chunks[index][:] = flat.chunks[index]
        flat.restore(whole.bytes)
        return model.state_dict()

    def _with_served(self, own: _Model) -> _Model:
        """A worker's model with the server's numbers; counters, and buffers that stay local, are its own."""
        served, averaged = self._served(), self._config.exchange.buffers == "average"
        parameters = {name for name, _ in self._task.model.named_parameters(remove_duplicate=False)}
        return {
            name: served[name] if name in parameters or (averaged and _is_number(value)) else value
            for name, value in own.items()
        }


class _Before(NamedTuple):
    """What the ranks of a run had done, for others that go on in their place.

    Attributes
    ----------
    samples : int
        Of all of them.
    trained : Statistics
        The mean over those that trained.
    served : Statistics
        The server's, if there was one; its rounds are the updates.
    """

    samples: int
    trained: Statistics
    served: Statistics


def _mean_of(counts: Sequence[Statistics]) -> Statistics:
    """Field by field; whole numbers are rounded down, so that no budget of rounds is cut short."""
    columns: dict[str, Any] = {field.name: [getattr(each, field.name) for each in counts] for field in fields(Statistics)}
    means = {key: sum(column) / len(column) for key, column in columns.items() if column}
    return Statistics(**{key: math.floor(mean) if isinstance(columns[key][0], int) else mean for key, mean in means.items()})


def _orphaned(rank: Rank, found: Found) -> DeadRanks:
    return DeadRanks(
        f"rank {rank} cannot begin: rank 0, which had the model of {found.run} that all start from, has died; start again, as "
        "it was done now"
    )


def _is_number(value: torch.Tensor) -> bool:
    return value.is_floating_point() or value.is_complex()


def _load(model: nn.Module, state: _Model, found: Found) -> None:
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(
            f"{found.run}: its model does not fit this run's {type(model).__name__} ({reason}); go on with the model that it had"
        ) from error
