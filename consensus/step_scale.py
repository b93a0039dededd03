"""Larger steps for ranks that take few: so that their data weighs as much as everybody's.

Under partial waiting a rank that is always slow takes fewer steps than its neighbours, and the common model leans towards the
data of the fast ones: with shards that differ, it settles elsewhere than at the minimum of the mean loss. Scaling each step by
(mean rate / own rate) restores that. The plan asks for the mean over all ranks; no rank knows it without asking everybody, so the
mean here is over a rank and its neighbours (ours). On a complete graph the two are the same; on a sparse one, where whole regions
are slow, it corrects less.
"""

from __future__ import annotations

from typing import Literal

from torch.optim import Optimizer

from consensus.types import Round

StepScale = Literal["none", "participation"]

WARM_UP: Round = 10
"""Rounds before which counts say nothing yet about rates; steps are as they are until then."""

LARGEST = 10.0
"""No step is scaled by more, nor by less than one over it: a rank that was away for an hour must not leap when it comes back."""


def factor(participation: float, rounds: Round) -> float:
    """By what a step is multiplied.

    Parameters
    ----------
    participation : float
        Own rate in units of the neighbourhood's mean, :attr:`consensus.protocol.neighbour.NeighbourEngine.participation`.
    rounds : int
        Own rounds so far.

    Examples
    --------
    >>> factor(0.25, rounds=100), factor(1.25, rounds=100), factor(0.25, rounds=3), factor(0.01, rounds=100)
    (4.0, 0.8, 1.0, 10.0)
    """
    if rounds < WARM_UP:
        return 1.0
    return min(LARGEST, max(1 / LARGEST, 1 / participation))


class ScaledStep:
    """Multiplies an optimizer's learning rates for one step, and puts them back.

    Whatever the optimizer does with its learning rate, the step becomes so many times as long where it is proportional to it, as
    in SGD, Adam and their kin; schedulers never see the change.

    Parameters
    ----------
    optimizer : Optimizer
        Its parameter groups have a learning rate ``lr``, a number or a tensor.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self._optimizer = optimizer
        self._before: list[object] | None = None

    def begin(self, by: float) -> None:
        """Multiply by ``by``, for the step that is about to be taken."""
        self.end()
        if by != 1.0:
            groups = self._optimizer.param_groups
            self._before = [group["lr"] for group in groups]
            for group in groups:
                group["lr"] = group["lr"] * by

    def end(self) -> None:
        """Put the learning rates back; without effect if they are."""
        if self._before is not None:
            for group, before in zip(self._optimizer.param_groups, self._before, strict=True):
                group["lr"] = before
            self._before = None
