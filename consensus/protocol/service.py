"""What a server rule sees, and what it may say; the parameter server's counterpart of :mod:`consensus.protocol.decision`.

A rule says which gradients become an update and who goes on when. How weights get to the workers, and that nobody blocks anybody
meanwhile, is the engine's affair (:mod:`consensus.protocol.server`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, TypeAlias

from consensus.types import Rank, Seconds

SERVER: Rank = 0
"""The rank that serves, or the first of those that do; the workers come after them."""

PushMode: TypeAlias = Literal["wait", "interrupt", "pull"]
"""How new weights get to a worker.

wait: the server sends them to all; a busy worker finishes its batch, pushes, and goes on from the newest that it has received.
interrupt: the same, but a busy worker drops its batch at the next opportunity. pull: a worker asks when it has pushed.
"""

Factor: TypeAlias = Callable[[int, int], float]
"""The learning rate of an update of k gradients, in units of the optimizer's: ``factor(k, n)``, n workers at the beginning."""


class Arrival(NamedTuple):
    """A gradient that is here and in no update yet: of ``worker``, computed at ``version``, its ``iteration``-th push."""

    worker: Rank
    version: int
    iteration: int
    at: Seconds
    loss: float
    square: float


class Update(NamedTuple):
    """An update just made: of which gradients, ||their mean||^2, and the learning rate that it took."""

    arrivals: tuple[Arrival, ...]
    square: float
    step: float


class Verdict(NamedTuple):
    """What a rule wants done.

    ``apply``: the workers whose kept gradients are averaged into one update, now. ``discard``: those whose are thrown away.
    ``release``: those that may go on to newer weights than they have worked on, after the update. ``reason``: why; what is
    waited for, if nothing happens.
    """

    reason: str
    apply: tuple[Rank, ...] = ()
    discard: tuple[Rank, ...] = ()
    release: tuple[Rank, ...] = ()


@dataclass(slots=True)
class ServerView:
    """What a server rule may look at; owned and updated by the engine, read-only for the rule.

    Attributes
    ----------
    workers : tuple[Rank, ...]
        Those that have not left, ascending.
    version : int
        Updates made so far; the present weights' number.
    updated_at : Seconds
        When the last update was made; when serving began, before the first.
    kept : dict[Rank, Arrival]
        The gradients that are here and neither applied nor discarded, in order of arrival; one a worker at most.
    iterations : dict[Rank, int]
        For each worker, how many gradients of it have arrived, discarded ones too, rejected ones not.
    held : set[Rank]
        The workers that have pushed and have not been released since.
    factor : Factor
        The learning rate rule.
    push : PushMode
        How new weights get to the workers.
    """

    workers: tuple[Rank, ...]
    version: int = 0
    updated_at: Seconds = 0.0
    kept: dict[Rank, Arrival] = field(default_factory=dict)
    iterations: dict[Rank, int] = field(default_factory=dict)
    held: set[Rank] = field(default_factory=set)
    factor: Factor = lambda k, n: 1.0
    push: PushMode = "wait"


class ServerRule(Protocol):
    """Decides when a parameter server makes an update, and who continues.

    The rule object is configuration and stays as it is; ``state`` belongs to one server, goes in and comes out, and may be
    changed in place.
    """

    name: ClassVar[str]
    synchronous: ClassVar[bool]
    """Whether an update takes gradients of the present version alone; then weights may be sent to busy workers (``wait``)."""
    uses_losses: ClassVar[bool]
    """Whether the rule needs to be told the batches' losses."""

    def fit(self, workers: int) -> None:
        """Raise :class:`~consensus.errors.ConfigError` if the rule does not suit so many workers."""

    def start(self, view: ServerView, now: Seconds) -> Any:
        """Return the state of a server that begins now."""

    def decide(self, view: ServerView, arrival: Arrival | None, state: Any, now: Seconds) -> tuple[Verdict, Any]:
        """Judge: after a gradient has come (``arrival``, the newest of ``view.kept``), or after a departure (None)."""

    def applied(self, view: ServerView, update: Update, state: Any, now: Seconds) -> Any:
        """Take note of an update; ``view.version`` is the new one."""

    def departed(self, worker: Rank, view: ServerView, state: Any, now: Seconds) -> Any:
        """Take note that ``worker`` has left or died; the engine asks :meth:`decide` next."""

    def learnt(self, state: Any) -> Any:
        """Return what is worth knowing after a resume, as plain data for :func:`consensus.checkpoint.plain.encoded`, or None."""

    def resume(self, learnt: Any, view: ServerView, now: Seconds) -> Any:
        """Return the state of a server that begins now, knowing what an earlier one had learnt, of perhaps other workers."""
