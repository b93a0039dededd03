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
class ModelArrived(NamedTuple):
    """The whole model of the exchange under way with ``peer`` has been received."""

    peer: Rank


@tagged
class ModelSent(NamedTuple):
    """The own model has been sent to ``peer``; its buffer is no longer read by that transfer."""

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


Event: TypeAlias = StepDone | Control | ModelArrived | ModelSent | PeerLost | Tick | LeaveWanted
