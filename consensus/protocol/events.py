"""What happens to an engine: facts, in the past tense. Recording them records everything a decision saw."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

from consensus.protocol.messages import Message, tagged
from consensus.types import Rank


@tagged
class StepDone(NamedTuple):
    """The local gradient step of the next round is done; the round may open."""


@tagged
class Control(NamedTuple):
    """A control message from ``peer`` arrived."""

    peer: Rank
    message: Message


@tagged
class ModelSwapped(NamedTuple):
    """The exchange under way with ``peer`` is over: its whole model has been received, and the own one has left."""

    peer: Rank


@tagged
class PeerLost(NamedTuple):
    """``peer`` is dead: nothing more will come from it and nothing can be sent to it."""

    peer: Rank


@tagged
class Tick(NamedTuple):
    """The clock reached a time that a WakeAt asked for."""


@tagged
class LeaveWanted(NamedTuple):
    """This rank's training is over: close what is open, say goodbye, and finish when everybody has."""


@tagged
class ModelGiven(NamedTuple):
    """What was to be given to ``peer`` has left."""

    peer: Rank


@tagged
class ModelTaken(NamedTuple):
    """What ``peer`` was to give is here: weights, at a worker."""

    peer: Rank


@tagged
class GradientTaken(NamedTuple):
    """A gradient of ``peer`` is here, at the server; ``square`` is its squared norm, not finite if any of it is not."""

    peer: Rank
    square: float


@tagged
class Applied(NamedTuple):
    """The update asked for is made: ``square`` is the squared norm of the mean gradient, ``step`` the learning rate it took."""

    square: float
    step: float


Event: TypeAlias = (
    StepDone | Control | ModelSwapped | PeerLost | Tick | LeaveWanted
    | ModelGiven | ModelTaken | GradientTaken | Applied
)  # fmt: skip
