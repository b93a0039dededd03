"""The baseline everybody knows: average all ranks' gradients at every step (MPI all-reduce), then step alike."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from consensus.driver import RoundTimes
from consensus.errors import ConfigError
from consensus.flat import FlatModel
from consensus.handle import Handle
from consensus.transport.base import Transport


class AllReduceHandle(Handle):
    """An optimizer whose gradients are averaged over all ranks before each step.

    Every rank waits for the slowest at every step. Ranks stop together: each all-reduce also carries a vote, see
    :meth:`vote_to_stop`.

    Gradients are averaged in float32 (float64 for float64 parameters); a missing gradient counts as zero.
    """

    def __init__(self, model: nn.Module, optimizer: Optimizer, flat: FlatModel, transport: Transport) -> None:
        super().__init__(model, optimizer, flat, transport)
        self._parameters = [p for group in optimizer.param_groups for p in group["params"] if p.requires_grad]
        wide = any(p.dtype in (torch.float64, torch.complex128) for p in self._parameters)
        self._sum = np.zeros(sum(_real(p).numel() for p in self._parameters) + 1, np.float64 if wide else np.float32)
        self._began = transport.now()
        self._vote = False
        self.stop_agreed = False

    @property
    def lost(self) -> frozenset[int]:
        """The ranks that have died: whose gradients the last sum was without."""
        return frozenset(range(self.size)) - frozenset(self.transport.members)

    def vote_to_stop(self) -> None:
        """Ask all ranks to stop after the next step; ``stop_agreed`` is then true on all of them."""
        self._vote = True

    @torch.no_grad()
    def _step_begins(self, closure: bool) -> None:
        if closure:
            raise ConfigError(
                'rule "allreduce" averages gradients before the step, but this step computes them in a closure; '
                "use an optimizer without one, or a rule that averages models"
            )
        transport = self.transport
        missing = transport.pace(self.statistics.rounds + 1, transport.now() - self._began)
        if missing > 0:
            transport.sleep(missing)
        opened = transport.now()
        total = torch.from_numpy(self._sum)
        at = 0
        for parameter in self._parameters:
            part = total[at : at + _real(parameter).numel()]
            if parameter.grad is None:
                part.zero_()
            else:
                part.copy_(_real(parameter.grad).reshape(-1))
            at += part.numel()
        self._sum[-1] = self._vote
        packed = transport.now()
        transport.sum(self._sum)
        summed = transport.now()
        self.stop_agreed = bool(self._sum[-1] > 0)
        total /= len(transport.members)
        at = 0
        for parameter in self._parameters:
            if parameter.grad is None:
                parameter.grad = torch.empty_like(parameter)
            grad = _real(parameter.grad)
            grad.copy_(total[at : at + grad.numel()].view(grad.shape))
            at += grad.numel()
        mix = packed - opened + transport.now() - summed
        self._count_round(None, RoundTimes(opened - self._began, summed - packed, mix))

    def _step_ended(self) -> None:
        self._began = self.transport.now()

    def _pause(self) -> None:
        """Nothing is under way between two steps."""

    def _end(self) -> None:
        """Nothing to say goodbye to: ranks stop together."""

    def _abandon(self) -> None:
        """Nothing can be done: the other ranks wait in the all-reduce until the launcher ends the job."""


def _real(tensor: Tensor) -> Tensor:
    """``tensor``, or its real and imaginary parts if it is complex."""
    return torch.view_as_real(tensor.detach()) if tensor.is_complex() else tensor
