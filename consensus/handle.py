"""What every attached optimizer offers, whichever way its ranks average."""

from __future__ import annotations

import atexit
import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

from numpy.typing import NDArray
from torch import nn
from torch.optim import Optimizer

from consensus.driver import RoundTimes
from consensus.errors import ConfigError, ConsensusError
from consensus.flat import FlatModel
from consensus.protocol.rounds import RoundRecord
from consensus.statistics import Statistics
from consensus.transport.base import Transport
from consensus.transport.endings import ending, leave_mark
from consensus.transport.failures import JobEnded

_LOG = logging.getLogger("consensus")


class Handle(ABC):
    """Ties a model and its optimizer to the other ranks; made by :func:`consensus.attach`.

    As a context manager it leaves on exit: :meth:`close`, or after an exception at once, without waiting for anybody.

    Attributes
    ----------
    model : nn.Module
        The attached model.
    optimizer : torch.optim.Optimizer
        Its optimizer, hooked, not replaced.
    flat : FlatModel
        The model as one buffer.
    transport : Transport
        How ranks talk.
    statistics : Statistics
        This rank's counts so far.
    on_round : callable or None
        If set, called with (record, times) after each round; the record is None under all-reduce.
    before_change : callable or None
        If set, called just before a step or an average is about to change the model.
    """

    def __init__(self, model: nn.Module, optimizer: Optimizer, flat: FlatModel, transport: Transport) -> None:
        self.model = model
        self.optimizer = optimizer
        self.flat = flat
        self.transport = transport
        self.statistics = Statistics()
        self.on_round: Callable[[RoundRecord | None, RoundTimes], None] | None = None
        self.before_change: Callable[[], None] | None = None
        self._closed = False
        self._lent = False
        self._loss: float | None = None
        self._trainable = _count(optimizer)
        self._frozen = [parameter for parameter in model.parameters() if not parameter.requires_grad]
        self._hooks: list[Any] = [
            optimizer.register_step_pre_hook(self._before_step),
            optimizer.register_step_post_hook(self._after_step),
        ]

    @property
    def rank(self) -> int:
        """This rank's number."""
        return self.transport.rank

    @property
    def size(self) -> int:
        """How many ranks there are."""
        return self.transport.size

    @property
    def lost(self) -> frozenset[int]:
        """The ranks that this one knows to have died."""
        return frozenset()

    # -- checkpoints --------------------------------------------------------------------------------------------------------

    @property
    def progress(self) -> int:
        """What checkpoints by rounds go by: the own rounds; with a server, the version of the weights, at every rank."""
        return self.statistics.rounds

    def engine_state(self) -> dict[str, Any]:
        """What the engine needs to know to go on from a checkpoint, as plain data."""
        return {}

    # -- what the two kinds of averaging fill in --------------------------------------------------------------------------

    @abstractmethod
    def _step_begins(self, closure: bool) -> None:
        """The optimizer is about to change the model; with a ``closure``, by gradients that do not exist yet."""

    @abstractmethod
    def _step_ended(self) -> None:
        """The optimizer has changed the model."""

    @abstractmethod
    def _pause(self) -> None:
        """Wait until all ranks are here too and nothing is under way."""

    @abstractmethod
    def _abandon(self) -> None:
        """Leave at once; the other ranks go on."""

    @abstractmethod
    def _end(self) -> None:
        """Leave, and wait until the others have left."""

    def _is_waited_for(self) -> bool:
        """Whether others may wait for this rank as long as it has not left."""
        return False

    # -- hooks ------------------------------------------------------------------------------------------------------------

    def _before_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        if self._lent:
            raise ConfigError("optimizer.step() inside averaged(): the model there is lent and put back after; train outside")
        if _count(self.optimizer) != self._trainable:
            raise ConfigError("a parameter group was added to the optimizer after consensus.attach; add it first, then attach")
        if self._frozen and any(parameter.requires_grad for parameter in self._frozen):
            raise ConfigError(
                "a parameter that was frozen at consensus.attach requires a gradient now; unfreeze first, then attach again"
            )
        self._step_begins(closure=(len(args) > 1 or bool(kwargs)) and any(map(callable, (*args[1:], *kwargs.values()))))
        if self.before_change is not None:
            self.before_change()

    def _after_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        self._step_ended()

    def _count_round(self, record: RoundRecord | None, times: RoundTimes) -> None:
        self.statistics.add(record, times)
        self.statistics.bytes_sent = self.transport.bytes_sent
        if self.on_round is not None:
            self.on_round(record, times)

    def report_loss(self, loss: float) -> None:
        """Tell the loss of the batch whose gradient the next step takes; rule "dbw" of a parameter server decides by it."""
        self._loss = float(loss)

    # -- averaging over all ranks -------------------------------------------------------------------------------------------

    def _agree(self) -> None:
        """Make the model what all ranks have in common: the mean. Collective, nothing is under way."""
        self.flat.mean_over(self._mean)

    def _mean(self, numbers: NDArray[Any]) -> None:
        self.transport.sum(numbers)
        numbers /= len(self.transport.members)  # which only the sum has found out

    def average(self) -> None:
        """Replace the model by the mean over all living ranks (final consensus); with a parameter server, by the server's.

        Collective: every rank must call it, each as late as it likes; the call waits for the last. Training may go on afterwards,
        but with a parameter server, whose session it ends.
        """
        self._pause()
        if self.before_change is not None:
            self.before_change()
        self._agree()

    @contextmanager
    def averaged(self) -> Iterator[nn.Module]:
        """Lend the mean of all ranks' models, for evaluation or export; the own model is back afterwards. Collective."""
        self._pause()
        own = self.flat.snapshot()
        self._agree()
        self._lent = True
        try:
            yield self.model
        finally:
            self._lent = False
            self.flat.restore(own)

    # -- end ----------------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Detach from the optimizer, leave, and wait until the other ranks have left too. Safe to call twice."""
        if not self._closed:
            self._detach()
            self._end()

    def leave_at_exit(self) -> None:
        """Close when Python exits, unless that was done before; :func:`consensus.attach` asks for it.

        A rank whose script has ended without a goodbye would be waited for by the others. To leave takes the model, which
        neighbours may be sending theirs to; so until it is closed, a handle is kept for that.
        """
        self._process = os.getpid()
        atexit.register(self._leave_at_exit)

    def _leave_at_exit(self) -> None:
        # Children that were forked inherit exit handlers. After an error the job is to end now, not when the others are through.
        if os.getpid() != self._process or ending().failed() or not self._is_waited_for():
            return
        _LOG.warning(
            "rank %d exits and has not closed its handle: it leaves now, and waits until the others have left. Attach in a "
            "`with` block, or call handle.close() at the end",
            self.rank,
        )
        try:
            self.close()
        except JobEnded:
            pass  # whoever ended has said why
        except ConsensusError:
            _LOG.exception("rank %d could not leave in order at its exit", self.rank)
            ending().code = 1
            leave_mark(os.environ)

    def _detach(self) -> None:
        self._closed = True
        atexit.unregister(self._leave_at_exit)
        for hook in self._hooks:
            hook.remove()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if error is None:
            self.close()
            return
        if self.size > 1:
            error.add_note(f"on rank {self.rank} of {self.size}")
        if not self._closed:
            self._detach()
            self._abandon()


def _count(optimizer: Optimizer) -> int:
    return sum([len(group["params"]) for group in optimizer.param_groups])
