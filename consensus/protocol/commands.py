"""What an engine asks its driver to do: imperatives, carried out in order."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

from consensus.protocol.messages import Message, tagged
from consensus.types import Rank, Round, Seconds


@tagged
class SendControl(NamedTuple):
    """Send ``message`` to one rank."""

    peer: Rank
    message: Message


@tagged
class Broadcast(NamedTuple):
    """Send ``message`` to every other rank, also to those that have left: they wait for the others' goodbyes."""

    message: Message


@tagged
class SwapModel(NamedTuple):
    """Send the own flat model to ``peer`` and receive its one, in exchange of my ``round`` with its ``peer_round``.

    ``weight`` is what the arriving model counts for, if that is known by now; None means: keep it until Mix says. ``last`` says
    that the round has no other exchange to come: whatever part of the model has been swapped with everybody may be mixed.
    """

    peer: Rank
    round: Round
    peer_round: Round
    weight: float | None
    last: bool


@tagged
class DropModel(NamedTuple):
    """``peer`` died while its model was on the way here: do not wait for the rest of it."""

    peer: Rank


@tagged
class Mix(NamedTuple):
    """x <- (1 - sum of weights) x + sum of weight_j x_j over ``weights`` = ((peer, weight), ...), this round's exchanges."""

    weights: tuple[tuple[Rank, float], ...]


@tagged
class GiveModel(NamedTuple):
    """Send to ``peer`` what is for it: the gradient just computed, at a worker; the newest weights, at the server."""

    peer: Rank


@tagged
class TakeModel(NamedTuple):
    """Receive what ``peer`` sends."""

    peer: Rank


@tagged
class Apply(NamedTuple):
    """Average the gradients kept of ``workers``, and make an optimizer step ``factor`` as long as the optimizer would."""

    workers: tuple[Rank, ...]
    factor: float


@tagged
class Discard(NamedTuple):
    """Forget the gradient kept of ``peer``."""

    peer: Rank


@tagged
class Install(NamedTuple):
    """Make the weights that were received last the model."""


@tagged
class StartStep(NamedTuple):
    """Round ``round`` has closed and is mixed: compute the next local step."""

    round: Round


@tagged
class WakeAt(NamedTuple):
    """Deliver a Tick at time ``when`` (the rule waits for the clock)."""

    when: Seconds


@tagged
class Finish(NamedTuple):
    """Everybody has said goodbye: no message is under way on any channel of this rank."""


Command: TypeAlias = (
    SendControl | Broadcast | SwapModel | DropModel | Mix | StartStep | WakeAt | Finish
    | GiveModel | TakeModel | Apply | Discard | Install
)  # fmt: skip
