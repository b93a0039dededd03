"""A gradient on its way from a worker to a server, and what goes with it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from consensus.bundle import Bundle
from consensus.errors import ConfigError
from consensus.flat import FlatModel
from consensus.transport.base import Bytes


class Gradient(Bundle):
    """A bundle with a header: the options that its worker steps with, and which parameters have a gradient at all.

    A parameter that has none is not one whose gradient is zero: optimizers leave it alone, where momentum and weight decay would
    move the other.

    Parameters
    ----------
    flat : FlatModel
        Whose layout it has.
    width : int
        How many options there are, :attr:`consensus.group_options.GroupOptions.width`.

    Attributes
    ----------
    header : ndarray of uint8
        Both of the following, as it travels.
    options : ndarray of float64, shape (width,)
    present : ndarray of bool, shape (parameters,)
        In the order of ``flat.places``.
    """

    def __init__(self, flat: FlatModel, width: int) -> None:
        super().__init__(flat)
        self.header: Bytes = np.zeros(8 * width + len(flat.places), dtype=np.uint8)
        self.options: NDArray[np.float64] = self.header[: 8 * width].view(np.float64)
        self.present: NDArray[np.bool_] = self.header[8 * width :].view(np.bool_)

    def pieces(self, share: range) -> Sequence[Bytes]:
        """What travels to the server of these chunks: them, and the header, which every server needs."""
        return [*self.chunks[share.start : share.stop], self.header]

    @torch.no_grad()
    def take(self, flat: FlatModel, options: NDArray[np.float64]) -> None:
        """Take the gradient of ``flat``'s model, with these options. Averaged buffers come along.

        Raises
        ------
        ConfigError
            If a gradient is sparse.
        """
        for body in self.bodies:
            body.zero_()
        for at, (parameter, region, start) in enumerate(flat.places):
            gradient = parameter.grad
            self.present[at] = gradient is not None
            if gradient is None:
                continue
            if gradient.layout is not torch.strided:
                raise ConfigError(
                    f"the gradient of parameter {flat.names[at]!r} is of layout {gradient.layout}, but only dense ones can be "
                    "pushed to a parameter server; use sparse=False"
                )
            # Added, for parameters tied by memory share a place.
            self.parts[region][start : start + parameter.numel()] += gradient.detach().reshape(-1).to("cpu")
        for part, body, row in zip(self.parts, self.bodies, flat.rows(), strict=True):
            part[len(body) :] = row
        self.options[:] = options
