"""From a configuration to what a rank trains: data, its share of them, a model, an optimizer."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from consensus import models
from consensus.alike import flatten
from consensus.config import RunConfig
from consensus.data.catalogue import load
from consensus.data.dataset import Dataset
from consensus.data.partition import partition
from consensus.data.sampler import Sampler
from consensus.run.optimizers import recipe
from consensus.serving import check_shares
from consensus.types import Rank


@dataclass(frozen=True)
class Task:
    """What one rank trains.

    Attributes
    ----------
    dataset : Dataset
        Whole, at every rank.
    sampler : Sampler
        This rank's walk through its share.
    model : nn.Module
        Alike at all ranks.
    optimizer : Optimizer
        Of the model's parameters.
    scheduler : LRScheduler or None
        Advanced once per local step.
    """

    dataset: Dataset
    sampler: Sampler
    model: nn.Module
    optimizer: Optimizer
    scheduler: LRScheduler | None


def check_names(config: RunConfig, size: int | None = None) -> None:
    """Make sure that everything a run file names exists and takes the values given, without starting a rank.

    Parameters
    ----------
    config
        Of a run file; its own checks have been made.
    size
        Number of ranks, to check that each gets samples; ``run.ranks`` by default.

    Raises
    ------
    ConfigError
        For an unknown model, optimizer, scheduler or keyword, or a model that cannot be shared out to so many servers.
    DataError
        If the data set's files are missing or damaged, or a rank would get no samples.
    """
    task = prepare(config, 0, size or config.size or 1)
    if config.serves:
        servers = config.server.servers
        check_shares(flatten(task.model, task.optimizer, config.exchange.buffers, servers), servers)


def prepare(config: RunConfig, rank: Rank, size: int) -> Task:
    """Load the data and build what ``rank`` of ``size`` trains; raises as :func:`check_names` does."""
    return prepare_all(config, size, [rank])[0]


def prepare_all(config: RunConfig, size: int, ranks: Iterable[Rank]) -> list[Task]:
    """As :func:`prepare`, for several ranks in one process; they share the data set."""
    steps = recipe(config.optimizer)
    dataset = load_data(config)
    seed, data = config.run.seed, config.data
    shares = partition(dataset.train.labels, config.shares(size), data.partition.build(), seed)
    tasks = []
    for rank in ranks:
        model = build_model(config, dataset)
        optimizer = steps.optimizer(model.parameters())
        scheduler = steps.scheduler(optimizer) if steps.scheduler is not None else None
        worker = 0 if config.codes else max(config.worker(rank, size), 0)  # a server draws no samples
        tasks.append(Task(dataset, Sampler(shares[worker], data.batch, seed, worker), model, optimizer, scheduler))
    return tasks


def load_data(config: RunConfig) -> Dataset:
    """The data set of a run file."""
    return load(config.data.name, config.data.dir, config.data.limit)


def build_model(config: RunConfig, dataset: Dataset) -> nn.Module:
    """The model of a run file, with the parameters that all ranks start from."""
    return models.build(config.model.name, dataset.input_shape, dataset.classes, config.run.seed)
